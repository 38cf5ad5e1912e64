"""What tests of interruptible sessions share: a session at a bid, and others who bid for its machine."""

from __future__ import annotations

from typing import Any

from sessions_app.models import Event, Rental
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess

#: Dollars per hour: dear enough for a second's difference to show in the cost.
DEAR = 20


def rental_of(session_id: str) -> Rental:
    return Rental.objects.filter(session_id=session_id).latest("attempt")


def kinds(session_id: str) -> list[str]:
    return list(Event.objects.filter(session_id=session_id).order_by("id").values_list("kind", flat=True))


def last(session_id: str, kind: str) -> Event:
    return Event.objects.filter(session_id=session_id, kind=kind).latest("id")


def others(market: SandboxProcess, session_id: str, how: str, **body: Any) -> None:
    """What others do with the GPU of a session's machine: ``outbid`` or ``win``, in the marketplace's words."""
    market.admin("POST", f"instances/{rental_of(session_id).instance_id}/{how}", body)


def run(api: Api, driver: Driver, **changes: Any) -> str:
    session_id = str(api.create(**{"pricing": "interruptible", "bid_price": DEAR, **changes})["session"]["id"])
    driver.until_status(session_id, "running")
    return session_id


def resume(market: SandboxProcess, api: Api, driver: Driver, session_id: str, **body: Any) -> Any:
    others(market, session_id, "win", **body)
    driver.until(lambda: driver.sweep_now() is not None and not api.get(f"/sessions/{session_id}")["paused"])
    return api.get(f"/sessions/{session_id}")
