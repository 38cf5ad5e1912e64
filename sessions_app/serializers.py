"""The sessions' shapes: bodies and parameters in, answers for the schema."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from billing.budget_serializers import FitsSchema
from gpubroker.common import sshkeys
from gpubroker.common.api import (
    FiniteFloatField,
    PageQuery,
    ProviderField,
    StrictBooleanField,
    StrictCharField,
    StrictIntegerField,
)
from gpubroker.common.names import NameField
from gpubroker.common.schema import ErrorSchema
from sessions_app import bidding, preserve
from sessions_app.models import Pricing, RetryScope
from sessions_app.states import Debt, EndReason, Status

WORKLOADS = ("llm", "training", "batch", "llm_vllm", "llm_tgi", "interactive", "inference", "ssh", "benchmark")
MOST_RETRIES, USUAL_RETRIES = 5, 3
#: How far an attempt came.
PHASES = ("create", "boot", "run")


class PublicKeyField(StrictCharField):
    """One OpenSSH public key line; empty: none given."""

    def __init__(self, **kwargs: Any) -> None:
        limit = sshkeys.MAX_PUBLIC_KEY_LENGTH
        super().__init__(required=False, max_length=limit, default="", allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if not value.strip():
            return ""
        try:
            return sshkeys.checked_public_key(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None


class StrictFloatField(FiniteFloatField):
    """A number in JSON: neither a boolean nor a string."""

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float):
            raise serializers.ValidationError("must be a number")
        return super().to_internal_value(data)


class StrictDecimalField(serializers.DecimalField):
    """An amount in JSON: a number, neither a boolean nor a string; exactly the digits that were sent."""

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("must be a number")
        return super().to_internal_value(data)


class BidField(StrictDecimalField):
    """Dollars per hour for a whole machine."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_digits=12, decimal_places=6, min_value=bidding.LEAST, max_value=bidding.MOST, coerce_to_string=False,
            **kwargs,
        )  # fmt: skip


class CreateBody(serializers.Serializer[Any]):
    consumer_id = NameField(max_length=128, help_text="The application that asks")
    offer_id = StrictCharField(max_length=128, help_text="From the inventory")
    workload_type = serializers.ChoiceField(choices=WORKLOADS)
    reservation_hours = StrictIntegerField(min_value=1, max_value=12)
    idle_threshold_minutes = StrictIntegerField(required=False, min_value=0, max_value=100_000, default=0)
    storage_policy = serializers.ChoiceField(required=False, choices=["destroy", "preserve"], default="destroy")
    preserve_hours = StrictIntegerField(
        required=False, min_value=1, max_value=preserve.MOST_HOURS,
        help_text="With storage_policy preserve: how long the disk is kept; default 24",
    )  # fmt: skip
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
    ssh_public_key = PublicKeyField(help_text="Your own OpenSSH public key; then no private key is made")
    ssh_key_type = serializers.ChoiceField(required=False, choices=sshkeys.KEY_TYPES, default="rsa")
    auto_retry = StrictBooleanField(
        required=False, default=False, help_text="Go on with another offer when an attempt fails before it runs"
    )
    max_retries = StrictIntegerField(
        required=False, min_value=0, max_value=MOST_RETRIES,
        help_text=f"Attempts after the first; with auto_retry {USUAL_RETRIES} by default, without it none",
    )  # fmt: skip
    retry_scope = serializers.ChoiceField(
        required=False, choices=RetryScope.choices, default=RetryScope.SAME_GPU,
        help_text="How alike the next offer must be to the first one",
    )  # fmt: skip
    max_price = StrictDecimalField(
        required=False, allow_null=True, default=None, max_digits=12, decimal_places=6, min_value=Decimal("0.000001"),
        coerce_to_string=False,
        help_text="Dollars per hour of any attempt, without disk. Without it, retries cost at most 1.5 times the first",
    )  # fmt: skip

    pricing = serializers.ChoiceField(
        required=False, choices=Pricing.choices, default=Pricing.ON_DEMAND,
        help_text="interruptible: at a bid of yours, on offers that are interruptible; whoever bids more pauses it",
    )  # fmt: skip
    bid_price = BidField(
        required=False, allow_null=True, default=None,
        help_text="Dollars per hour for the whole offer, without disk; with pricing interruptible. Default: its "
        "min_bid_per_hour",
    )  # fmt: skip

    OPTIONS = ("model_id", "quantization", "exposed_ports", "on_start_cmd")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        options = {name: attrs.pop(name) for name in self.OPTIONS if attrs.get(name)}
        for name in self.OPTIONS:
            attrs.pop(name, None)
        retries = attrs.get("max_retries")
        if retries and not attrs["auto_retry"]:
            raise serializers.ValidationError({"max_retries": "needs auto_retry: true"})
        attrs["max_retries"] = USUAL_RETRIES if attrs["auto_retry"] and retries is None else retries or 0
        return {**attrs, "launch_options": options}


