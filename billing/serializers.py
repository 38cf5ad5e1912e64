"""Shapes: consumers and their keys."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.services import LONGEST_LIFE_DAYS
from gpubroker.common.api import PageQuery, StrictIntegerField
from gpubroker.common.names import NameField
from gpubroker.common.principal import SCOPES


class ConsumerBody(serializers.Serializer[Any]):
    consumer_id = NameField(max_length=128, help_text="The name that sessions are asked for under")


class ConsumerSchema(serializers.Serializer[Any]):
    consumer_id = serializers.CharField()
    created_at = serializers.DateTimeField()


class ConsumerListSchema(serializers.Serializer[Any]):
    consumers = ConsumerSchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField()


class KeyParams(PageQuery):
    consumer_id = serializers.CharField(required=False, max_length=128)


class KeyBody(serializers.Serializer[Any]):
    consumer_id = NameField(
        required=False, max_length=128, help_text="Whose key; made if need be. None for a staff key"
    )
    scopes = serializers.ListField(
        required=False, child=serializers.ChoiceField(choices=SCOPES), min_length=1, max_length=len(SCOPES),
        help_text="Default read and spend. staff implies all and sees every consumer",
    )  # fmt: skip
    name = NameField(required=False, max_length=100, allow_blank=True, help_text="For people: what it is for")
    expires_in_days = StrictIntegerField(
        required=False, min_value=1, max_value=LONGEST_LIFE_DAYS, help_text="Default: never"
    )


class RotateBody(serializers.Serializer[Any]):
    grace_seconds = StrictIntegerField(
        required=False, min_value=0, max_value=30 * 86_400, default=86_400,
        help_text="How long the old key works on; 0 revokes it at once",
    )  # fmt: skip


class KeySchema(serializers.Serializer[Any]):
    """A key without its secret."""

    prefix = serializers.CharField(help_text="The visible start of the key, which names it")
    consumer_id = serializers.CharField(allow_null=True, help_text="null for a staff key")
    name = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    state = serializers.ChoiceField(choices=["active", "expired", "revoked"])
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute")
    revoked_at = serializers.DateTimeField(allow_null=True)
    rotated_from = serializers.CharField(allow_null=True, help_text="The prefix of the key that this one replaces")


class MadeKeySchema(serializers.Serializer[Any]):
    key = KeySchema()
    api_key = serializers.CharField(help_text="The whole key, shown this once")


class KeyListSchema(serializers.Serializer[Any]):
    keys = KeySchema(many=True)
    count = serializers.IntegerField(help_text="In this answer")
    total = serializers.IntegerField()
