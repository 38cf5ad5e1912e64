"""The hourly ledger: what the meter's segments came to, hour by hour, and its roll-up by the day.

Amounts are whole numbers, as SQLite would add up decimals in floating point: an amount is ``nanos`` billionths of a
dollar and ``rest`` parts of :data:`REST_PER_NANO` of one more. So every sum is exact, however it is grouped.
:mod:`billing.ledger` is the only writer.
"""

from __future__ import annotations

import secrets
from decimal import Decimal
from typing import ClassVar

from django.db import models

from gpubroker.common.money import UNITS_PER_DOLLAR, dollars

REST_PER_NANO = UNITS_PER_DOLLAR // 10**9


def as_units(nanos: int, rest: int) -> int:
    """An amount (or a sum of amounts) in :data:`gpubroker.common.money.UNITS_PER_DOLLAR` parts of a dollar."""
    return nanos * REST_PER_NANO + rest


class LedgerRow(models.Model):
    """What one rental cost in one UTC hour of one kind. An hour stands here when it is over; when the meter learns more
    of it (a machine that died earlier, a bill that began earlier), the row is corrected to what the hour cost."""

    rental_id = models.UUIDField()
    #: As it begins.
    hour = models.DateTimeField()
    #: As in :class:`billing.models.MeterSegment`.
    kind = models.CharField(max_length=16)
    preserved = models.BooleanField(help_text="The kept disk of a stopped machine")
    failed_attempt = models.BooleanField(help_text="The machine came to nothing before its session ran")
    session_id = models.CharField(max_length=32, blank=True)
    #: Not checked again by the database: a meter segment says the same. Its index is the one with the hour.
    consumer = models.ForeignKey(
        "billing.Consumer",
        on_delete=models.PROTECT,
        null=True,
        related_name="ledger",
        db_constraint=False,
        db_index=False,
    )
    provider = models.CharField(max_length=32)
    gpu_type = models.CharField(max_length=64)
    #: Of the hour, in which it cost something.
    microseconds = models.BigIntegerField()
    nanos = models.BigIntegerField()
    rest = models.BigIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["rental_id", "hour", "kind", "preserved"], name="ledger_one_row"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["hour"], name="ledger_by_hour"),
            models.Index(fields=["consumer", "hour"], name="ledger_by_consumer"),
            models.Index(fields=["session_id"], name="ledger_by_session"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.rental_id} {self.hour:%Y-%m-%d %H:00}"

    @property
    def amount(self) -> Decimal:
        """Dollars."""
        return dollars(as_units(self.nanos, self.rest))

    @property
    def seconds(self) -> Decimal:
        return Decimal(self.microseconds) / 1_000_000


class LedgerDay(models.Model):
    """The sum of the ledger rows of one UTC day that share everything named here; written with them."""

    day = models.DateField()
    #: The consumer's id; 0 for machines of no session.
    account = models.BigIntegerField()
    provider = models.CharField(max_length=32)
    gpu_type = models.CharField(max_length=64)
    kind = models.CharField(max_length=16)
    microseconds = models.BigIntegerField()
    nanos = models.BigIntegerField()
    rest = models.BigIntegerField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["account", "day", "provider", "gpu_type", "kind"], name="ledger_day_one_row"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["day"], name="ledger_day_by_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.account} {self.provider} {self.gpu_type} {self.kind}"


def new_token() -> int:
    return secrets.randbits(48)


class MeterChange(models.Model):
    """That the meter of one consumer changed: written with the change. What was computed from the meter is good for as
    long as count and sum of these stay (:mod:`billing.remembered`). One row a change, not one counter for all, as
    nobody should wait for another's transaction; the token makes a row unlike any that was rolled back or erased."""

    consumer = models.ForeignKey("billing.Consumer", on_delete=models.PROTECT, null=True, related_name="meter_changes")
    token = models.BigIntegerField(default=new_token)

    def __str__(self) -> str:
        return f"{self.consumer_id}: {self.token}"
