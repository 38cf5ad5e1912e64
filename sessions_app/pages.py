"""Sessions as bytes: one, and pages of many. Their queries are put into words once (:mod:`gpubroker.common.prepared`):
Django takes longer to write such a SELECT than PostgreSQL to answer it.

The views and the layer in front of Django (:mod:`gpubroker.reads`) both answer with these.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from django.db.models import CharField, DateTimeField, F, Q, QuerySet, TextField
from django.db.models.functions import Cast

from gpubroker.common.errors import ApiError
from gpubroker.common.prepared import Later, Prepared
from gpubroker.common.principal import Principal
from sessions_app.models import Session
from sessions_app.shown import TIMES, Row, printed
from sessions_app.totals import narrowed, totals

#: By this in ``request.META`` a view says that the layer in front may repeat its answer's headers.
ASKED = "gpubroker.sessions_asked"


def _text(name: str) -> Later:
    return Later(name, CharField())


def _rows() -> QuerySet[Any, Any]:
    columns = [Cast(name, TextField()) if name in TIMES else F(name) for name in Row._fields]
    return Session.objects.order_by().values_list(*columns)


_ONE = Prepared(lambda: _rows().filter(id=_text("id")))
_PLACE = Prepared(lambda: Session.objects.filter(id=_text("id")).values_list("created_at", "consumer__name"))


def one(session_id: str, who: Principal) -> Row:
    """404 for an unknown one; one that the principal may not see is as unknown as one that never was."""
    rows = [Row._make(row) for row in _ONE.rows(id=session_id)]
    if not rows or not who.may_see(rows[0].consumer__name):
        raise _unknown(session_id)
    return rows[0]


def _created(session_id: str, who: Principal) -> datetime:
    found = _PLACE.rows(id=session_id)
    if not found or not who.may_see(found[0][1]):
        raise _unknown(session_id)
    moment: datetime = found[0][0]
    return moment


def _unknown(session_id: str) -> ApiError:
    return ApiError(404, f"session {session_id} not found", session_id=session_id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters compose (AND); ``None`` means not asked. ``after``: the id of the last session of the page before."""

    consumer: str | None = None
    status: str | None = None
    provider: str | None = None
    limit: int | None = None
    offset: int = 0
    after: str | None = None

    def narrowed(self) -> dict[str, Any]:
        """The filters that are asked for."""
        given = {"consumer": self.consumer, "status": self.status, "provider": self.provider}
        return {name: value for name, value in given.items() if value is not None}


def wanted(params: dict[str, Any], who: Principal) -> Wanted:
    """403 for another consumer's."""
    return Wanted(
        consumer=who.narrowed(params.get("consumer_id")), status=params.get("status"),
        provider=params.get("provider"), limit=params.get("limit"), offset=params.get("offset", 0),
        after=params.get("after"),
    )  # fmt: skip


def page(wanted: Wanted, who: Principal) -> bytes:
    """``{"sessions": [...], "count": rows here, "total": rows that match, "next": id or null}``, newest first.

    From ``after`` on the index is entered where that session stands, however many came before it; an offset counts
    through all of them. 404 for an ``after`` that the principal may not see."""
    filters, last = wanted.narrowed(), dict[str, Any]()
    if wanted.after is not None:
        last = {"id": wanted.after, "at": _created(wanted.after, who)}
    # One more tells whether there is a next page.
    most = None if wanted.limit is None else wanted.limit + 1
    found = _page(frozenset(filters), bool(last)).rows(**filters, **last, limit=most, offset=wanted.offset)
    rows = [Row._make(row) for row in found]
    first = wanted.offset == 0 and wanted.after is None
    total = totals.of(filters, [row.created_at for row in rows] if first else None, whole=len(rows) != most)
    more = wanted.limit is not None and len(rows) > wanted.limit
    rows = rows[: wanted.limit]
    rest = {"count": len(rows), "total": total, "next": rows[-1].id if more else None}
    return b'{"sessions":[' + b",".join(map(printed, rows)) + b"]," + orjson.dumps(rest)[1:]


@functools.cache
def _page(names: frozenset[str], goes_on: bool) -> Prepared:
    def build() -> QuerySet[Any, Any]:
        sessions = narrowed(_rows(), names).order_by("-created_at", "-id")
        if not goes_on:
            return sessions
        at = Later("at", DateTimeField())
        return sessions.filter(Q(created_at__lt=at) | Q(id__lt=_text("id")), created_at__lte=at)

    return Prepared(build, sliced=True)
