"""The sessions' shapes: bodies and parameters in, answers for the schema."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from gpubroker.common import sshkeys
from gpubroker.common.api import PageQuery, ProviderField, StrictCharField, StrictIntegerField
from sessions_app.states import Status

WORKLOADS = ("llm", "training", "batch", "llm_vllm", "llm_tgi", "interactive", "inference", "ssh", "benchmark")


class CreateBody(serializers.Serializer[Any]):
    consumer_id = StrictCharField(max_length=128, help_text="The application that asks")
    offer_id = StrictCharField(max_length=128, help_text="From the inventory")
    workload_type = serializers.ChoiceField(choices=WORKLOADS)
    reservation_hours = StrictIntegerField(min_value=1, max_value=12)
    idle_threshold_minutes = StrictIntegerField(required=False, min_value=0, max_value=100_000, default=0)
    storage_policy = serializers.ChoiceField(required=False, choices=["destroy", "preserve"], default="destroy")
    launch_mode = serializers.ChoiceField(required=False, choices=["ssh", "entrypoint"], default="ssh")
    docker_image = StrictCharField(required=False, max_length=512, default="", allow_blank=True)
    model_id = StrictCharField(required=False, max_length=256, allow_blank=True)
    quantization = StrictCharField(required=False, max_length=64, allow_blank=True)
    exposed_ports = serializers.ListField(
        required=False, max_length=64, child=StrictIntegerField(min_value=1, max_value=65_535)
    )
    on_start_cmd = StrictCharField(required=False, max_length=3500, allow_blank=True)
    disk_gb = StrictIntegerField(required=False, min_value=8, max_value=16_000, help_text="Default 50")
    template_hash_id = StrictCharField(required=False, max_length=64, default="", allow_blank=True)
    ssh_public_key = StrictCharField(
        required=False, max_length=sshkeys.MAX_PUBLIC_KEY_LENGTH, default="", allow_blank=True,
        help_text="Your own OpenSSH public key; then no private key is made",
    )  # fmt: skip
    ssh_key_type = serializers.ChoiceField(required=False, choices=sshkeys.KEY_TYPES, default="rsa")

    OPTIONS = ("model_id", "quantization", "exposed_ports", "on_start_cmd")

    def validate_ssh_public_key(self, value: str) -> str:
        if not value.strip():
            return ""
        try:
            return sshkeys.checked_public_key(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        options = {name: attrs.pop(name) for name in self.OPTIONS if attrs.get(name)}
        for name in self.OPTIONS:
            attrs.pop(name, None)
        return {**attrs, "launch_options": options}


class ListParams(PageQuery):
    consumer_id = serializers.CharField(required=False, max_length=128)
    status = serializers.ChoiceField(required=False, choices=Status.choices)
    provider = ProviderField(required=False)


class SessionSchema(serializers.Serializer[Any]):
    id = serializers.CharField()
    consumer_id = serializers.CharField()
    provider = serializers.CharField()
    offer_id = serializers.CharField()
    gpu_type = serializers.CharField()
    gpu_count = serializers.IntegerField()
    status = serializers.ChoiceField(choices=Status.choices)
    ssh_host = serializers.CharField(help_text="Empty until the provider tells")
    ssh_port = serializers.IntegerField(help_text="0 until the provider tells")
    ssh_user = serializers.CharField()
    workload_type = serializers.CharField()
    launch_mode = serializers.CharField()
    storage_policy = serializers.CharField()
    idle_threshold_minutes = serializers.IntegerField()
    reservation_hours = serializers.IntegerField()
    price_per_hour = serializers.FloatField(help_text="Dollars, without disk")
    disk_gb = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    end_reason = serializers.CharField(help_text="Empty while it lives")
    end_message = serializers.CharField()
    ended_at = serializers.DateTimeField(allow_null=True)
    template_hash_id = serializers.CharField(required=False)
    docker_image = serializers.CharField(required=False)


class CreatedSchema(serializers.Serializer[Any]):
    session = SessionSchema()
    ssh_private_key = serializers.CharField(required=False, help_text="Shown once; absent with ssh_public_key")


class SessionListSchema(serializers.Serializer[Any]):
    sessions = SessionSchema(many=True)
    count = serializers.IntegerField(help_text="Sessions in this answer")
    total = serializers.IntegerField(help_text="Sessions that match")


class MessageSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    status = serializers.CharField(required=False)


class StaleInventorySchema(serializers.Serializer[Any]):
    error = serializers.CharField()
    error_type = serializers.CharField()
    offer_id = serializers.CharField()
    provider = serializers.CharField()
    retry_suggested = serializers.BooleanField()
    message = serializers.CharField()
    session_id = serializers.CharField()
    request_id = serializers.CharField()
