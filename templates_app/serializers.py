"""The templates' shapes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class TemplateParams(serializers.Serializer[Any]):
    name = serializers.CharField(required=False, max_length=256, help_text="Part of the name, in any case")


class TemplateSchema(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    hash_id = serializers.CharField()
    name = serializers.CharField()
    image = serializers.CharField()
    tag = serializers.CharField()
    env = serializers.CharField(help_text="Docker flags: ports and variables")
    onstart = serializers.CharField(help_text="What runs when the machine has started")
    runtype = serializers.CharField()
    use_ssh = serializers.BooleanField()
    ssh_direct = serializers.BooleanField()
    recommended = serializers.BooleanField()
    recommended_disk_space = serializers.FloatField(help_text="GB")
    extra_filters = serializers.CharField(help_text="JSON text: what the template asks of a machine")
    creator_id = serializers.IntegerField()
    created_at = serializers.CharField()
    count_created = serializers.IntegerField()
    filter_error = serializers.CharField(
        required=False, help_text="Why extra_filters cannot be understood; then the template fits no offer"
    )


class CompatibleTemplateSchema(serializers.Serializer[Any]):
    hash_id = serializers.CharField()
    name = serializers.CharField()
    image = serializers.CharField()
    recommended_disk_space = serializers.FloatField(help_text="GB")


class CompatibleTemplatesSchema(serializers.Serializer[Any]):
    offer_id = serializers.CharField()
    compatible_templates = CompatibleTemplateSchema(many=True)
    count = serializers.IntegerField()


class TemplateListSchema(serializers.Serializer[Any]):
    templates = TemplateSchema(many=True)
    count = serializers.IntegerField()


EXAMPLE_TEMPLATE: dict[str, Any] = {
    "id": 338630, "hash_id": "a8a44c7363cbca20056020397e3bf072", "name": "Ollama", "image": "vastai/ollama",
    "tag": "0.15.4", "env": "-p 1111:1111 -p 21434:21434 -e OLLAMA_MODEL=qwen3:14b", "onstart": "entrypoint.sh",
    "runtype": "jupyter", "use_ssh": True, "ssh_direct": True, "recommended": True, "recommended_disk_space": 32,
    "extra_filters": '{"cpu_arch": {"in": ["arm64", "amd64"]}}', "creator_id": 62897,
    "created_at": "2026-02-02T13:27:28-05:00", "count_created": 302,
}  # fmt: skip
