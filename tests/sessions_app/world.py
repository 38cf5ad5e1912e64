"""Broker and marketplace as one world in which anything may happen, for the state machine of test_invariants."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.test import Client
from requests import PreparedRequest

from gpubroker.common import clock, ids
from gpubroker.common.deployment import deployment_id
from gpubroker.common.errors import ApiError
from offers.models import Offer
from providers.labels import make_label
from sessions_app import drive, services, trust, watch
from sessions_app.models import Rental, Session
from sessions_app.states import FINAL, OPEN, Debt
from tests import invariants
from tests.harness import Driver, MovableClock, offers_on_different_machines, refresh_offers
from tests.points import depth, seeing_calls
from tests.sandbox import SandboxProcess

CREATE = re.compile(r"/api/v0/asks/\d+/")
DESTROY = re.compile(r"/api/v0/instances/(\d*)/?")
#: After faults are over, the driver has this long for whatever is owed.
LATENESS = timedelta(seconds=300)
AGENT_TOKEN = "GPUBROKER_AGENT_TOKEN"


class Workers(Driver):
    """The driver, and who looks after running machines."""

    def round(self) -> None:
        super().round()
        for session_id in watch.claim_due():
            watch.look(session_id)


class World:
    """One deployment and one marketplace account, which others use as well."""

    def __init__(self, market: SandboxProcess, time: MovableClock) -> None:
        self.market, self.time = market, time
        self.client = Client(raise_request_exception=False)
        self.workers = Workers()
        self.floor = depth()
        self.log = io.StringIO()
        #: Machines that are nobody's business of ours, and orphans with when they came, by the marketplace's ids.
        self.foreign: set[int] = set()
        self.orphans: dict[str, Any] = {}
        #: Machines that truly died; sessions of which only the marketplace knows when their bill stopped.
        self.broken: set[str] = set()
        self.rough: set[str] = set()
        self.jumped = timedelta(0)
        self.secrets: set[str] = {market.api_key}
        self.violations: list[str] = []
        #: What the last check said: once a rule is broken, what follows tells nothing.
        self.held = True
        market.reset()
        time.offset = timedelta(0)
        refresh_offers()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every call that leaves is looked at, and everything that is logged is kept."""
        handler = logging.StreamHandler(self.log)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with seeing_calls(self._call_leaves):
                yield
        finally:
            root.removeHandler(handler)

    def _call_leaves(self, request: PreparedRequest) -> None:
        path = urlsplit(request.url or "").path
        try:
            assert depth() == self.floor, f"{request.method} {path} leaves inside a transaction"
            if request.method == "PUT" and CREATE.fullmatch(path):
                invariants.create_is_written_down(json.loads(request.body or "{}")["label"])
            elif request.method == "DELETE" and (one := DESTROY.fullmatch(path)):
                body = json.loads(request.body or "{}")
                grace = timedelta(seconds=settings.ORPHAN_GRACE_SECONDS) - self.jumped
                for instance_id in [one[1]] if one[1] else body["instance_ids"]:
                    invariants.destroy_is_owed(str(instance_id), grace, self.orphans)
        except AssertionError as broken:
            self.violations.append(str(broken))

    # -- consumers -----------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request. A refusal must change nothing (I12), and nothing may fail unexpectedly."""
        before = invariants.digest()
        headers.setdefault("Prefer", "wait=0")
        response = getattr(self.client, method)(
            f"/api/v1{path}", body, content_type="application/json", headers=headers
        )
        answer = response.json()
        assert response.status_code < 500 or response.status_code == 503, (path, answer)
        if 400 <= response.status_code < 500:
            assert invariants.digest() == before, f"I12: {method} {path} was refused and changed something: {answer}"
        if key := answer.get("ssh_private_key"):
            self.secrets.update(line for line in key.splitlines()[2:-1] if len(line) > 20)
        return response.status_code, answer

    def create(self, pick: int, **changes: Any) -> None:
        offers = offers_on_different_machines(6)
        if not offers:
            return
        offer = offers[pick % len(offers)]
        if "max_price" in changes:
            changes["max_price"] = float(Offer.objects.get(id=offer).price_per_hour) * changes["max_price"]
        body = {
            "consumer_id": "my-application", "offer_id": offer, "workload_type": "llm", "reservation_hours": 2,
            "ssh_key_type": "ed25519", **changes,
        }  # fmt: skip
        self.call("post", "/sessions", body)

    def end(self, session_id: str, how: str) -> None:
        """As a request or the scheduler does it, which may find that somebody was quicker."""
        ways: dict[str, Callable[[], object]] = {
            "done": partial(services.done, session_id),
            "delete": partial(services.destroy, session_id),
            "tick": drive.tick,
        }
        with suppress(ApiError):
            ways[how]()

    def sessions(self) -> list[Session]:
        return list(Session.objects.exclude(status__in=FINAL).order_by("created_at", "id"))

    def session(self, pick: int) -> Session | None:
        """One that lives; now and then one that is over."""
        some = self.sessions() or list(Session.objects.order_by("created_at", "id"))
        return some[pick % len(some)] if some else None

    # -- time and workers ----------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Both clocks, while nobody works."""
        self.time.advance(seconds=seconds)
        self.market.advance(seconds)

    def jump(self, seconds: float) -> None:
        """Our clock alone is set, forwards or back."""
        self.time.advance(seconds=seconds)
        self.jumped += abs(timedelta(seconds=seconds))

    def work(self, rounds: int, seconds: float) -> None:
        for _ in range(rounds):
            self.workers.round()
            self.advance(seconds)

    def step(self, pick: int) -> Callable[[], object]:
        """What one worker does with one open row, due or not: a task may come twice, late, or for nothing."""
        steps: list[Callable[[], object]] = []
        for session in self.sessions():
            steps.append(partial(drive.drive_session, session.id))
            steps.append(partial(watch.look, session.id))
        for rental in Rental.objects.filter(state__in=OPEN).order_by("created_at", "id"):
            steps.append(partial(drive.drive_rental, rental.id))
        steps.append(self.workers.sweep_now)
        return steps[pick % len(steps)]

    def crashed(self) -> None:
        """A destroy may have been sent by whoever is dead: nobody of ours knows since when such a machine is gone."""
        owed = Rental.objects.filter(state=Debt.DESTROYING, session__isnull=False)
        self.rough.update(str(session_id) for session_id in owed.values_list("session_id", flat=True))

    # -- the marketplace's side ----------------------------------------------------------------------

    def machines(self) -> list[dict[str, Any]]:
        """Those that live and that our creates made."""
        return [contract for contract in self.contracts() if contract["alive"]]

    def contracts(self, everybodys: bool = False) -> list[dict[str, Any]]:
        others = set() if everybodys else {str(id_) for id_ in self.foreign} | self.orphans.keys()
        return [contract for contract in self.market.ledger() if str(contract["id"]) not in others]

    def harm(self, pick: int, how: str) -> None:
        """Something happens to one of our machines at its host."""
        machines = self.machines()
        if not machines:
            return
        machine = machines[pick % len(machines)]
        if how == "wipe-keys":
            self.market.admin("POST", f"instances/{machine['id']}/wipe-keys")
            return
        if how == "interrupt":
            self.market.admin("POST", f"instances/{machine['id']}/interrupt")
        else:
            self.market.machine_dies(machine["id"], how)
        self.broken.add(str(machine["id"]))
        rental = Rental.objects.filter(label=machine["label"]).first()
        self.rough.add(str(rental.session_id) if rental is not None else "")

    def rivals(self, pick: int, how: str) -> None:
        """Others bid more for one of our machines, or no longer do. Nobody tells us since when it stood still."""
        ours = [machine for machine in self.machines() if machine["is_bid"]]
        if not ours:
            return
        machine = ours[pick % len(ours)]
        with suppress(ValueError):  # it runs, or costs more than they would bid
            self.market.admin("POST", f"instances/{machine['id']}/{how}", {"price": 40} if how == "outbid" else {})
        rental = Rental.objects.filter(label=machine["label"]).first()
        self.rough.add(str(rental.session_id) if rental is not None else "")

    def stranger(self, whose: str) -> None:
        """Another's machine appears on the account, or one with our label that is in no book."""
        other = ids.new_session_id()
        labels = {
            "nobody": None,
            "person": "my notebook",
            "other deployment": make_label("otherdep", other, 1),
            "nearly ours": make_label(deployment_id() + "x", other, 1),
            "orphan": make_label(deployment_id(), other, 1),
        }
        made = self.market.foreign(labels[whose])
        if whose == "orphan":
            self.orphans[str(made)] = clock.now()
        else:
            self.foreign.add(made)

    # -- checks --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whatever must hold at every moment."""
        self.held = False
        self._check()
        self.held = True

    def _check(self) -> None:
        assert self.violations == []
        ledger = self.contracts(everybodys=True)
        others = {str(id_) for id_ in self.foreign} | self.orphans.keys()
        made = [contract for contract in ledger if str(contract["id"]) not in others]
        for contract in made:
            self.secrets.add(contract["env"][AGENT_TOKEN])
        invariants.every_machine_has_its_rental(made)
        invariants.no_label_twice(made)
        invariants.one_machine_per_session(made)
        invariants.foreign_machines_live(ledger, self.foreign)
        invariants.every_live_machine_is_owed_or_wanted(made)
        invariants.closed_means_gone(ledger)
        invariants.no_false_end(self.broken)
        invariants.books_are_consistent()
        invariants.timelines_are_paths()

    def calm(self) -> None:
        """No more faults, and time for whatever is owed: then nobody lives beyond its end."""
        self.market.clear_faults()
        self.work(8, LATENESS.total_seconds() / 8)
        invariants.no_secret_shows(self.secrets, [self.log.getvalue()])
        invariants.nobody_outlives_its_end(self.contracts(), LATENESS + self.jumped)

    def settle_unless_broken(self) -> None:
        if self.held:
            self.settle()

    def settle(self) -> None:
        """Everything comes to its end: nothing is left, and what it cost is right."""
        self.market.clear_faults()
        self.advance(14 * 3600)
        for count in range(70):
            self.workers.round()
            trust.release("vastai", "staff:test")
            if self.quiet():
                break
            self.advance(15 if count < 25 else 300)
        ledger = self.contracts(everybodys=True)
        invariants.nothing_is_left([contract for contract in ledger if contract["id"] not in self.foreign])
        self.check()
        # Logs and events only grow.
        invariants.no_secret_shows(self.secrets, [self.log.getvalue()])
        unseen = self.unseen()
        made = [contract for contract in self.contracts() if str(contract["id"]) not in unseen]
        for session in Session.objects.all():
            invariants.costs_agree(session, made, slack=self.jumped, at_least_only=session.id in self.rough)

    def unseen(self) -> set[str]:
        """Machines of which no listing ever said that they run, and that died, or that the provider would not show us
        before their destroy: what they cost is the marketplace's to say."""
        never = Rental.objects.filter(gpu_from=None).exclude(instance_id="").values_list("instance_id", flat=True)
        return set(never) & self.broken if "has cost is not known" not in self.log.getvalue() else set(never)

    def quiet(self) -> bool:
        alive = {contract["id"] for contract in self.market.alive()} - self.foreign
        open_rentals = Rental.objects.filter(state__in=OPEN).exists()
        return not alive and not open_rentals and not self.sessions()
