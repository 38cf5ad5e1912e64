"""What of the hourly ledger a page or a file shows: always a bounded stretch of time, or one session."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Q, QuerySet, Sum

from billing.costs import hours
from billing.ledger_models import LedgerDay, LedgerRow, as_units
from billing.models import Consumer, MeterSegment
from billing.periods import days
from gpubroker.common import clock
from gpubroker.common.money import dollars

DAY = timedelta(days=1)
USUAL = "7d"
SPANS = {
    "today": "Today", "yesterday": "Yesterday", "7d": "7 days", "31d": "31 days", "month": "This month",
    "last": "Last month",
}  # fmt: skip
#: The ``consumer`` of machines that belong to no session.
NOBODY = "-"
KINDS = MeterSegment.Kind.values


@dataclass(frozen=True, slots=True)
class Total:
    kind: str
    dollars: Decimal
    hours: Decimal


@dataclass(frozen=True, slots=True)
class Choice:
    """``first`` and ``last``: UTC days, both included; ``None``: one session's or rental's whole life."""

    first: date | None
    last: date | None
    consumer: str = ""
    kind: str = ""
    provider: str = ""
    #: A session's id, or a rental's.
    subject: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Choice:
        """From a query string: ``when`` (a span's name or a day), ``consumer``, ``kind``, ``provider``, ``q``. What
        cannot be understood is not asked for."""
        subject, when = asked.get("q", "").strip(), asked.get("when", "")
        first, last = (None, None) if subject and not when else span(when)
        kind = asked.get("kind", "")
        return cls(
            first, last, asked.get("consumer", ""), kind if kind in KINDS else "", asked.get("provider", ""), subject
        )

    def rows(self) -> QuerySet[LedgerRow]:
        return LedgerRow.objects.filter(self._when() & self._whose() & self._rest() & self._subject())

    def totals(self) -> list[Total]:
        """By kind, exact. Of a stretch of time the ledger's days are read, of a session its rows."""
        found: QuerySet[Any, Any]
        if self.subject:
            found = self.rows().order_by().values_list("kind")
        else:
            whole = LedgerDay.objects.filter(day__gte=self.first, day__lte=self.last)
            found = whole.filter(self._account() & self._rest()).order_by().values_list("kind")
        sums: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for kind, nanos, rest, span in found.annotate(Sum("nanos"), Sum("rest"), Sum("microseconds")):
            sums[kind] = (as_units(int(nanos), int(rest)), int(span))
        return [Total(kind, dollars(sums[kind][0]), hours(sums[kind][1])) for kind in KINDS if kind in sums]

    def _when(self) -> Q:
        if self.first is None or self.last is None:
            return Q()
        period = days(self.first, self.last)
        return Q(hour__gte=period.start, hour__lt=period.end)

    def _whose(self) -> Q:
        if self.consumer == NOBODY:
            return Q(consumer__isnull=True)
        return Q(consumer_id__in=self._ids()) if self.consumer else Q()

    def _account(self) -> Q:
        if self.consumer == NOBODY:
            return Q(account=0)
        return Q(account__in=self._ids()) if self.consumer else Q()

    def _ids(self) -> QuerySet[Consumer, Any]:
        return Consumer.objects.filter(name=self.consumer).values("id")

    def _rest(self) -> Q:
        return Q(**{name: value for name, value in (("kind", self.kind), ("provider", self.provider)) if value})

    def _subject(self) -> Q:
        """Exactly so, as the index of sessions has them."""
        if not self.subject:
            return Q()
        try:
            return Q(session_id=self.subject) | Q(rental_id=uuid.UUID(self.subject))
        except ValueError:
            return Q(session_id=self.subject)

    @property
    def words(self) -> str:
        """For people and for the audit log."""
        when = "whole life" if self.first is None else f"{self.first} to {self.last}"
        rest = [self.subject, self.consumer, self.kind, self.provider]
        return ", ".join(filter(None, [when, *rest]))


def span(when: str) -> tuple[date, date]:
    """A span's name, or a day such as 2026-11-22; anything else is the usual span."""
    today = clock.now().date()
    month = today.replace(day=1)
    known = {
        "today": (today, today),
        "yesterday": (today - DAY, today - DAY),
        "31d": (today - 30 * DAY, today),
        "month": (month, today),
        "last": ((month - DAY).replace(day=1), month - DAY),
    }
    day = read_day(when)
    return known.get(when) or ((day, day) if day is not None else (today - 6 * DAY, today))


def read_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
