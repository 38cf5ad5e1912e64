"""What the books say of a period in one statement: the ledger's days, and the tail beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count, Expression, ExpressionWrapper, F, Field, Func, Max, Q, QuerySet, Sum, Value, fields
from django.db.models.functions import Cast, Coalesce, Greatest, Least

from billing.ledger_models import as_units
from billing.models import Consumer, LedgerDay, MeterSegment
from billing.periods import Period
from gpubroker.common.money import units
from gpubroker.common.prepared import Later, Prepared

ZERO = Decimal(0)
MICROSECOND = timedelta(microseconds=1)
MONEY, WHOLE = fields.DecimalField(max_digits=40, decimal_places=14), fields.BigIntegerField()
DURATION, MOMENT, DAY = fields.DurationField(), fields.DateTimeField(), fields.DateField()
#: The period, and the moment up to which what runs counts.
START, END, NOW = Later("start", MOMENT), Later("end", MOMENT), Later("now", MOMENT)
FIRST_DAY, LAST_DAY = Later("first_day", DAY), Later("last_day", DAY)
CONSUMER_ID, CONSUMER = Later("consumer", WHOLE), Later("consumer", fields.CharField())
PART = ("provider", "gpu_type", "kind")


class Summed(NamedTuple):
    """Of the ledger where ``beyond`` is null, else of the tail."""

    rate: Decimal | None
    amount: Decimal | None
    slope: Decimal | None
    beyond: timedelta | None
    running: int | None
    since: datetime | None
    nanos: int | None
    rest: int | None
    microseconds: int | None

    @property
    def units(self) -> int:
        if self.beyond is None:
            return as_units(int(self.nanos or 0), int(self.rest or 0))
        return int((self.amount or ZERO).scaleb(14)) if self.rate is None else units(self.rate, self.span)

    @property
    def span(self) -> int:
        """Microseconds."""
        return int(self.microseconds or 0) if self.beyond is None else self.beyond // MICROSECOND

    @property
    def slope_units(self) -> int:
        """Units per microsecond from then on."""
        return int((self.slope or ZERO).scaleb(8)) if self.rate is None else units(self.rate, self.running or 0)


def _booked_and_tail(
    booked: Q, tail: Q, tail_by: Sequence[str] = PART, days_by: Sequence[str] = PART
) -> QuerySet[Any, Any]:
    """By these columns of segments and of days; ``booked`` and ``tail``: whose.

    The tail's amounts are dollars an hour times seconds, added up by PostgreSQL. SQLite would do that in floating
    point: there segments of one rate are added up in time only, and ``rate`` says which.
    """
    beyond, exact = _not_booked(), connection.vendor == "postgresql"
    seconds = Func(beyond, template="EXTRACT(EPOCH FROM %(expressions)s)", output_field=MONEY)
    runs = Q(ended_at__isnull=True, started_at__lt=END)
    segments = MeterSegment.objects.filter(tail, book_at__isnull=False).order_by()
    rest = segments.values(*tail_by, rate=_null(MONEY) if exact else F("rate_per_hour")).annotate(
        amount=Sum(F("rate_per_hour") * seconds, output_field=MONEY) if exact else _null(MONEY),
        slope=Sum("rate_per_hour", filter=runs) if exact else _null(MONEY),
        beyond=Sum(beyond), running=Count("id", filter=runs), since=Max("started_at", filter=runs),
        nanos=_null(WHOLE), rest=_null(WHOLE), microseconds=_null(WHOLE),
    )  # fmt: skip
    ledger = LedgerDay.objects.filter(booked, day__gte=FIRST_DAY, day__lte=LAST_DAY).order_by()
    days = ledger.values(*days_by, rate=_null(MONEY)).annotate(
        amount=_null(MONEY), slope=_null(MONEY), beyond=_null(DURATION), running=_null(WHOLE), since=_null(MOMENT),
        nanos=Sum("nanos"), rest=Sum("rest"), microseconds=Sum("microseconds"),
    )  # fmt: skip
    tail_rows, day_rows = rest.values_list(*tail_by, *Summed._fields), days.values_list(*days_by, *Summed._fields)
    both: QuerySet[Any, Any] = tail_rows.union(day_rows, all=True)
    return both


def _null(kind: Field[Any, Any]) -> Cast:
    """Of a type, as both halves of a union need the same."""
    return Cast(Value(None), kind)


def _not_booked() -> Expression:
    """Of a segment: how long it costs within the period, less what of that is booked; below zero if that is more."""
    end = Coalesce("ended_at", Greatest("started_at", NOW))
    was_from, was_to = (Coalesce(name, "started_at") for name in ("booked_from", "booked_to"))
    return ExpressionWrapper(_within(F("started_at"), end) - _within(was_from, was_to), DURATION)


def _within(start: Any, end: Any) -> Expression:
    begins = Greatest(start, START)
    return ExpressionWrapper(Greatest(Least(end, END), begins) - begins, DURATION)


def _sessions(whose: Q) -> QuerySet[Any, Any]:
    overlapping = Q(started_at__lt=END) & (Q(ended_at__isnull=True) | Q(ended_at__gt=START))
    mine = MeterSegment.objects.filter(whose, overlapping).exclude(session_id="").order_by()
    # A constant is no group: there is one row, whatever there is.
    return mine.values(one=Value(1)).annotate(count=Count("session_id", distinct=True)).values_list("count")


def _named() -> QuerySet[Any, Any]:
    return Consumer.objects.filter(name=CONSUMER).values("id")


_EVERYBODY = Prepared(lambda: _booked_and_tail(Q(), Q()))
_OF_ONE = Prepared(lambda: _booked_and_tail(Q(account=CONSUMER_ID), Q(consumer_id=CONSUMER_ID)))
_OF_NAMED = Prepared(lambda: _booked_and_tail(Q(account__in=_named()), Q(consumer_id__in=_named())))
_SESSIONS = Prepared(lambda: _sessions(Q()))
_SESSIONS_OF_NAMED = Prepared(lambda: _sessions(Q(consumer_id__in=_named())))


def _asked(period: Period, now: datetime) -> dict[str, Any]:
    return {
        "start": period.start, "end": period.end, "now": now, "first_day": period.start.date(),
        "last_day": period.last_day,
    }  # fmt: skip


def booked_and_tail(period: Period, now: datetime, consumer: int | str | None) -> list[Sequence[Any]]:
    """Provider, GPU type, kind and a :class:`Summed`, of one consumer (by id or name), or of everybody."""
    query = _EVERYBODY if consumer is None else _OF_NAMED if isinstance(consumer, str) else _OF_ONE
    return query.rows(consumer=consumer, **_asked(period, now))


def booked_and_tail_of_each(period: Period, now: datetime, consumers: Sequence[int]) -> list[Sequence[Any]]:
    """Consumer and a :class:`Summed`."""
    whose = Q(account__in=consumers), Q(consumer_id__in=consumers)
    query = Prepared(lambda: _booked_and_tail(*whose, ("consumer_id",), ("account",)))
    return query.rows(**_asked(period, now)) if consumers else []


def sessions_in(period: Period, consumer: str | None) -> int:
    """How many sessions had a machine on the meter in the period."""
    query = _SESSIONS if consumer is None else _SESSIONS_OF_NAMED
    return int(query.rows(consumer=consumer, start=period.start, end=period.end)[0][0])
