"""Consumers who rent, wait and end without pause, and remember every answer that they got."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.fleet import API, ask, until

#: What a well-behaved API may say to a create or an end. Anything else is a failure of ours.
FINE = frozenset({200, 201, 202, 404, 409, 503})
#: Sessions that a customer has at a time.
KEPT = 2


@dataclass(frozen=True, slots=True)
class Answer:
    at: float
    seconds: float
    method: str
    #: 0: none came.
    status: int
    body: Any = field(repr=False)

    @property
    def typed(self) -> bool:
        """In the one shape that every refusal has."""
        return self.status < 400 or {"error", "request_id"} <= self.body.keys()


def _not_now(answer: Answer) -> bool:
    """To be asked again: nobody answered, the database is away, or the same request's first try is still at work."""
    if answer.status == 503:
        return "error_type" not in answer.body
    return answer.status == 0 or (answer.status == 409 and answer.body.get("error_type") == "idempotency_in_progress")


class Load:
    """``ports``: the web processes, in turns. Each customer is a thread: rent, let go of the oldest, pause. When the
    offers are used up it only asks."""

    def __init__(self, ports: Sequence[int], offers: Sequence[str], customers: int = 3, pause: float = 0.5) -> None:
        self.answers: list[Answer] = []
        self.made: list[str] = []
        self.ended: list[str] = []
        self.ports = list(ports)
        self._turns = itertools.count()
        self._offers = deque(offers)
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(customers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody rents any more; the sessions stay as they are."""
        self._stop.set()
        for thread in self._threads:
            thread.join(200)
        if self._failed:
            raise AssertionError("a customer gave up") from self._failed[0]

    def _run(self, number: int) -> None:
        try:
            mine: deque[str] = deque()
            while not self._stop.is_set():
                mine.extend(filter(None, [self._rent(f"customer-{number}")]))
                if len(mine) > KEPT:
                    self._end(mine.popleft())
                self._stop.wait(self._pause)
        except BaseException as error:  # noqa: BLE001 - told to the test when it stops the load
            self._failed.append(error)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        began = time.monotonic()
        port = self.ports[next(self._turns) % len(self.ports)]
        try:
            status, told = ask(port, method, f"{API}{path}", body, **headers)
        except (OSError, http.client.HTTPException) as error:
            status, told = 0, repr(error)
        answer = Answer(began, time.monotonic() - began, method, status, told)
        self.answers.append(answer)
        return answer

    def _insist(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The same request until it is answered by more than "not now", as a client with its wits does."""
        deadline = time.monotonic() + 180
        while True:
            answer = self.call(method, path, body, **headers)
            if time.monotonic() > deadline or not _not_now(answer):
                return answer
            time.sleep(0.2)

    def _rent(self, customer: str) -> str:
        """The session, or nothing where the offer was gone."""
        with self._lock:
            offer = self._offers.popleft() if self._offers else ""
        if not offer:
            self.call("GET", "/sessions?limit=1")
            return ""
        body = {
            "consumer_id": customer, "offer_id": offer, "workload_type": "batch", "reservation_hours": 1,
            "ssh_key_type": "ed25519",
        }  # fmt: skip
        answer = self._insist("POST", "/sessions", body, Idempotency_Key=str(uuid.uuid4()), Prefer="wait=1")
        if answer.status != 201:
            return ""
        session_id = str(answer.body["session"]["id"])
        self.made.append(session_id)
        return session_id

    def _end(self, session_id: str) -> None:
        self._insist("DELETE", f"/sessions/{session_id}", Prefer="wait=0")
        self.ended.append(session_id)

    # -- what came of it ------------------------------------------------------------------------------------

    def since(self, moment: float, method: str = "") -> list[Answer]:
        return [each for each in self.answers if each.at >= moment and method in ("", each.method)]

    def improper(self) -> list[Answer]:
        """No answer at all, another one than the API has, or one without its shape."""
        return [each for each in self.answers if each.status not in FINE or not each.typed]

    def of(self, consumer: str) -> list[Any]:
        """Its sessions, by the API."""
        found: list[Any] = self.call("GET", f"/sessions?consumer_id={consumer}").body["sessions"]
        return found

    def statuses(self) -> Counter[str]:
        """Of the sessions that were made here, by the API."""
        found = self.call("GET", "/sessions?limit=10000")
        if found.status != 200:
            return Counter()
        return Counter(str(each["status"]) for each in found.body["sessions"] if each["id"] in self.made)

    def end_what_is_left(self) -> None:
        for session_id in self.made:
            if session_id not in self.ended:
                self._end(session_id)

    def end_all(self, seconds: float = 180.0) -> float:
        """End what is left, and wait until every session is over; how long that took."""
        self.end_what_is_left()
        over = {"stopped", "failed"}
        return until(lambda: bool(now := self.statuses()) and set(now) <= over, "all sessions are over", seconds, 0.3)

    def until_driven(self, seconds: float) -> float:
        """Until nobody boots or ends any more: all that is wanted runs, all else is over."""
        calm = {"running", "stopped", "failed"}
        return until(lambda: bool(now := self.statuses()) and set(now) <= calm, "all are driven on", seconds, 0.3)
