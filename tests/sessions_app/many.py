"""Many sessions and rentals in the books, without a marketplace behind them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from billing import services as billing
from gpubroker.common import clock, ids
from providers.labels import make_label
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, Status

_machine = iter(range(1_000_000, 9_000_000))
WITHOUT_MACHINE = (Debt.INTENDED, Debt.CREATING, Debt.UNKNOWN)


def session(status: Status = Status.RUNNING, consumer: str = "one", **changes: Any) -> Session:
    """One that runs for another hour, unless said otherwise."""
    now = clock.now()
    number = next(_machine)
    row = {
        "consumer": billing.ensure_consumer(consumer),
        "status": status,
        "offer_id": f"vastai-{number}",
        "provider": "vastai",
        "gpu_type": "RTX 4090",
        "gpu_count": 1,
        "vram_mb": 24_000,
        "price_per_hour": Decimal("0.5"),
        "storage_price_per_gb_month": Decimal("0.1"),
        "workload_type": "test",
        "reservation_hours": 1,
        "disk_gb": 10,
        "ssh_public_key": "ssh-ed25519 AAAA",
        "created_at": now - timedelta(hours=1),
        "expires_at": now + timedelta(hours=1),
        "hard_max_at": now + timedelta(hours=11),
        "running_at": now if status == Status.RUNNING else None,
        "next_check_at": now + timedelta(hours=1),
        **changes,
    }
    return Session.objects.create(id=ids.new_session_id(), **row)


def rental(of: Session | None, state: Debt = Debt.LIVE, **changes: Any) -> Rental:
    """The machine of a session, an hour old; without a session it is an orphan."""
    now = clock.now()
    owner = of.id if of is not None else ids.new_session_id()
    row = {
        "session": of,
        "origin": Rental.Origin.SESSION if of is not None else Rental.Origin.ORPHAN,
        "provider": of.provider if of is not None else "vastai",
        "state": state,
        "label": make_label("testdep", owner, 1),
        "instance_id": "" if state in WITHOUT_MACHINE else str(next(_machine)),
        "created_at": now - timedelta(hours=1),
        "create_sent_at": now - timedelta(hours=1),
        "accepted_at": now - timedelta(hours=1),
        **changes,
    }
    return Rental.objects.create(**row)


def debt(consumer: str = "one", **changes: Any) -> Rental:
    """A machine that is owed to the provider, whose session is stopping, and which is due now."""
    now = clock.now()
    owner = session(Status.STOPPING, consumer, end_reason="expired", next_check_at=None)
    row = {
        "provider": "vastai",
        "destroy_requested_at": now,
        "gpu_from": now - timedelta(hours=1),
        "gpu_rate": Decimal("0.5"),
        "next_check_at": now - timedelta(seconds=1),
        **changes,
    }
    return rental(owner, Debt.DESTROYING, **row)
