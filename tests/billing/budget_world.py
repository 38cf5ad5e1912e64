"""Sessions that cost money, without a marketplace: the broker's own services, and what a provider would have told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing import budget_selectors, budget_setting
from billing import budget_spend as spend
from billing.budget_models import Budget, BudgetPeriod, Reservation
from billing.budgets import InsufficientBudget, open_parts
from billing.models import Consumer
from billing.services import ensure_consumer
from gpubroker.common import clock
from gpubroker.common.money import from_micros
from providers.base import Created
from sessions_app import budget_views, launch, meter, services, tasks
from sessions_app.ending import close_rental, end_session
from sessions_app.models import Rental, Session
from sessions_app.planning import Wish
from sessions_app.states import OPEN, Debt, EndReason, Status
from sessions_app.transitions import transition
from tests import invariants
from tests.offers.factory import apply, row

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmCYsBSMiCRmv1Nc8YtTTXtSLR3b2yOS1UKfHhDJrgJ me"
ME = "me"
#: Dollars per hour of every offer here: the GPU, and 8 GB of disk at 0.9 a month; together a dollar.
GPU, DISK = Decimal("0.99"), Decimal("0.01")


class StoppedClock:
    """Time passes when a test says so."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **span: float) -> None:
        self.at += timedelta(**span)


@contextmanager
def stopped(at: datetime = datetime(2026, 11, 10, 12, tzinfo=UTC)) -> Iterator[StoppedClock]:
    moved = StoppedClock(at)
    with clock.use(moved):
        yield moved


def list_offers(count: int = 8, **changes: Any) -> None:
    usual = {"price_per_hour": GPU, "storage_price_per_gb_month": Decimal("0.9"), "disk_gb": 500.0, **changes}
    apply([row(str(number), machine_id=str(number), **usual) for number in range(1, count + 1)])


def budget(consumer: str = ME, **wish: Any) -> Budget:
    for name in {"monthly_limit", "total_limit"} & wish.keys():
        wish[name] = Decimal(str(wish[name]))
    ensure_consumer(consumer)
    return budget_views.put(consumer, budget_setting.Wish(**wish), "staff:test")


def rent(offer: int = 1, hours: int = 2, consumer: str = ME, **changes: Any) -> Session:
    """Asked for and written down; nobody has told the provider yet."""
    wish = Wish(consumer, f"vastai-{offer}", "llm", hours, disk_gb=8, ssh_public_key=KEY, **changes)
    return services.create_session(wish, f"consumer:{consumer}").session


def machine(session: Session) -> Rental:
    return Rental.objects.get(session=session, state__in=OPEN)


def launched(session: Session) -> Rental:
    """The provider made the machine, and bills its disk from now on."""
    rental = machine(session)
    Rental.objects.filter(id=rental.id).update(state=Debt.CREATING, create_sent_at=clock.now())
    rental.refresh_from_db()
    launch.apply_created(rental, Created(f"i-{rental.label}"))
    rental.refresh_from_db()
    return rental


def boot(session: Session, gpu: Decimal | None = None) -> Rental:
    """... and its GPU as well; and it proved itself."""
    rental, now = launched(session), clock.now()
    meter.run(rental, "gpu", session.price_per_hour if gpu is None else gpu, now)
    transition(session.id, {Status.PROVISIONING}, Status.RUNNING, running_at=now, next_check_at=session.expires_at)
    rental.refresh_from_db()
    return rental


def end(session: Session, reason: EndReason = EndReason.DONE) -> None:
    assert end_session(session.id, reason)


def gone(session: Session) -> None:
    """Proved, at this moment."""
    rental = machine(session)
    assert close_rental(rental, {Debt(rental.state)}, {"call": "get instance", "answer": "no such machine"})


def refused(work: Callable[[], Any]) -> InsufficientBudget:
    """402, and nothing is changed (I12)."""
    before = invariants.digest()
    with pytest.raises(InsufficientBudget) as caught:
        work()
    assert invariants.digest() == before
    assert (caught.value.status, caught.value.extra["error_type"]) == (402, "insufficient_budget")
    return caught.value


def counters(period: str = "2026-11", consumer: str = ME) -> tuple[Any, Any]:
    """Settled and held, in dollars."""
    found = BudgetPeriod.objects.get(budget__consumer__name=consumer, period=period)
    return from_micros(found.settled_micros), from_micros(found.held_micros)


def shown(consumer: str = ME) -> dict[str, Any]:
    return budget_selectors.shown(budget_setting.found(consumer), clock.now())


def reservation(session: Session) -> Reservation:
    return Reservation.objects.get(session_id=session.id)


MICRO = Decimal("0.000001")


def assert_books_agree(consumer: str = ME) -> None:
    """The counters are what meter and reservations say, to a rounding; and no limit is crossed by a promise."""
    now = clock.now()
    found = Budget.objects.get(consumer__name=consumer)
    consumer_id = Consumer.objects.get(name=consumer).pk
    parts = open_parts(found)
    open_spent = spend.of_sessions(list(parts), now)
    for counter in BudgetPeriod.objects.filter(budget=found):
        committed = from_micros(counter.settled_micros + counter.held_micros)
        spent = spend.of_consumer(consumer_id, counter.period, now)
        reserved = budget_selectors.reserved_in(counter.period, parts, open_spent)
        sessions = 2 + Reservation.objects.filter(budget=found).count()
        assert abs(spent + reserved - committed) <= sessions * MICRO, (counter.period, spent, reserved, committed)
        assert counter.held_micros == sum(each.get(counter.period, 0) for each in parts.values())


def within_limits(consumer: str = ME) -> bool:
    rows = BudgetPeriod.objects.filter(budget__consumer__name=consumer)
    return all(each.settled_micros + each.held_micros <= each.limit_micros == each.cap_micros for each in rows)


def look() -> None:
    """The scheduler's round, for whoever is due."""
    tasks.budgets()
