"""Cost queries and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class CostParams(serializers.Serializer[Any]):
    consumer_id = serializers.CharField(required=False, max_length=128)
    session_id = serializers.CharField(required=False, max_length=64)
    start_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="First day, UTC")
    end_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="Last day, UTC, inclusive")
    period = serializers.ChoiceField(required=False, choices=["daily", "monthly"], help_text="Today or this month")


class SummaryParams(serializers.Serializer[Any]):
    consumer_id = serializers.CharField(required=False, max_length=128)


class CostSchema(serializers.Serializer[Any]):
    """With ``session_id``: that session's cost. Without: a summary."""

    session_id = serializers.CharField(required=False)
    currency = serializers.CharField(required=False)
    gpu_cost = serializers.FloatField(required=False)
    storage_cost = serializers.FloatField(required=False)
    consumer_id = serializers.CharField(required=False)
    total_cost = serializers.FloatField(help_text="Dollars; running sessions count up to now")
    session_count = serializers.IntegerField(required=False)
    hours_used = serializers.FloatField()
    by_provider = serializers.DictField(child=serializers.FloatField(), required=False)
    by_gpu_type = serializers.DictField(child=serializers.FloatField(), required=False)
