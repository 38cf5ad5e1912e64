"""Spans of time that costs are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` (inclusive) to ``end`` (exclusive), UTC."""

    start: datetime
    end: datetime

    @property
    def whole_days(self) -> bool:
        return self.start.time() == time.min and (self.end.time() == time.min or self.end == FOREVER)

    @property
    def last_day(self) -> date:
        return (self.end - timedelta(microseconds=1)).date()


FOREVER = datetime.max.replace(tzinfo=UTC)
ALL_TIME = Period(datetime.min.replace(tzinfo=UTC), FOREVER)


def days(first: date, last: date) -> Period:
    """Whole UTC days, both inclusive."""
    start = datetime.combine(first, time.min, UTC)
    if last == date.max:
        return Period(start, FOREVER)
    return Period(start, datetime.combine(last, time.min, UTC) + timedelta(days=1))


def month_of(moment: datetime) -> Period:
    first = moment.date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return days(first, following - timedelta(days=1))
