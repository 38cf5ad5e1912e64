"""The course of a simulated month: everybody's work in one thread, and a jump of both clocks to what is due next."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Min

from benchmarks import month_books, month_life
from benchmarks.month import Clocks, Wish
from billing import balance, charges, deliver, ledger, services, spending, webhooks
from billing.budget_models import Budget, BudgetPeriod
from billing.models import ChargeFetch, WebhookDelivery
from billing.periods import month_of
from gpubroker.common import clock
from gpubroker.common.money import micros
from sessions_app import budget_watch, charge_matching, watch
from sessions_app.models import Event, Rental, SeenOrphan, Session
from sessions_app.states import FINAL, OPEN, Debt, Status
from tests.harness import Driver
from tests.sandbox import SandboxProcess

if TYPE_CHECKING:
    from tests.billing.receiver import Receiver

ZERO = Decimal(0)
#: Rounds between two looks at budgets, and between two sums of what was spent, where nothing is alive.
SELDOM = 20
#: The longest jumps: in general, while something boots for long, and while something is to be noticed.
FAR, NEAR, NEXT, SOON = timedelta(hours=24), timedelta(seconds=45), timedelta(seconds=4), timedelta(seconds=0.7)
#: Rounds in which a machine that is well has come to run.
BOOTS = 8


class Month:
    def __init__(self, market: SandboxProcess, clocks: Clocks, wish: Wish, receiver: Receiver) -> None:
        self.market, self.clocks, self.wish, self.receiver = market, clocks, wish, receiver
        self.ends_at = month_of(clock.now()).end
        settings.WEBHOOK_ALLOW_PRIVATE = True
        self.hook = webhooks.make(None, receiver.url, by="month").endpoint
        self.consumers = [services.ensure_consumer(name) for name in month_life.CONSUMERS]
        for name in month_life.CONSUMERS:
            month_life.limit(name, wish.budget)
        self.life = month_life.MonthLife(market, wish)
        self.life.prepare()
        self.driver = Driver()
        self.crossings: list[str] = []
        self.rounds = 0
        #: Rental -> the round in which it was first seen to have a machine that does not run.
        self.booting: dict[object, int] = {}

    def to_the_end(self) -> None:
        until = time.monotonic() + self.wish.patience
        while time.monotonic() < until and not self._over():
            self.life.act()
            self._work()
            self._check()
            self.clocks.jump(self._step())
        self.life.clear_faults()

    def faults_that_struck(self) -> int:
        return sum(int(fault["hits"]) for fault in self.life.struck)

    def _work(self) -> None:
        """What workers and scheduler do, once."""
        self.rounds += 1
        if self.rounds % 7 == 0:
            self.receiver.plan = [500, "close"]
        self.driver.round()
        for session_id in watch.claim_due():
            watch.look(session_id)
        if self._alive() or self.rounds % SELDOM == 0:
            budget_watch.look_due()
        ledger.accrue()
        for name in balance.claim_due():
            balance.read(name)
        while names := charges.claim_due():
            for name in names:
                charge_matching.step(name)
        deliver.drain()

    def _check(self) -> None:
        """Rule I7 by its counters in every round (the database itself holds them at every commit), and by the meter."""
        now = clock.now()
        # A machine that the marketplace does not destroy in time is owed, whatever the limit; that is told.
        owing = set(Event.objects.filter(kind="budget_overrun").values_list("session__consumer_id", flat=True))
        # So is traffic, which is known when it is billed.
        late = month_books.traffic_by_consumer()
        hard = BudgetPeriod.objects.filter(budget__hard=True).exclude(budget__consumer_id__in=owing)
        for row in hard.select_related("budget"):
            traffic = micros(late.get(row.budget.consumer_id, ZERO))
            if row.settled_micros + row.held_micros - traffic > row.limit_micros:
                self.crossings.append(f"{now}: {row}: {row.settled_micros} + {row.held_micros} > {row.limit_micros}")
        if self.rounds % SELDOM:
            return
        for budget in Budget.objects.filter(hard=True).exclude(consumer_id__in=owing):
            spent = spending.spent(budget.consumer_id, month_of(now), now) - late.get(budget.consumer_id, ZERO)
            if spent > (budget.monthly_limit or ZERO):
                self.crossings.append(f"{now}: {budget.consumer_id} has spent {spent} of {budget.monthly_limit}")

    # -- time ------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        """Past the month by so much that all charges have been told and compared, and nothing is open."""
        if clock.now() < self.ends_at or self.life.due is not None:
            return False
        self.life.clear_faults()
        waiting = WebhookDelivery.objects.filter(next_attempt_at__isnull=False).exists()
        if waiting or Rental.objects.filter(state__in=OPEN).exists():
            return False
        told = ChargeFetch.objects.filter(covered_until__gt=self.ends_at + timedelta(hours=26))
        return not Session.objects.exclude(status__in=FINAL).exists() and told.exists()

    def _step(self) -> timedelta:
        """To the next moment at which something is due, and no further than what is to be noticed allows."""
        now = clock.now()
        moments = [
            self.life.due,
            Session.objects.aggregate(at=Min("next_check_at"))["at"],
            Session.objects.aggregate(at=Min("next_probe_at"))["at"],
            Rental.objects.aggregate(at=Min("next_check_at"))["at"],
            WebhookDelivery.objects.aggregate(at=Min("next_attempt_at"))["at"],
            ChargeFetch.objects.aggregate(at=Min("next_at"))["at"],
            *self._graces(),
        ]
        first = min((moment for moment in moments if moment is not None), default=now + FAR)
        return max(min(first - now, self._reach()), SOON)

    def _alive(self) -> bool:
        return Rental.objects.filter(state__in=OPEN).exists()

    def _graces(self) -> list[datetime]:
        grace, now = timedelta(seconds=settings.ORPHAN_GRACE_SECONDS), clock.now()
        return [at + grace for at in SeenOrphan.objects.values_list("first_seen_at", flat=True) if at + grace > now]

    def _reach(self) -> timedelta:
        waiting = Rental.objects.filter(state=Debt.LIVE, session__status=Status.PROVISIONING)
        self.booting = {item: self.booting.get(item, self.rounds) for item in waiting.values_list("id", flat=True)}
        if any(self.rounds - since < BOOTS for since in self.booting.values()):
            return SOON
        died = Rental.objects.filter(instance_id__in=self.life.caused.died, state=Debt.LIVE)
        known = SeenOrphan.objects.count() + Rental.objects.filter(origin="orphan").count()
        if died.exists() or len(self.life.caused.orphans) > known:
            return NEXT
        unsure = Rental.objects.filter(state__in=(Debt.UNKNOWN, Debt.CREATING, Debt.PARKING, Debt.DESTROYING))
        return NEAR if self.booting or unsure.exists() else FAR
