"""A deployment at work, for the console to show: consumers rent at the sandbox, money is spent, and things go wrong.

Everything comes about as it does in life: through the API, by the workers' own functions and by the marketplace's
faults. No row is written by hand, but for the scheduler's pulse. Both clocks, the broker's and the marketplace's, move
together.
"""

from __future__ import annotations

import time as machine_time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.test import override_settings

from billing import balance, charges, deliver, ledger, services
from gpubroker.common import clock, ids
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from gpubroker.common.models import Pulse
from offers import snapshot
from offers.models import Offer
from providers.labels import make_label
from sessions_app import budget_watch, charge_matching, watch
from sessions_app.drive import PULSE
from sessions_app.models import Rental, Session
from sessions_app.states import FINAL
from tests.harness import Api, Driver, MovableClock, describe, refresh_offers
from tests.sandbox import SandboxProcess

#: What is rented in the stories: consumer, workload, GPU, hours.
WISHES = (
    ("vision-lab", "training", "RTX 4090", 6),
    ("speech-team", "llm", "A100 SXM4", 8),
    ("render-farm", "batch", "RTX 3090", 4),
    ("bio-fold", "inference", "L40S", 10),
    ("vision-lab", "training", "H100 SXM", 3),
)


class Story:
    def __init__(self, market: SandboxProcess, time: MovableClock) -> None:
        self.market, self.time = market, time
        self.api, self.driver = Api(), Driver()

    # -- time and workers --------------------------------------------------------------------------------

    def advance(self, **span: float) -> None:
        self.time.advance(**span)
        self.market.advance(timedelta(**span).total_seconds())

    def work(self) -> None:
        """What scheduler and workers do, once."""
        self.driver.round()
        Pulse.objects.update_or_create(name=PULSE, defaults={"at": clock.now()})
        for session_id in watch.claim_due():
            watch.look(session_id)
        budget_watch.look_due()
        ledger.accrue()
        for name in balance.claim_due():
            balance.read(name)
        for name in charges.claim_due():
            charge_matching.step(name)
        deliver.drain()

    def until(self, done: Callable[[], bool], seconds: float = 40) -> None:
        """Work until it is so; ``seconds`` of real time, generous for a loaded machine."""
        deadline = machine_time.monotonic() + seconds
        while not done():
            assert machine_time.monotonic() < deadline, f"not reached within {seconds} s: {describe()}"
            self.work()
            clock.pause(0.05)

    def until_status(self, status: str, *sessions: str) -> None:
        self.until(lambda: Session.objects.filter(id__in=sessions, status=status).count() == len(sessions))

    def until_metered(self, *sessions: str) -> None:
        """Running, and shown so by a listing: money is being spent."""
        self.until_status("running", *sessions)
        metered = Rental.objects.filter(session_id__in=sessions, gpu_from__isnull=False)
        self.until(lambda: metered.values("session_id").distinct().count() == len(sessions))

    # -- what people do ------------------------------------------------------------------------------------

    def offer(self, gpu: str = "") -> str:
        """The cheapest offer with that GPU (any, where nobody has it) on a machine that no session of ours is on."""
        live = Session.objects.exclude(status__in=FINAL).values("offer_id")
        taken = Offer.objects.filter(id__in=live).values("machine_id")
        rows = Offer.objects.filter(withdrawn_at__isnull=True, disk_gb__gte=200, provider="vastai")
        free = [row for row in rows.exclude(machine_id__in=taken).order_by("price_per_hour", "id")
                if row.raw.get("direct_port_count")]  # fmt: skip
        wanted = [row for row in free if gpu.lower() in row.gpu_type.lower()]
        return str((wanted or free)[0].id)

    def rent(self, consumer: str = "vision-lab", workload: str = "training", gpu: str = "", hours: int = 2,
             **more: Any) -> str:  # fmt: skip
        """The new session's id; nobody has asked the provider yet."""
        snapshot.forget()
        made = self.api.create(
            consumer_id=consumer, offer_id=self.offer(gpu), workload_type=workload, reservation_hours=hours, **more
        )
        return str(made["session"]["id"])

    def running(self, *consumers: str, **more: Any) -> list[str]:
        """A session of each that runs and costs."""
        made = [self.rent(consumer, **more) for consumer in consumers]
        self.until_metered(*made)
        return made

    def budget(self, consumer: str, **wish: Any) -> None:
        services.ensure_consumer(consumer)
        answer = self.api.client.put(f"/api/v1/budgets/{consumer}", wish, content_type="application/json")
        assert answer.status_code == 200, answer.content

    def spent(self, consumer: str) -> float:
        """Dollars of this month."""
        return float(self.api.get("/costs/summary", consumer_id=consumer)["total_cost"])

    def reserved(self, consumer: str) -> float:
        """Dollars of this month that are spent or promised. Sets a budget of plenty to learn it."""
        self.budget(consumer, monthly_limit=1000)
        month = self.api.get(f"/budgets/{consumer}")["monthly"]
        return float(month["spent"] + month["reserved"])

    def machine(self, session: str) -> str:
        """The provider's id of the machine that it has, or had last."""
        return Rental.objects.filter(session_id=session).latest("attempt").instance_id

    def alive(self) -> set[str]:
        """The ids of the machines that somebody pays for, by the marketplace's own books."""
        return {str(contract["id"]) for contract in self.market.alive()}

    # -- what happens ----------------------------------------------------------------------------------------

    def day(self, number: int) -> None:
        """Some sessions run for hours and are done."""
        refresh_offers()
        today = [WISHES[(number + more) % len(WISHES)] for more in range(1 + number % 3)]
        made = [self.rent(*wish[:3], hours=12) for wish in today]
        self.until_metered(*made)
        self.advance(hours=3 + number % 5)
        self.work()
        for session in made:
            self.api.post(f"/sessions/{session}/done")
        self.until_status("stopped", *made)
        self.advance(hours=24 - 3 - number % 5)
        self.work()

    def orphan(self) -> str:
        """A machine with our label that no book knows; its id."""
        made = str(self.market.foreign(make_label(deployment_id(), ids.new_session_id(), 1)))
        self.driver.sweep_now()
        return made

    def refused_destroy(self, session: str, times: int = 1) -> None:
        """The session is over, and the provider does not take the destroy. Pauses grow with each time."""
        self.market.fault("refuse_destroy", mode="error", times=-1, instance_id=self.machine(session))
        self.api.delete(f"/sessions/{session}", status=202, Prefer="wait=0")
        for number in range(1, times + 1):
            refused = Rental.objects.filter(session_id=session, destroy_failures__gte=number)
            self.until(lambda refused=refused: refused.exists())  # type: ignore[misc]
            self.advance(minutes=2)

    def busy(self, days: int) -> dict[str, str]:
        """Days of work, and a present with a bit of everything; the sessions by what they are like."""
        for number in range(days):
            self.day(number)
        refresh_offers()
        for consumer, room in (("vision-lab", 150), ("speech-team", 40), ("bio-fold", 20)):
            self.budget(consumer, monthly_limit=room + round(self.spent(consumer)))
        made = {consumer: self.rent(consumer, workload, gpu, hours) for consumer, workload, gpu, hours in WISHES[:4]}
        self.until_metered(*made.values())
        self.market.fault("boot_error", mode="oci")
        made["failed"] = self.rent("speech-team", "llm")
        self.until_status("failed", made["failed"])
        made["stuck"] = self.rent("render-farm", "batch")
        self.until_metered(made["stuck"])
        self.advance(minutes=47)
        self.work()
        self.refused_destroy(made["stuck"], times=4)
        self.work()
        self.market.foreign("somebody-elses-experiment")
        self.market.fault("boot_never")
        made["booting"] = self.rent("vision-lab", "training", "RTX 4090", 3)
        self.until_status("provisioning", made["booting"])
        self.orphan()
        made["waiting"] = self.rent("bio-fold", "inference")
        ledger.accrue()
        return made


@contextmanager
def told(market: SandboxProcess, time: MovableClock) -> Iterator[Story]:
    """The marketplace emptied, the broker configured for it, and its offers listed. Wants a database."""
    market.reset()
    own = {"VASTAI_API_KEY": market.api_key, "VASTAI_BASE_URL": market.url, "PROVIDER_PACE": 0,
           "SSH_CHECK_SECONDS": 0.1, "WEBHOOK_ALLOW_PRIVATE": True}  # fmt: skip
    with override_settings(**own), clock.use(time):
        configured.configured.cache_clear()
        snapshot.forget()
        refresh_offers()
        try:
            yield Story(market, time)
        finally:
            configured.configured.cache_clear()
            snapshot.forget()
