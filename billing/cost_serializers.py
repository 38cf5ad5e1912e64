"""Shapes: cost queries and answers."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from billing.cost_groups import GROUPS

#: Groups of one answer, where no limit is asked for either.
MOST_LINES = 10_000


class SummaryParams(serializers.Serializer[Any]):
    consumer_id = serializers.CharField(required=False, max_length=128)
    group_by = serializers.ChoiceField(
        required=False, choices=GROUPS, help_text="One line for each; without it, one summary"
    )
    format = serializers.ChoiceField(
        required=False,
        choices=["json", "csv"],
        help_text="csv: the groups as a file, by day unless said; always all of them",
    )
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=MOST_LINES, help_text="Most groups; the rest: `after`"
    )
    after = serializers.CharField(
        required=False, max_length=128, allow_blank=True,
        help_text="Only groups that come after this one: the last answer's `next`",
    )  # fmt: skip


class CostParams(SummaryParams):
    session_id = serializers.CharField(required=False, max_length=64)
    start_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="First day, UTC")
    end_date = serializers.DateField(required=False, input_formats=["%Y-%m-%d"], help_text="Last day, UTC, inclusive")
    period = serializers.ChoiceField(required=False, choices=["daily", "monthly"], help_text="Today or this month")


class CostGroupSchema(serializers.Serializer[Any]):
    """Named by one of the first six, as ``group_by`` says; dollars. Totals of all pages add up to ``total_cost``."""

    day = serializers.DateField(required=False, help_text="UTC")
    hour = serializers.DateTimeField(required=False, help_text="As it begins, UTC")
    session_id = serializers.CharField(required=False, help_text="Empty: machines that belong to no session")
    gpu_type = serializers.CharField(required=False)
    provider = serializers.CharField(required=False)
    consumer_id = serializers.CharField(required=False, help_text="Empty: machines that belong to no session")
    total_cost = serializers.FloatField()
    gpu_cost = serializers.FloatField()
    storage_cost = serializers.FloatField()
    bandwidth_cost = serializers.FloatField(help_text="Traffic, as far as the meter holds it")
    failed_attempts_cost = serializers.FloatField(help_text="Of the total: machines that never came to run")
    preserved_disk_cost = serializers.FloatField(help_text="Of the total: kept disks of stopped machines")
    hours_used = serializers.FloatField(help_text="Of GPUs")


class CostSchema(serializers.Serializer[Any]):
    """With ``group_by``: the groups. Else with ``session_id``: that session's cost. Else a summary."""

    session_id = serializers.CharField(required=False)
    currency = serializers.CharField(required=False)
    gpu_cost = serializers.FloatField(required=False)
    storage_cost = serializers.FloatField(required=False)
    bandwidth_cost = serializers.FloatField(required=False, help_text="Traffic, as far as the meter holds it")
    failed_attempts_cost = serializers.FloatField(
        required=False, help_text="Of the total: machines that never came to run"
    )
    preserved_disk_cost = serializers.FloatField(
        required=False, help_text="Of the total: kept disks of stopped machines"
    )
    consumer_id = serializers.CharField(required=False)
    total_cost = serializers.FloatField(help_text="Dollars; running sessions count up to now")
    session_count = serializers.IntegerField(required=False)
    hours_used = serializers.FloatField()
    by_provider = serializers.DictField(child=serializers.FloatField(), required=False)
    by_gpu_type = serializers.DictField(child=serializers.FloatField(), required=False)
    group_by = serializers.ChoiceField(required=False, choices=GROUPS)
    start_date = serializers.DateField(required=False, allow_null=True, help_text="Null: from the first cost on")
    end_date = serializers.DateField(required=False, allow_null=True, help_text="Null: to the last cost")
    count = serializers.IntegerField(required=False, help_text="Groups in this answer")
    total = serializers.IntegerField(required=False, help_text="Groups in all")
    next = serializers.CharField(
        required=False, allow_null=True, help_text="`after` for the next page; null: this is the last"
    )
    groups = CostGroupSchema(many=True, required=False)