class ListParams(PageQuery):
    consumer_id = serializers.CharField(required=False, max_length=128)
    status = serializers.ChoiceField(required=False, choices=Status.choices)
    provider = ProviderField(required=False)
    after = serializers.CharField(
        required=False, max_length=32, help_text="Only sessions that come after this one: the last answer's `next`"
    )


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
    price_per_hour = serializers.FloatField(help_text="Dollars, without disk; the bid where pricing is interruptible")
    disk_gb = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    end_reason = serializers.CharField(help_text="Empty while it lives")
    end_message = serializers.CharField()
    ended_at = serializers.DateTimeField(allow_null=True)
    template_hash_id = serializers.CharField(required=False)
    docker_image = serializers.CharField(required=False)
    api_endpoint = serializers.CharField(required=False, help_text="The first exposed port, once it is mapped")
    auto_retry = serializers.BooleanField()
    max_retries = serializers.IntegerField()
    retry_scope = serializers.ChoiceField(choices=RetryScope.choices)
    max_price = serializers.FloatField(allow_null=True, help_text="Dollars per hour, without disk")
    pricing = serializers.ChoiceField(choices=Pricing.choices)
    bid_price = serializers.FloatField(allow_null=True, help_text="Dollars per hour, without disk; null on demand")
    paused = serializers.BooleanField(help_text="Interruptible: somebody bids more, and the machine stands still")
    paused_at = serializers.DateTimeField(allow_null=True)


class CreatedSchema(serializers.Serializer[Any]):
    session = SessionSchema()
    ssh_private_key = serializers.CharField(required=False, help_text="Shown once; absent with ssh_public_key")
    note = serializers.CharField(required=False, help_text="On a replay: the private key is no longer kept")


class SessionListSchema(serializers.Serializer[Any]):
    sessions = SessionSchema(many=True)
    count = serializers.IntegerField(help_text="Sessions in this answer")
    total = serializers.IntegerField(help_text="Sessions that match")
    next = serializers.CharField(allow_null=True, help_text="With `limit`: `after` for the next page; null on the last")


class ExtendBody(serializers.Serializer[Any]):
    additional_hours = StrictIntegerField(min_value=1, max_value=12)


class ExtendedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    new_expires_at = serializers.DateTimeField()


class TooLongSchema(ErrorSchema):
    latest_expires_at = serializers.DateTimeField(required=False, help_text="Where the new end was too late")


class DiagnosticsSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.choices)
    provider = serializers.CharField()
    gpu_type = serializers.CharField()
    gpu_count = serializers.IntegerField()
    ssh_host = serializers.CharField(allow_blank=True, help_text="Empty with launch_mode entrypoint")
    ssh_port = serializers.IntegerField()
    ssh_user = serializers.CharField()
    launch_mode = serializers.CharField()
    api_endpoint = serializers.CharField(help_text="The first exposed port from outside; empty without one")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    uptime = serializers.CharField(help_text="Since created_at: '1h 30m', '30m', or '45s' under a minute; rounded down")
    uptime_seconds = serializers.IntegerField()
    time_to_expiry = serializers.CharField(help_text="In the same form")
    time_to_expiry_seconds = serializers.IntegerField()
    ssh_available = serializers.BooleanField(help_text="Whether the broker's own key opened the door at its last look")
    host_key = serializers.CharField(help_text="Fingerprint of the pinned SSH host key; empty without SSH")
    note = serializers.CharField()
    ssh_checked_at = serializers.DateTimeField(allow_null=True, help_text="When it last did; null without SSH")


class EventSchema(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    kind = serializers.CharField(help_text="'session' and 'rental' are changes of state")
    # "from" is a word of Python's, hence the override below.
    to = serializers.CharField(allow_blank=True)
    reason = serializers.CharField(allow_blank=True)
    actor = serializers.CharField()
    details = serializers.DictField(help_text="Facts, such as the proof that closed a rental")

    def get_fields(self) -> dict[str, Any]:
        own = super().get_fields()
        before = serializers.CharField(allow_blank=True)
        return {"at": own.pop("at"), "kind": own.pop("kind"), "from": before, **own}


class EventListSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    events = EventSchema(many=True)
    count = serializers.IntegerField()
    total = serializers.IntegerField()


class AttemptErrorSchema(serializers.Serializer[Any]):
    reason = serializers.ChoiceField(choices=EndReason.choices)
    message = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField()


class AttemptSchema(serializers.Serializer[Any]):
    attempt = serializers.IntegerField(help_text="From 1")
    offer_id = serializers.CharField()
    provider = serializers.CharField()
    gpu_type = serializers.CharField()
    machine_id = serializers.CharField(allow_blank=True)
    price_asked = serializers.FloatField(allow_null=True, help_text="The offer's, dollars per hour without disk")
    price_actual = serializers.FloatField(allow_null=True, help_text="As the provider last billed it; null: not known")
    phase = serializers.ChoiceField(choices=PHASES, help_text="How far it came")
    state = serializers.ChoiceField(choices=Debt.choices, help_text="Of the debt; closed: proved that nothing is left")
    error = AttemptErrorSchema(allow_null=True, help_text="Why it came to nothing, where it did")
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True, help_text="When it was proved that nothing is billed")
    seconds = serializers.FloatField(help_text="From started_at to ended_at, or to now")


