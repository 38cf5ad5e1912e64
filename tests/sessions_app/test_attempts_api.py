"""``GET /sessions/{id}/attempts``, and what a create says of retries and prices."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpubroker.common import clock
from sessions_app import drive, launch
from sessions_app.models import Rental, Session
from sessions_app.states import EndReason
from tests.harness import Api, MovableClock
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess


@pytest.fixture
def offers(sandbox: SandboxProcess, db: None, time: MovableClock) -> MovableClock:
    apply([row("1"), row("2", machine_id="8", price_per_hour=Decimal("0.5"))])
    return time


def test_every_attempt_is_told(api: Api, offers: MovableClock) -> None:
    session_id = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    path = f"/sessions/{session_id}/attempts"
    first = api.get(path)
    assert (first["session_id"], first["count"], first["retries_left"]) == (session_id, 1, 3)
    assert first["attempts"][0]["seconds"] < 60
    offers.advance(seconds=100)
    launch.fail_create(Rental.objects.get(), EndReason.OFFER_GONE, "no such ask")
    failed = Rental.objects.get()
    drive.drive_session(session_id)
    Rental.objects.filter(attempt=2).update(price_actual=Decimal("0.51"))
    answer = api.get(path)
    assert (answer["count"], answer["retries_left"]) == (2, 2)
    assert answer["attempts"][0].pop("seconds") == pytest.approx(100, abs=5)
    assert answer["attempts"][1].pop("seconds") < 60
    second = Rental.objects.get(attempt=2)
    assert answer["attempts"] == [
        {
            "attempt": 1, "offer_id": "vastai-1", "provider": "vastai", "gpu_type": "RTX 4090", "machine_id": "7",
            "price_asked": 0.45, "price_actual": None, "phase": "create", "state": "closed",
            "error": {"reason": "offer_gone", "message": "no such ask", "at": clock.iso(failed.failed_at)},
            "started_at": clock.iso(failed.created_at), "ended_at": clock.iso(failed.closed_at),
        },
        {
            "attempt": 2, "offer_id": "vastai-2", "provider": "vastai", "gpu_type": "RTX 4090", "machine_id": "8",
            "price_asked": 0.5, "price_actual": 0.51, "phase": "create", "state": "intended", "error": None,
            "started_at": clock.iso(second.created_at), "ended_at": None,
        },
    ]  # fmt: skip


def test_how_far_it_came(api: Api, offers: MovableClock) -> None:
    session_id = api.create(offer_id="vastai-1", auto_retry=True)["session"]["id"]
    now = clock.now()
    Rental.objects.update(accepted_at=now)
    assert api.get(f"/sessions/{session_id}/attempts")["attempts"][0]["phase"] == "boot"
    Session.objects.update(status="running", running_at=now + timedelta(seconds=9))
    answer = api.get(f"/sessions/{session_id}/attempts")
    assert (answer["attempts"][0]["phase"], answer["retries_left"]) == ("run", 0)


def test_a_session_that_is_not_there(api: Api, offers: MovableClock) -> None:
    assert api.get("/sessions/sess-x/attempts", 404)["error"] == "session sess-x not found"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, (False, 0, "same_gpu", None)),
        ({"auto_retry": False, "max_retries": 0, "retry_scope": "any"}, (False, 0, "any", None)),
        ({"auto_retry": True}, (True, 3, "same_gpu", None)),
        ({"auto_retry": True, "max_retries": 0}, (True, 0, "same_gpu", None)),
        ({"auto_retry": True, "max_retries": 5, "retry_scope": "same_vram"}, (True, 5, "same_vram", None)),
        ({"max_price": 0.45}, (False, 0, "same_gpu", Decimal("0.45"))),
        ({"max_price": 1}, (False, 0, "same_gpu", Decimal(1))),
        ({"max_price": None}, (False, 0, "same_gpu", None)),
    ],
)
def test_what_was_asked_is_kept_and_shown(
    api: Api, offers: MovableClock, asked: dict[str, Any], kept: tuple[Any, ...]
) -> None:
    session = api.create(offer_id="vastai-1", **asked)["session"]
    stored = Session.objects.get()
    assert (stored.auto_retry, stored.max_retries, stored.retry_scope, stored.max_price) == kept
    shown = tuple(session[name] for name in ("auto_retry", "max_retries", "retry_scope", "max_price"))
    assert shown == (*kept[:3], None if kept[3] is None else float(kept[3]))


@pytest.mark.parametrize("path", ["/sessions", "/sessions/estimate"])
def test_an_offer_above_max_price_is_refused(api: Api, offers: MovableClock, path: str) -> None:
    body = {"consumer_id": "a", "offer_id": "vastai-2", "workload_type": "llm", "reservation_hours": 1}
    answer = api.post(path, {**body, "max_price": 0.499999}, 400)
    assert (answer["field"], answer["error"]) == ("max_price", "max_price: this offer costs 0.5 an hour")
    assert not Session.objects.exists()
