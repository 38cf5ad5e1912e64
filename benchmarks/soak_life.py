"""Who lives in a soak: consumers with plans, and everything that goes wrong around them."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.test import Client

from benchmarks.soak_books import Caused
from gpubroker.common import clock, ids
from gpubroker.common.deployment import deployment_id
from providers.labels import make_label
from sessions_app.models import Rental, Session
from sessions_app.states import Status
from tests.harness import offers_on_different_machines, refresh_offers
from tests.sandbox import SandboxProcess

#: What a session's own create, boot and machine suffer; armed for its label before anybody has asked for the machine.
CREATES: tuple[dict[str, Any], ...] = (
    {"kind": "lost_answer"},
    {"kind": "error_after"},
    {"kind": "truncated_json"},
    {"kind": "truncated_json", "mid_stream": True},
    {"kind": "malformed", "operation": "create"},
    {"kind": "slow", "operation": "create", "seconds": 1.5, "after": True},
    {"kind": "error_5xx", "operation": "create"},
    {"kind": "rate_limited", "operation": "create", "threshold": 2},
    {"kind": "auth_error", "operation": "create"},
    {"kind": "success_false", "operation": "create"},
    {"kind": "success_false", "operation": "create", "contract": True},
    {"kind": "insufficient_credit"},
    {"kind": "offer_gone"},
    {"kind": "ssh_attach_fail", "times": 2},
    {"kind": "boot_never"},
    {"kind": "boot_exited"},
    {"kind": "boot_error", "mode": "oci"},
    {"kind": "boot_error", "mode": "pull"},
    {"kind": "listing_lag", "seconds": 20},
    {"kind": "no_ssh"},
    {"kind": "no_ssh", "mode": "hang"},
    {"kind": "ssh_delay", "seconds": 30},
    {"kind": "no_driver"},
    {"kind": "wrong_gpu"},
)
#: What its end suffers.
DESTROYS: tuple[dict[str, Any], ...] = (
    {"kind": "refuse_destroy", "mode": "silent", "times": 2},
    {"kind": "refuse_destroy", "mode": "error", "times": 3},
    {"kind": "refuse_destroy", "mode": "slow", "seconds": 40},
    {"kind": "error_5xx", "operation": "destroy", "times": 3},
    {"kind": "malformed", "operation": "destroy"},
    {"kind": "rate_limited", "operation": "destroy", "threshold": 3},
    {"kind": "slow", "operation": "destroy", "seconds": 1},
)
#: What everybody suffers.
LISTINGS: tuple[dict[str, Any], ...] = (
    {"kind": "empty_listing"},
    {"kind": "partial_listing"},
    {"kind": "partial_listing", "consistent": True},
    {"kind": "error_5xx", "operation": "list", "times": 2},
    {"kind": "rate_limited", "operation": "list", "threshold": 2},
    {"kind": "malformed", "operation": "list"},
    {"kind": "error_5xx", "operation": "get", "times": 2},
)
#: What happens to machines: names of methods below.
EVENTS = ("die_offline", "die_exited", "lose_keys", "appear_as_orphan", "appear_as_somebody_elses", "take_an_offer")
ENDS = (("done", 0.35), ("delete", 0.35), ("expire", 0.15), ("extend", 0.1), ("preserve", 0.05))


class Life:
    """Sessions begin and end by a plan that the seed decides; ``due`` is when something is to happen next."""

    def __init__(self, market: SandboxProcess, sessions: int, faults: float, seed: int, minutes: float) -> None:
        self.market, self.left, self.share, self.minutes = market, sessions, faults, minutes
        self.chance = random.Random(seed)
        self.client = Client(raise_request_exception=False)
        self.caused = Caused()
        #: Faults that are cleared already, with their hits.
        self.struck: list[dict[str, Any]] = []
        self._plan: list[tuple[datetime, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._offers: list[str] = []
        troubles: list[dict[str, Any] | str] = [*CREATES, *DESTROYS, *LISTINGS, *EVENTS]
        self.chance.shuffle(troubles)
        self._troubles = itertools.cycle(troubles)

    @property
    def due(self) -> datetime | None:
        return self._plan[0][0] if self._plan else None

    def act(self) -> None:
        """Everything whose time has come."""
        while self._plan and self._plan[0][0] <= clock.now():
            heapq.heappop(self._plan)[2]()

    def later(self, minutes: float, what: Callable[[], None]) -> None:
        """On a grid of half minutes, so that much happens at once."""
        at = clock.now() + timedelta(minutes=minutes)
        at += timedelta(seconds=30 - at.timestamp() % 30)
        heapq.heappush(self._plan, (at, next(self._numbers), what))

    def prepare(self) -> None:
        """An inventory, and one request, so that no worker is forked in the middle of a first import."""
        self._offers = self._fresh_offers()
        self._call("GET", "/sessions", None)

    def clear_faults(self) -> None:
        """Keeps what struck."""
        told = self.market.faults()
        self.struck += [*told["spent"], *told["armed"]]
        self.market.clear_faults()

    # -- consumers -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """One more session, with its plan, and perhaps with trouble."""
        end = self.chance.choices([name for name, _ in ENDS], [weight for _, weight in ENDS])[0]
        body: dict[str, Any] = {
            "consumer_id": f"soak-{next(self._numbers) % 20}", "offer_id": self._offer(),
            "workload_type": "batch", "reservation_hours": 1,
        }  # fmt: skip
        if self.chance.random() < 0.5:
            body |= {"auto_retry": True, "max_retries": 2, "retry_scope": "any"}
        if end == "preserve":
            body |= {"storage_policy": "preserve", "preserve_hours": 1}
        status, answer = self._call("POST", "/sessions", body)
        if status in (404, 409):
            return  # somebody took that offer: another one, next time
        if status != 201:
            raise RuntimeError(f"POST /sessions: {status} {answer}")
        self.left -= 1
        session_id = str(answer["session"]["id"])
        self.caused.asked[session_id] = {"expired", "hard_max"}
        self._promise(session_id, end)
        if self.chance.random() < self.share:
            self._trouble(session_id, next(self._troubles))

    def _promise(self, session_id: str, end: str) -> None:
        after = self.chance.uniform(0.5, self.minutes)
        if end == "extend":
            self.later(after, lambda: self._ask(session_id, "POST", f"/sessions/{session_id}/extend", 1))
            self.later(after + 61, lambda: self._ask(session_id, "POST", f"/sessions/{session_id}/done"))
        elif end == "delete":
            self.later(after, lambda: self._ask(session_id, "DELETE", f"/sessions/{session_id}"))
        elif end in ("done", "preserve"):
            self.later(after, lambda: self._ask(session_id, "POST", f"/sessions/{session_id}/done"))

    def _ask(self, session_id: str, method: str, path: str, hours: int = 0) -> None:
        """A refusal changes nothing, and is what it is: the session may be over already."""
        if not hours:
            self.caused.asked[session_id].add("deleted" if method == "DELETE" else "done")
        status, answer = self._call(method, path, {"additional_hours": hours} if hours else None)
        if status not in (200, 202, 409):
            raise RuntimeError(f"{method} {path}: {status} {answer}")

    def _call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        data = "" if body is None else json.dumps(body)
        headers = {"Prefer": "wait=0", "Host": "127.0.0.1"}
        answer = self.client.generic(method, f"/api/v1{path}", data, content_type="application/json", headers=headers)
        return answer.status_code, answer.json()

    def _offer(self) -> str:
        if not self._offers:
            self._offers = self._fresh_offers()
        return self._offers.pop()

    def _fresh_offers(self) -> list[str]:
        refresh_offers()
        found = offers_on_different_machines(60)
        self.chance.shuffle(found)
        return found

    # -- what goes wrong -----------------------------------------------------------------------------------

    def _trouble(self, session_id: str, what: dict[str, Any] | str) -> None:
        label = Rental.objects.get(session_id=session_id).label
        if isinstance(what, str):
            self.later(self.chance.uniform(0.2, self.minutes / 2), lambda: getattr(self, what)(session_id))
        elif what in LISTINGS:
            self.later(self.chance.uniform(0.1, 2), lambda: self._arm(what))
        else:
            self.caused.troubled.add(session_id)
            if what in DESTROYS:
                self.caused.refusing.add(label)
            self._arm({**what, "label": label})

    def _arm(self, fault: dict[str, Any]) -> None:
        self.market.fault(**fault)

    def _machine(self, session_id: str) -> str:
        """Of a session that runs; empty if it does not."""
        running = Session.objects.filter(id=session_id, status=Status.RUNNING)
        return str(running.values_list("rentals__instance_id", flat=True).last() or "")

    def die_offline(self, session_id: str, status: str = "offline") -> None:
        """Its host is gone."""
        if machine := self._machine(session_id):
            self.caused.died[machine] = clock.now().timestamp()
            self.market.machine_dies(machine, status)

    def die_exited(self, session_id: str) -> None:
        """Its container has ended."""
        self.die_offline(session_id, "exited")

    def lose_keys(self, session_id: str) -> None:
        """The vendor forgets its keys, as vendors do."""
        if machine := self._machine(session_id):
            self.market.admin("POST", f"instances/{machine}/wipe-keys")

    def appear_as_orphan(self, session_id: str) -> None:
        """A machine with our label that is in no book."""
        machine = self.market.foreign(make_label(deployment_id(), ids.new_session_id(), 1))
        self.caused.orphans[str(machine)] = clock.now().timestamp()

    def appear_as_somebody_elses(self, session_id: str) -> None:
        """Another deployment on the same account, or a person."""
        label = self.chance.choice([make_label("otherdep", ids.new_session_id(), 1), "somebody's own", None])
        self.caused.foreign.add(str(self.market.foreign(label)))

    def take_an_offer(self, session_id: str) -> None:
        """Somebody else rents what our inventory still shows."""
        self.market.take_offer(self._offer().removeprefix("vastai-"))
