"""Shapes of budgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from billing.budget_setting import MOST_THRESHOLDS, USUAL_THRESHOLDS
from gpubroker.common.api import StrictIntegerField
from gpubroker.common.schema import ErrorSchema


class DollarsField(serializers.DecimalField):
    """Dollars in JSON: a number, neither a boolean nor a string; exactly the digits that were sent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=14, decimal_places=6, min_value=Decimal(0), coerce_to_string=False, **kwargs)

    def to_internal_value(self, data: Any) -> Decimal:
        if isinstance(data, bool) or not isinstance(data, int | float | Decimal):
            raise serializers.ValidationError("must be a number")
        return super().to_internal_value(data)


class BudgetBody(serializers.Serializer[Any]):
    monthly_limit = DollarsField(
        required=False, allow_null=True, default=None, help_text="Dollars of each calendar month, UTC; null: no limit"
    )
    total_limit = DollarsField(
        required=False, allow_null=True, default=None, help_text="Dollars of all time; null: no limit"
    )
    mode = serializers.ChoiceField(
        required=False, choices=["hard", "soft"], default="hard",
        help_text="hard: what does not fit is refused, and what runs beyond it is ended. soft: it only warns",
    )  # fmt: skip
    thresholds = serializers.ListField(
        required=False, child=StrictIntegerField(min_value=1, max_value=100), max_length=MOST_THRESHOLDS,
        default=list(USUAL_THRESHOLDS), help_text="Percent of a limit at which the webhook budget.threshold is sent",
    )  # fmt: skip


class LimitSchema(serializers.Serializer[Any]):
    period = serializers.CharField(allow_null=True, help_text="The month, such as 2026-11; null for the total")
    limit = serializers.FloatField()
    spent = serializers.FloatField(help_text="To this second")
    reserved = serializers.FloatField(help_text="What running sessions may still cost at most")
    left = serializers.FloatField(help_text="limit - spent - reserved; never below 0")
    over = serializers.FloatField(
        help_text="By how much more is spent or reserved: the limit was lowered, or a machine was not gone in time"
    )
    forecast = serializers.FloatField(help_text="Spent when this month ends, at the pace of the last week")
    runs_dry_at = serializers.DateTimeField(
        allow_null=True, help_text="The hour in which it is spent, at that pace or that of what runs now; null: never"
    )


class BudgetSchema(serializers.Serializer[Any]):
    consumer_id = serializers.CharField()
    mode = serializers.ChoiceField(choices=["hard", "soft"])
    thresholds = serializers.ListField(child=serializers.IntegerField())
    currency = serializers.CharField()
    monthly = LimitSchema(allow_null=True)
    total = LimitSchema(allow_null=True)
    burn_per_hour = serializers.FloatField(help_text="What runs now costs an hour")
    average_per_hour = serializers.FloatField(help_text="Of the last week, or since the first machine")
    updated_at = serializers.DateTimeField()
    updated_by = serializers.CharField()


class BudgetDeletedSchema(serializers.Serializer[Any]):
    message = serializers.CharField()
    consumer_id = serializers.CharField()


class InsufficientBudgetSchema(ErrorSchema):
    """Dollars. ``needed`` is the worst case of what was asked for, or of what it adds."""

    consumer_id = serializers.CharField(required=False)
    budget = serializers.ChoiceField(required=False, choices=["monthly", "total"])
    period = serializers.CharField(required=False, allow_null=True)
    limit = serializers.FloatField(required=False)
    spent = serializers.FloatField(required=False)
    reserved = serializers.FloatField(required=False)
    needed = serializers.FloatField(required=False)
    shortfall = serializers.FloatField(required=False)


class FitsSchema(serializers.Serializer[Any]):
    """Whether a session fits its consumer's budget."""

    mode = serializers.ChoiceField(choices=["hard", "soft"])
    needed = serializers.FloatField(help_text="The worst case: later destroy, kept disk and margin included")
    monthly_left = serializers.FloatField(allow_null=True, help_text="Of this month; null: no monthly limit")
    total_left = serializers.FloatField(allow_null=True, help_text="Null: no total limit")
    fits = serializers.BooleanField(help_text="A create would not be refused for it now")
