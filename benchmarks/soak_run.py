"""The course of a soak: real time while there is something to do, a jump of both clocks when there is not."""

from __future__ import annotations

import random
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Count, Min

from benchmarks.soak_life import Life
from benchmarks.soak_workers import SharedTime, Workers
from gpubroker.common import clock
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, Session
from sessions_app.states import FINAL, OPEN, Debt, Status
from tests.sandbox import SandboxProcess

if TYPE_CHECKING:
    from benchmarks.soak import Wish

#: Real seconds in which a machine that is well has come to run.
BOOTS = 3.0
#: The longest jump: in general, while something boots for long, and while something waits to be noticed.
FAR, NEAR, NEXT = timedelta(seconds=900), timedelta(seconds=100), timedelta(seconds=15)
#: A jump lands just before what is due, so that how late it is done shows in real seconds.
BEFORE = timedelta(seconds=0.3)
#: Real seconds for one session, and for everything, before a soak is called stuck.
PATIENCE_EACH, PATIENCE = 4.0, 240.0
LOOK_SECONDS = 0.1
#: Real seconds in which a listing follows a jump.
LISTED = 2.0
#: Real seconds between two words about how far it is.
PROGRESS = 10.0


class Run:
    def __init__(self, market: SandboxProcess, life: Life, workers: Workers, shared: SharedTime, wish: Wish) -> None:
        self.market, self.life, self.workers, self.shared, self.wish = market, life, workers, shared, wish
        self.chance = random.Random(wish.seed)
        self.until = time.monotonic() + PATIENCE + PATIENCE_EACH * wish.sessions
        self.next_kill = time.monotonic() + wish.kill_every
        #: Rental -> when it was first seen to have a machine and not to run, in real seconds.
        self.booting: dict[object, float] = {}
        self.cleared = False
        self.jumps = 0
        #: When the last jump was, in real seconds, and where it came to.
        self.jumped_at = (time.monotonic(), clock.now())
        self.next_word = 0.0

    def to_the_end(self) -> None:
        """Until everything is over; or out of patience, and what is still open is in the verdict."""
        while time.monotonic() < self.until:
            self.life.act()
            self._begin_some()
            self._kill_one()
            self._tell()
            if self.life.left == 0 and self._over():
                return
            jump = self._room_to_jump()
            if jump > timedelta(seconds=0.5):
                self._jump(jump)
            else:
                time.sleep(LOOK_SECONDS)

    def _begin_some(self) -> None:
        alive = Session.objects.exclude(status__in=FINAL).count()
        for _ in range(min(self.wish.together - alive, self.life.left, 8)):
            self.life.begin()

    def _tell(self) -> None:
        if self.wish.progress and time.monotonic() >= self.next_word:
            self.next_word = time.monotonic() + PROGRESS
            states = Session.objects.values_list("status").annotate(many=Count("id"))
            debts = Rental.objects.exclude(state=Debt.CLOSED).values_list("state").annotate(many=Count("id"))
            told = ", ".join(f"{name} {many}" for name, many in [*states, *debts])
            sys.stderr.write(f"{clock.now():%d. %H:%M:%S}  {self.jumps} jumps  {told}\n")

    def _kill_one(self) -> None:
        if time.monotonic() >= self.next_kill:
            self.workers.kill(self.chance.randrange(self.wish.workers))
            self.life.caused.kills += 1
            self.next_kill = time.monotonic() + self.wish.kill_every

    def _over(self) -> bool:
        if Session.objects.exclude(status__in=FINAL).exists():
            return False
        if not self.cleared:
            # Nobody is left for it: what is armed must not keep the last debts for ever.
            self.life.clear_faults()
            self.cleared = True
        orphans = len(self.life.caused.orphans) > Rental.objects.filter(origin="orphan", state=Debt.CLOSED).count()
        return not orphans and not Rental.objects.filter(state__in=OPEN).exists()

    # -- time ----------------------------------------------------------------------------------------------

    def _room_to_jump(self) -> timedelta:
        """How far it is to the next moment at which something is due. Nothing: there is work to be done now."""
        now = clock.now()
        moments = [self.life.due, *self._due_rows()]
        first = min([moment for moment in moments if moment is not None], default=now + FAR)
        if first <= now or self._boots() or self._unlisted():
            return timedelta(0)
        return min(first - now - BEFORE, self._reach())

    def _due_rows(self) -> list[datetime | None]:
        slow = {Status.PENDING, Status.PROVISIONING}
        sessions = Session.objects.exclude(status__in=slow).aggregate(at=Min("next_check_at"))["at"]
        ends = Session.objects.filter(status__in=slow).aggregate(at=Min("expires_at"))["at"]
        return [sessions, ends, Rental.objects.aggregate(at=Min("next_check_at"))["at"], *self._graces()]

    def _graces(self) -> list[datetime]:
        """When orphans' graces are over, if they are not yet."""
        grace, now = timedelta(seconds=settings.ORPHAN_GRACE_SECONDS), clock.now()
        ends = [at + grace for at in SeenOrphan.objects.values_list("first_seen_at", flat=True)]
        return [at for at in ends if at > now]

    def _boots(self) -> bool:
        """Something may come to run any moment; what has not in time is broken, and waits for its deadline."""
        waiting = Rental.objects.filter(state=Debt.LIVE, session__status=Status.PROVISIONING)
        seen = time.monotonic()
        self.booting = {item: self.booting.get(item, seen) for item in waiting.values_list("id", flat=True)}
        return any(seen - since < BOOTS for since in self.booting.values())

    def _unlisted(self) -> bool:
        """A listing is due, and there was none since the last jump. One that is refused again and again does not stop
        time."""
        due = ProviderWatch.objects.filter(next_sweep_at__lte=clock.now(), last_sweep_at__lte=self.jumped_at[1])
        return time.monotonic() - self.jumped_at[0] < LISTED and due.exists()

    def _reach(self) -> timedelta:
        died = Rental.objects.filter(instance_id__in=self.life.caused.died, state=Debt.LIVE)
        overdue = SeenOrphan.objects.count() > len(self._graces())
        if died.exists() or overdue or self._unseen_orphans():
            return NEXT
        return NEAR if self.booting else FAR

    def _unseen_orphans(self) -> bool:
        known = SeenOrphan.objects.count() + Rental.objects.filter(origin="orphan").count()
        return len(self.life.caused.orphans) > known

    def _jump(self, span: timedelta) -> None:
        """Both clocks together, while nobody is in the middle of anything; not at all if somebody does not finish."""
        with self.shared.hold():
            until = time.monotonic() + 1
            while self.shared.busy():
                if time.monotonic() > until:
                    return
                time.sleep(0.002)
            self.market.advance(span.total_seconds())
            self.shared.offset += span.total_seconds()
            self.jumps += 1
            self.jumped_at = (time.monotonic(), clock.now() + span)