class AttemptListSchema(serializers.Serializer[Any]):
    session_id = serializers.CharField()
    attempts = AttemptSchema(many=True)
    count = serializers.IntegerField()
    retries_left = serializers.IntegerField(help_text="Attempts that may still follow; 0 once it runs or is ending")


class HeartbeatBody(serializers.Serializer[Any]):
    agent_token = StrictCharField(max_length=200, trim_whitespace=False, help_text="GPUBROKER_AGENT_TOKEN")
    gpu_utilization = StrictFloatField(min_value=0, max_value=100, help_text="Percent")
    memory_used_mb = StrictIntegerField(min_value=0, max_value=2**40)
    ssh_connections = StrictIntegerField(min_value=0, max_value=1_000_000)


class HeartbeatSchema(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=Status.choices)
    expires_at = serializers.DateTimeField()


class RekeyBody(serializers.Serializer[Any]):
    ssh_public_key = PublicKeyField(help_text="Your own OpenSSH public key; without one a pair is made")
    ssh_key_type = serializers.ChoiceField(required=False, choices=sshkeys.KEY_TYPES, default="rsa")


class RekeyedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    key_fingerprint = serializers.CharField()
    verified = serializers.BooleanField(help_text="A login with the new key was seen; only tried where we made it")
    old_key_removed = serializers.BooleanField()
    ssh_private_key = serializers.CharField(required=False, help_text="Shown once; absent with ssh_public_key")
    note = serializers.CharField(required=False)


class PricesSchema(serializers.Serializer[Any]):
    gpu = serializers.FloatField()
    disk = serializers.FloatField()
    total = serializers.FloatField()


class DiskEstimateSchema(serializers.Serializer[Any]):
    weights_gb = serializers.FloatField()
    image_gb = serializers.FloatField()
    overhead_gb = serializers.FloatField()
    required_gb = serializers.IntegerField()
    computed_as = serializers.CharField()


class EstimateSchema(serializers.Serializer[Any]):
    consumer_id = serializers.CharField()
    offer_id = serializers.CharField()
    provider = serializers.CharField()
    gpu_type = serializers.CharField()
    gpu_count = serializers.IntegerField()
    reservation_hours = serializers.IntegerField()
    disk_gb = serializers.IntegerField()
    pricing = serializers.ChoiceField(choices=Pricing.choices)
    bid_price = serializers.FloatField(allow_null=True, help_text="Null on demand")
    currency = serializers.CharField()
    per_hour = PricesSchema()
    total = PricesSchema(help_text="For the hours asked")
    disk_estimate = DiskEstimateSchema(allow_null=True, help_text="Null where the model is unknown")
    budget = FitsSchema(allow_null=True, help_text="Null where the consumer has none")


class MessageSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    session_id = serializers.CharField()
    status = serializers.CharField(required=False)


class LaunchErrorSchema(ErrorSchema):
    """The launch failed at the provider; ``error_type`` is ``stale_inventory`` when the offer was gone, and
    ``provider_maintenance`` where staff lets the provider take no new session."""

    offer_id = serializers.CharField(required=False)
    provider = serializers.CharField(required=False)
    retry_suggested = serializers.BooleanField(required=False)
    message = serializers.CharField(required=False)
    session_id = serializers.CharField(required=False)


class InsufficientDiskSchema(ErrorSchema):
    """A field that does not fit. With ``error_type: insufficient_disk`` the breakdown of what the model needs."""

    weights_gb = serializers.FloatField(required=False)
    image_gb = serializers.FloatField(required=False)
    overhead_gb = serializers.FloatField(required=False)
    required_gb = serializers.IntegerField(required=False)
    requested_gb = serializers.IntegerField(required=False, allow_null=True, help_text="Null: none was asked for")
    available_gb = serializers.IntegerField(required=False, allow_null=True, help_text="The offer's")
    computed_as = serializers.CharField(required=False)
