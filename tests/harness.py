"""What the broker's own tests share: a clock to move, a driver without a queue, and the sandbox as the marketplace.

The tests run without a worker: nudges go nowhere, as if the queue lost every task, and :class:`Driver` does what
the scheduler does with due rows. So every lifecycle test is also a test that a lost task does no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import close_old_connections, connections
from django.db.models import Q
from django.test import Client

from gpubroker.common import clock
from offers import services as offers
from offers import snapshot
from offers.models import Offer
from sessions_app import drive, sweep
from sessions_app.models import Rental, Session
from sessions_app.states import FINAL, Debt


class MovableClock:
    """Real time plus an offset: waiting for the sandbox takes real seconds, hours pass at once."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, **span: float) -> None:
        self.offset += timedelta(**span)


class Driver:
    """The scheduler and the workers of a deployment, in this thread, one row after the other."""

    def __init__(self, provider: str = "vastai") -> None:
        self.provider = provider

    def round(self) -> None:
        """Everything that is due now, once."""
        now = clock.now()
        for session_id in list(Session.objects.filter(next_check_at__lte=now).values_list("id", flat=True)):
            drive.drive_session(session_id)
        # A fresh intention is not due for some seconds: its nudge starts it, and here we are the nudge.
        due = Q(next_check_at__lte=now) | Q(state=Debt.INTENDED, create_sent_at__isnull=True)
        for rental_id in list(Rental.objects.filter(due).values_list("id", flat=True)):
            drive.drive_rental(rental_id)
        for name in sweep.claim_due():
            sweep.sweep(name)

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"not reached within {seconds} s: {describe()}")
            self.round()
            clock.pause(0.05)

    def until_status(self, session_id: str, status: str, seconds: float = 60) -> Session:
        def reached() -> bool:
            session = Session.objects.get(id=session_id)
            if session.status in FINAL and session.status != status:
                raise AssertionError(f"ended as {session.status}: {session.end_reason} {session.end_message}")
            return session.status == status

        self.until(reached, seconds)
        return Session.objects.get(id=session_id)

    def until_metered(self, session_id: str) -> Session:
        """Running, and shown so by a listing, which may come a moment after SSH has answered."""
        self.until_status(session_id, "running")
        self.until(lambda: Rental.objects.filter(session_id=session_id, gpu_from__isnull=False).exists())
        return Session.objects.get(id=session_id)

    def sweep_now(self) -> sweep.Sweep | None:
        sweep.claim_due()
        return sweep.sweep(self.provider)


class BackgroundDriver:
    """A driver in a thread of its own, for requests that wait for the workers' verdict."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failed: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> BackgroundDriver:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join(timeout=30)
        if self.failed is not None:
            raise AssertionError("the driver failed") from self.failed

    def _run(self) -> None:
        driver = Driver()
        try:
            while not self.stop.is_set():
                driver.round()
                close_old_connections()
                self.stop.wait(0.03)
        except BaseException as error:  # noqa: BLE001 - told to the test when it leaves the block
            self.failed = error
        finally:
            connections.close_all()


def describe() -> str:
    """The books in a few lines, for a failing test."""
    sessions = [f"{s.id} {s.status} {s.end_reason} {s.end_message}" for s in Session.objects.all()]
    rentals = [f"{r.label} {r.state} {r.phase} {r.last_error} {r.status_message}" for r in Rental.objects.all()]
    return "\n".join([*sessions, *rentals])


class Api:
    """The HTTP API as a program uses it, over Django's test client."""

    def __init__(self) -> None:
        self.client = Client(raise_request_exception=False)

    def get(self, path: str, expect: int = 200, **params: Any) -> Any:
        response = self.client.get(f"/api/v1{path}", params)
        assert response.status_code == expect, (response.status_code, response.content)
        return response.json()

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        response = self.client.post(f"/api/v1{path}", body, content_type="application/json", headers=headers)
        assert response.status_code == status, (response.status_code, response.content)
        return response.json()

    def delete(self, path: str, status: int = 200, **headers: str) -> Any:
        response = self.client.delete(f"/api/v1{path}", headers=headers)
        assert response.status_code == status, (response.status_code, response.content)
        return response.json()

    def create(self, status: int = 201, wait: int = 0, **changes: Any) -> Any:
        body = {
            "consumer_id": "my-application",
            "offer_id": changes.pop("offer_id", None) or cheapest_offer(),
            "workload_type": "llm",
            "reservation_hours": 2,
            "ssh_key_type": "ed25519",
            **changes,
        }
        return self.post("/sessions", body, status, Prefer=f"wait={wait}")


def refresh_offers(provider: str = "vastai") -> None:
    offers.ensure_inventories([provider])
    offers.refresh(provider)
    snapshot.forget()


def offers_on_different_machines(count: int) -> list[str]:
    """The cheapest offers with disk to spare whose machines take direct connections; renting one leaves the others."""
    rows = Offer.objects.filter(withdrawn_at__isnull=True, disk_gb__gte=200).order_by("price_per_hour", "id")
    by_machine: dict[str, str] = {}
    for offer in rows:
        if offer.raw.get("direct_port_count"):
            by_machine.setdefault(offer.machine_id, offer.id)
    return list(by_machine.values())[:count]


def cheapest_offer() -> str:
    return offers_on_different_machines(1)[0]
