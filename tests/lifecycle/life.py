"""One broker on one face of the marketplace, with one clock for both: time passes only when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from gpubroker.common import ids
from gpubroker.common.deployment import deployment_id
from offers import snapshot
from offers.models import Offer
from providers import deadline
from providers.labels import make_label
from sessions_app import verify, watch
from sessions_app.models import Event, Rental, Session
from sessions_app.states import FINAL, OPEN, Debt, Status
from tests import invariants
from tests.harness import Api, Driver, MovableClock, describe
from tests.lifecycle.faces import Face
from tests.sandbox import SandboxProcess

#: A machine is gone so soon after its end, when nothing is wrong.
LATENESS = timedelta(seconds=15)
#: Seconds that a call gets from a broker in a hurry.
PATIENCE = 1.0
#: Disk that every provider rents out, in GB.
DISK = 100
AGENT_TOKEN = "GPUBROKER_AGENT_TOKEN"


class Workers(Driver):
    """The driver, and who looks after running machines."""

    def round(self) -> None:
        super().round()
        for session_id in watch.claim_due():
            watch.look(session_id)


class Life:
    """What happens, and at the end what must have been true of it all."""

    def __init__(self, face: Face, market: SandboxProcess, time: MovableClock, api: Api) -> None:
        self.face, self.market, self.time, self.api = face, market, time, api
        self.workers = Workers(face.provider)
        #: Machines that are nobody's business of ours, by the marketplace's ids; and those that truly died.
        self.foreign: set[str] = set()
        self.broken: set[str] = set()
        #: Sessions of which only the marketplace knows how long they cost.
        self.rough: set[str] = set()
        self.secrets: set[str] = {face.secret(market)}

    # -- time and workers ----------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Both clocks, while nobody works."""
        self.time.advance(seconds=seconds)
        self.market.advance(seconds)

    def work(self, rounds: int, step: float = 1.0) -> None:
        for _ in range(rounds):
            self.workers.round()
            self.advance(step)

    def work_alone(self, rounds: int, step: float) -> None:
        """The same while the marketplace is away: its clock is moved afterwards."""
        for _ in range(rounds):
            self.workers.round()
            self.time.advance(seconds=step)

    @staticmethod
    def impatience() -> AbstractContextManager[None]:
        """Calls in the block end soon: what the provider takes longer for comes too late."""
        return deadline.within(PATIENCE)

    def until(self, done: Callable[[], bool], step: float = 1.0, rounds: int = 60) -> None:
        """Work until it is so, ``step`` seconds a round. Bounded by work and not by real time: a loaded machine is
        slower, and comes to the same end."""
        for _ in range(rounds):
            self.workers.round()
            if done():
                return
            self.advance(step)
        raise AssertionError(f"not reached in {rounds} rounds of {step} s: {describe()}")

    def until_status(self, session_id: str, status: str, step: float = 1.0, rounds: int = 60) -> Session:
        def reached() -> bool:
            session = self.session(session_id)
            wrong = session.status in FINAL and session.status != status
            assert not wrong, f"ended as {session.status}: {session.end_reason} {session.end_message}"
            return session.status == status

        self.until(reached, step, rounds)
        return self.session(session_id)

    def ended(self, session_id: str, reason: str, step: float = 1.0, rounds: int = 60) -> Session:
        """Work until it is over, and for this reason."""
        self.until(lambda: self.session(session_id).status in FINAL, step, rounds)
        session = self.session(session_id)
        assert session.end_reason == reason, (session.end_reason, session.end_message)
        return session

    # -- consumers -----------------------------------------------------------------------------------

    def order(self, **changes: Any) -> dict[str, Any]:
        """What a consumer asks for: the cheapest offer with the disk, on a machine that no session of ours is on."""
        snapshot.forget()  # no thread of a web process looks after it here
        wanted = set(Session.objects.exclude(status__in=FINAL).values_list("offer_id", flat=True))
        taken = set(Offer.objects.filter(id__in=wanted).values_list("machine_id", flat=True))
        offers = self.api.get("/inventory", limit=50)["offers"]
        offer = next(each["id"] for each in offers if each["disk_gb"] >= DISK and each["machine_id"] not in taken)
        return {
            "consumer_id": "me", "offer_id": offer, "workload_type": "training", "reservation_hours": 2,
            "disk_gb": DISK, "ssh_key_type": "ed25519", **changes,
        }  # fmt: skip

    def begin(self, **changes: Any) -> str:
        return str(self.begun(**changes)["session"]["id"])

    def begun(self, **changes: Any) -> dict[str, Any]:
        """The create's whole answer, which is the only one with the private key."""
        answer: dict[str, Any] = self.api.post("/sessions", self.order(**changes), 201, Prefer="wait=0")
        self.secrets.update(line for line in answer["ssh_private_key"].splitlines()[2:-1] if len(line) > 20)
        return answer

    def running(self, **changes: Any) -> str:
        session_id = self.begin(**changes)
        self.until_status(session_id, "running")
        return session_id

    def end(self, session_id: str) -> None:
        self.api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")

    def session(self, session_id: str) -> Session:
        return Session.objects.get(id=session_id)

    def rental(self, session_id: str) -> Rental:
        return Rental.objects.get(session_id=session_id)

    def log_in(self, session_id: str, private_key: str, command: str) -> str:
        """What the command prints on the session's machine, at the address that the API tells."""
        told = self.api.get(f"/sessions/{session_id}")
        door = verify.Endpoint(told["ssh_host"], told["ssh_port"], told["ssh_user"])
        with verify.login(door, private_key) as (transport, _):
            status, output = verify.run(transport, command)
        assert status == 0, output
        return output

    def events(self, session_id: str, kind: str) -> list[Event]:
        return list(Event.objects.filter(session_id=session_id, kind=kind).order_by("id"))

    # -- the marketplace's side ----------------------------------------------------------------------

    def contracts(self) -> list[dict[str, Any]]:
        """Those that our creates made."""
        labels = set(Rental.objects.filter(origin="session").values_list("label", flat=True))
        return [contract for contract in self.market.ledger() if contract["label"] in labels]

    def alive(self) -> list[dict[str, Any]]:
        return [contract for contract in self.contracts() if contract["alive"]]

    def machine(self) -> dict[str, Any]:
        """The one that lives."""
        (contract,) = self.alive()
        return contract

    def dies(self, how: str = "offline") -> None:
        """Our machine, at its host."""
        machine = self.machine()
        self.market.machine_dies(machine["id"], how)
        self.broken.add(str(machine["id"]))
        self.rough.update(Rental.objects.filter(label=machine["label"]).values_list("session_id", flat=True))

    def stranger(self, label: str | None) -> str:
        made = str(self.market.foreign(label))
        self.foreign.add(made)
        return made

    def strangers(self) -> None:
        """The account is used by others as well: a person, another deployment, one with a name like ours."""
        other = ids.new_session_id()
        for label in (
            None,
            "my notebook",
            make_label("otherdep", other, 1),
            make_label(f"{deployment_id()}x", other, 1),
        ):
            self.stranger(label)

    # -- checks --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Whatever must hold at every moment."""
        ledger = self.market.ledger()
        made = self.contracts()
        self.secrets.update(contract["env"][AGENT_TOKEN] for contract in made if AGENT_TOKEN in contract["env"])
        invariants.every_machine_has_its_rental(made)
        invariants.no_label_twice(made)
        invariants.one_machine_per_session(made)
        invariants.foreign_machines_live([{**contract, "id": str(contract["id"])} for contract in ledger], self.foreign)
        invariants.every_live_machine_is_owed_or_wanted(made)
        invariants.closed_means_gone(ledger)
        invariants.no_false_end(self.broken)
        invariants.books_are_consistent()
        invariants.timelines_are_paths()

    def settle(self, logged: str) -> None:
        """No more faults, and everything comes to its end: nothing is left, and what it cost is right."""
        self.check()
        self.market.clear_faults()
        for session in Session.objects.exclude(status__in=[*FINAL, Status.STOPPING]):
            self.api.post(f"/sessions/{session.id}/done")
        self.until(lambda: not Rental.objects.filter(state__in=OPEN).exists(), step=15, rounds=80)
        self.check()
        invariants.nothing_is_left([each for each in self.market.ledger() if str(each["id"]) not in self.foreign])
        invariants.no_secret_shows(self.secrets, [logged])
        made = self.contracts()
        for session in Session.objects.all():
            rough = session.id in self.rough
            invariants.costs_agree(session, made, slack=timedelta(seconds=2), at_least_only=rough)

    def late(self) -> timedelta:
        """By how much the one machine outlived the end that its session had."""
        (contract,) = self.contracts()
        session = Session.objects.get()
        end = min(session.expires_at, session.hard_max_at)
        return timedelta(seconds=contract["destroyed_at"] - end.timestamp())

    def moves(self, session_id: str) -> list[str]:
        """The states that the rental went through."""
        return [event.to_state for event in self.events(session_id, "rental")]


def is_closed(rental: Rental) -> bool:
    return rental.state == Debt.CLOSED
