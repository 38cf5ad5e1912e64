"""A session as the API prints it, from its columns: whoever shows one, shows it by these."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from gpubroker.common.money import as_number
from gpubroker.common.renderers import JSONRenderer
from sessions_app.models import Session
from sessions_app.states import ENDABLE

#: Sessions whose print is kept: those that are polled, and a few first pages.
KEPT = 4096


class Row(NamedTuple):
    """The columns that are shown, by their names in the model. Others are not read: a session has twice as many. Times
    are as the database writes them, in UTC, which is quicker than making them times first."""

    id: str
    consumer__name: str
    provider: str
    offer_id: str
    gpu_type: str
    gpu_count: int
    status: str
    ssh_host: str
    ssh_port: int | None
    ssh_user: str
    workload_type: str
    launch_mode: str
    storage_policy: str
    idle_threshold_minutes: int
    reservation_hours: int
    price_per_hour: Decimal
    disk_gb: int
    created_at: str
    expires_at: str
    end_reason: str
    end_message: str
    ended_at: str | None
    api_endpoint: str
    template_hash_id: str
    docker_image: str
    pricing: str
    bid_price: Decimal | None
    paused_at: str | None
    auto_retry: bool
    max_retries: int
    retry_scope: str
    max_price: Decimal | None


TIMES = frozenset({"created_at", "expires_at", "ended_at", "paused_at"})
_OTHERS = [name for name in Row._fields if name not in TIMES | {"consumer__name"}]


def shown(session: Session) -> dict[str, Any]:
    """``ssh_host`` is "" and ``ssh_port`` 0 until the provider tells them."""
    columns: dict[str, Any] = {name: _written(getattr(session, name)) for name in TIMES}
    columns |= {name: getattr(session, name) for name in _OTHERS}
    return _body(Row(consumer__name=session.consumer.name, **columns))


@functools.lru_cache(maxsize=KEPT)
def printed(row: Row) -> bytes:
    """The same as JSON. Equal columns, equal bytes: nothing in it depends on the time of asking."""
    return JSONRenderer().render(_body(row))


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else str(moment.astimezone(UTC))


def _iso(written: str | None) -> str | None:
    """As :func:`gpubroker.common.clock.iso`, of ``2026-01-29 12:00:00.123456`` with or without ``+00`` after it."""
    return None if written is None else f"{written[:10]}T{written[11:19]}Z"


def _body(row: Row) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": row.id,
        "consumer_id": row.consumer__name,
        "provider": row.provider,
        "offer_id": row.offer_id,
        "gpu_type": row.gpu_type,
        "gpu_count": row.gpu_count,
        "status": row.status,
        "ssh_host": row.ssh_host,
        "ssh_port": row.ssh_port or 0,
        "ssh_user": row.ssh_user or "root",
        "workload_type": row.workload_type,
        "launch_mode": row.launch_mode,
        "storage_policy": row.storage_policy,
        "idle_threshold_minutes": row.idle_threshold_minutes,
        "reservation_hours": row.reservation_hours,
        "price_per_hour": as_number(row.price_per_hour),
        "disk_gb": row.disk_gb,
        "created_at": _iso(row.created_at),
        "expires_at": _iso(row.expires_at),
        "end_reason": row.end_reason,
        "end_message": row.end_message,
        "ended_at": _iso(row.ended_at),
    }
    if row.api_endpoint:
        body["api_endpoint"] = row.api_endpoint
    if row.template_hash_id:
        body["template_hash_id"] = row.template_hash_id
    if row.docker_image:
        body["docker_image"] = row.docker_image
    stands_still = row.paused_at is not None and row.status in ENDABLE
    return body | {
        "pricing": row.pricing,
        "bid_price": None if row.bid_price is None else as_number(row.bid_price),
        "paused": stands_still,
        "paused_at": _iso(row.paused_at) if stands_still else None,
        "auto_retry": row.auto_retry,
        "max_retries": row.max_retries,
        "retry_scope": row.retry_scope,
        "max_price": None if row.max_price is None else as_number(row.max_price),
    }
