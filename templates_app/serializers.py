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
    tag = serializers.CharField(required=False)
    env = serializers.CharField(required=False)
    onstart = serializers.CharField(required=False)
    runtype = serializers.CharField(required=False)
    use_ssh = serializers.BooleanField(required=False)
    ssh_direct = serializers.BooleanField(required=False)
    recommended = serializers.BooleanField(required=False)
    recommended_disk_space = serializers.FloatField(required=False)
    extra_filters = serializers.CharField(required=False)
    creator_id = serializers.IntegerField(required=False)
    created_at = serializers.CharField(required=False)
    count_created = serializers.IntegerField(required=False)


class TemplateListSchema(serializers.Serializer[Any]):
    templates = TemplateSchema(many=True)
    count = serializers.IntegerField()
