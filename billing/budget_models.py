"""Budgets: what a consumer may spend, and what of it is promised to sessions that are not over.

Counters are whole micro-dollars: SQLite would add decimals as floats, and a guard must be exact.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q


class Budget(models.Model):
    """A consumer's limits. Its row is the lock of all that is promised under it."""

    consumer = models.OneToOneField("billing.Consumer", on_delete=models.PROTECT, related_name="budget")
    #: Hard: what does not fit is refused, and what runs beyond it is ended. Soft: it only warns.
    hard = models.BooleanField(default=True)
    #: Dollars of each calendar month (UTC), and of all time; null: no such limit.
    monthly_limit = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    total_limit = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    #: Percent of a limit at which a warning is told, ascending.
    thresholds = models.JSONField(default=list)
    updated_at = models.DateTimeField()
    updated_by = models.CharField(max_length=160)
    #: When it is looked after next; until then, while somebody does, his lease.
    next_check_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(monthly_limit__isnull=False) | Q(total_limit__isnull=False), name="budget_has_a_limit"
            ),
            models.CheckConstraint(
                condition=(Q(monthly_limit__isnull=True) | Q(monthly_limit__gte=0))
                & (Q(total_limit__isnull=True) | Q(total_limit__gte=0)),
                name="budget_limits_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"budget {self.pk}"


class BudgetPeriod(models.Model):
    """The counters of one limit: ``total``, or a month such as ``2026-11``. Written with the budget's row locked.

    ``settled + held`` is what is spent and reserved: a running session moves from reserved to spent by the second, and
    their sum stays. It never lies above ``cap_micros``, which is the limit, or what was spent and reserved already when
    a limit was set below it or a machine cost more than was reserved; it only comes down from there.
    """

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="periods")
    period = models.CharField(max_length=7)
    limit_micros = models.BigIntegerField()
    #: Null: the budget is soft.
    cap_micros = models.BigIntegerField(null=True)
    #: What sessions without a reservation, or whose reservation is released, have cost.
    settled_micros = models.BigIntegerField(default=0)
    #: The worst case of every session whose reservation is open, with what it has cost so far.
    held_micros = models.BigIntegerField(default=0)
    #: The highest threshold told of, in percent.
    told_percent = models.PositiveSmallIntegerField(default=0)
    exhausted_at = models.DateTimeField(null=True, help_text="When it was told to be used up")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["budget", "period"], name="budget_period_once"),
            models.CheckConstraint(
                condition=Q(settled_micros__gte=0, held_micros__gte=0), name="budget_counters_not_negative"
            ),
            # Rule I7, held by the database itself.
            models.CheckConstraint(
                condition=Q(cap_micros__isnull=True) | Q(cap_micros__gte=F("settled_micros") + F("held_micros")),
                name="budget_never_crossed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget_id} {self.period}"


class Reservation(models.Model):
    """What one session may cost at most. The session lives in sessions_app, which this app does not know: it is named
    by id. Released once, at the proof that nothing is billed any more."""

    session_id = models.CharField(max_length=32, unique=True)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="reservations")
    #: Dollars in all: spent so far when it was made or changed, and the worst case from then on.
    amount = models.DecimalField(max_digits=14, decimal_places=6)
    #: The same in micro-dollars: ``total``, and each month that it reaches into.
    parts = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()
    released_at = models.DateTimeField(null=True)
    #: What it came to; null until it is released.
    cost = models.DecimalField(max_digits=14, decimal_places=6, null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(released_at__isnull=True, cost__isnull=True)
                | Q(released_at__isnull=False, cost__isnull=False),
                name="reservation_released_with_its_cost",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["budget"], name="reservation_open", condition=Q(released_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return self.session_id
