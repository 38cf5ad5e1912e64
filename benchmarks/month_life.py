"""Who lives in a simulated month: consumers with budgets of every kind, what these do to them, and traffic."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from benchmarks.month import DAYS, Wish
from benchmarks.soak_life import CREATES, DESTROYS, EVENTS, LISTINGS, Life
from billing import budget_selectors, budget_setting
from billing.budget_models import Budget, Reservation
from gpubroker.common import clock
from gpubroker.common.money import quantize
from sessions_app import budget_views, worst_case
from sessions_app.models import Rental, Session
from sessions_app.session_budget import open_rental
from sessions_app.states import Debt, Status
from tests.sandbox import SandboxProcess

#: What a consumer's budget is for: hard and as the wish says; hard, and always just enough for one session more; hard,
#: and lowered under a machine that runs; soft, and used up by the first session.
USUAL, TIGHT, DRY, SOFT = ("usual-0", "usual-1", "usual-2"), "tight", "dry", "soft"
CONSUMERS = (*USUAL, TIGHT, DRY, SOFT)
#: They ask in turn.
TURNS = (TIGHT, DRY, SOFT, *USUAL)
#: They cost real seconds, by which nothing is told here that the soak does not tell.
SLOW = ("slow", "no_ssh", "ssh_delay", "rate_limited", "malformed", "listing_lag")
#: Minutes into a session of the one that runs dry until its limit is lowered, and for which it is left enough then:
#: more than the warning and a slow destroy take.
LOWERED_AFTER, LEFT = 20.0, Decimal(18)


class MonthLife(Life):
    """Refusals for want of money are counted, and nobody's business."""

    def __init__(self, market: SandboxProcess, wish: Wish) -> None:
        super().__init__(market, wish.sessions, wish.faults, wish.seed, minutes=50)
        self.refused = 0
        #: Dollars of traffic.
        self.received = Decimal(0)
        quick: list[dict[str, Any] | str] = [item for item in CREATES + DESTROYS + LISTINGS if item["kind"] not in SLOW]
        quick += EVENTS
        self.chance.shuffle(quick)
        self._quick = quick
        self._struck = self._turn = 0
        self._asking, self._second = "", False
        for _ in range(wish.sessions):
            self.later(self.chance.uniform(5, (DAYS - 2) * 24 * 60), self.begin)

    # -- sessions ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._asking = TURNS[self._turn % len(TURNS)]
        self._turn += 1
        self._ask_for_one()
        if self._asking == TIGHT:
            self.left, self._second = self.left + 1, True
            self._ask_for_one()
            self._second = False

    def _ask_for_one(self) -> None:
        """Another offer where the first one is gone."""
        before = self.left
        while self.left == before:
            super().begin()

    def _call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if not body or "consumer_id" not in body:
            status, answer = super()._call(method, path, body)
            self.refused += status == 402  # an extension
            return (409 if status == 402 else status), answer
        body = {**body, "consumer_id": self._asking}
        if self._asking == DRY:
            body = {name: value for name, value in body.items() if not name.startswith(("storage", "preserve"))}
        if not self._second:
            self._set_budget(body)
        status, answer = super()._call(method, path, body)
        if status == 402:
            self.refused += 1
            self.left -= 1
            return 409, answer
        return status, answer

    def _promise(self, session_id: str, end: str) -> None:
        self.later(self.chance.uniform(1, 12), lambda: self._receive(session_id))
        if self._asking == DRY:
            self.later(LOWERED_AFTER, lambda: self._lower(session_id))
        else:
            super()._promise(session_id, end)

    def _trouble(self, session_id: str, what: dict[str, Any] | str) -> None:
        """The next of those that are quick; none for whoever has trouble with money."""
        if self._asking == DRY:
            return
        self._struck += 1
        super()._trouble(session_id, self._quick[self._struck % len(self._quick)])

    def _receive(self, session_id: str) -> None:
        """Something is downloaded, which its host bills by volume."""
        running = Rental.objects.filter(session_id=session_id, session__status=Status.RUNNING, state=Debt.LIVE)
        for machine in running.values_list("instance_id", flat=True):
            # As vendors print charges: a rounding is not what is measured here.
            dollars = Decimal(self.chance.randrange(1, 80)) / 1000
            self.market.admin("POST", f"instances/{machine}/traffic", {"dollars": float(dollars)})
            self.received += dollars

    # -- budgets -------------------------------------------------------------------------------------------

    def _set_budget(self, body: dict[str, Any]) -> None:
        """What a consumer's limit is when it asks for this."""
        status, estimate = super()._call("POST", "/sessions/estimate", body)
        if status != 200 or self._asking in USUAL:
            return  # somebody took that offer, or it has what it has
        needed = Decimal(str(estimate["budget"]["needed"]))
        month = shown(self._asking)["monthly"]
        promised = month["spent"] + month["reserved"]
        if self._asking == TIGHT:
            limit(TIGHT, promised + needed * Decimal("1.001"))
        elif self._asking == DRY:
            limit(DRY, promised + needed * 3)
        else:
            limit(SOFT, needed / 200, hard=False)

    def _lower(self, session_id: str) -> None:
        """Finance needs the money elsewhere: what runs has to end soon."""
        if not Session.objects.filter(id=session_id, status=Status.RUNNING).exists():
            return
        held = Reservation.objects.filter(budget__consumer__name=DRY, released_at__isnull=True)
        running = Session.objects.filter(id__in=held.values("session_id"))
        an_hour = sum((sum(worst_case.rates(each, open_rental(each))) for each in running), Decimal(0))
        limit(DRY, shown(DRY)["monthly"]["spent"] + an_hour * LEFT / 60)


def limit(consumer: str, dollars: Decimal, *, hard: bool = True) -> Budget:
    """A month's."""
    return budget_views.put(consumer, budget_setting.Wish(monthly_limit=quantize(dollars), hard=hard), "staff:month")


def shown(consumer: str) -> dict[str, Any]:
    return budget_selectors.shown(budget_setting.found(consumer), clock.now())
