"""Driving many at once: ends and destroys in bulk come to the same as one by one, in turns, and without storms."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.models import MeterSegment
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.lanes import MOST_URGENT
from gpubroker.common.models import ProviderGate
from providers.base import MOST_TOGETHER, Instance, Phase, SSHEndpoint
from providers.labels import make_label
from sessions_app import claims, drive, reap, sightings
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Debt, Status
from tests.harness import MovableClock
from tests.interleave import Answer, Elsewhere, on_the_wire
from tests.sandbox import SandboxProcess
from tests.sessions_app import many

MANY, ONE = r"/api/v0/instances/$", r"/api/v0/instances/\d+/"
YES: Answer = (200, {}, json.dumps({"success": True}))
GONE: Answer = (200, {}, json.dumps({"instances": None}))
NO_SUCH: Answer = (404, {}, json.dumps({"success": False, "error": "no_such_instance", "msg": "Instance not found."}))
BROKEN: Answer = (502, {}, "<html>Bad Gateway</html>")


# -- ends -----------------------------------------------------------------------------------------------


def all_kinds() -> list[str]:
    """A session of every kind whose time is up, or not; their ids."""
    now = clock.now()
    up: dict[str, Any] = {"expires_at": now, "next_check_at": now}
    made = []
    for status, state, more in (
        (Status.PENDING, Debt.INTENDED, {}),
        (Status.PENDING, Debt.CREATING, {}),
        (Status.PENDING, Debt.UNKNOWN, {}),
        (Status.PROVISIONING, Debt.LIVE, {}),
        (Status.RUNNING, Debt.LIVE, {}),
        (Status.RUNNING, Debt.LIVE, {"storage_policy": "preserve", "preserve_hours": 24}),
        (Status.RUNNING, Debt.LIVE, {"hard_max_at": now}),
    ):
        of = many.session(status, **{**up, **more})
        many.rental(of, state, next_check_at=None)
        made.append(of.id)
    made.append(many.session(Status.RUNNING, **up).id)  # whose rental is closed already
    extended = many.session(Status.RUNNING, next_check_at=now)
    many.rental(extended)
    return [*made, extended.id]


def told(ids: list[str]) -> list[Any]:
    """Everything that an end writes, without ids and times."""
    sessions = [
        Session.objects.filter(id=item).values_list("status", "end_reason", "end_message", "next_probe_at").get()
        for item in ids
    ]
    rentals = [
        list(Rental.objects.filter(session_id=item).values_list("state", "proof__answer", "broker_key_sealed"))
        for item in ids
    ]
    due = [[each.next_check_at is None for each in Rental.objects.filter(session_id=item)] for item in ids]
    events = [
        sorted(Event.objects.filter(session_id=item).values_list("kind", "from_state", "to_state", "reason", "actor"))
        for item in ids
    ]
    return [sessions, rentals, due, events]


@pytest.mark.django_db
def test_ends_in_bulk_are_the_same_as_ends_one_by_one() -> None:
    together, apart = all_kinds(), all_kinds()
    drive.end_due(together)
    for session_id in apart:
        drive.end_due([session_id])
    assert told(together) == told(apart)
    statuses = [Session.objects.get(id=item).status for item in together]
    assert statuses == ["stopped", *["stopping"] * 6, "stopped", "running"]
    reasons = {Session.objects.get(id=item).end_reason for item in together[:-1]}
    assert reasons == {"expired"}


@pytest.mark.django_db
def test_ticks_end_everybody_whose_time_is_up() -> None:
    now = clock.now()
    up = [many.session(expires_at=now, next_check_at=now) for _ in range(5)]
    for each in up:
        many.rental(each)
    later = many.session()
    drive.tick()
    assert {Session.objects.get(id=each.id).status for each in up} == {"stopping"}
    assert Session.objects.get(id=later.id).status == "running"
    assert Rental.objects.filter(state=Debt.DESTROYING).count() == 5


@contextmanager
def refusing(session_id: str) -> Iterator[None]:
    """The database does not take an event of this session."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('INSERT INTO "sessions_app_event"') and session_id in repr(params):
            raise ArithmeticError("this row is broken")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield


@pytest.mark.django_db
def test_one_bad_row_does_not_keep_the_others_alive(caplog: pytest.LogCaptureFixture) -> None:
    now = clock.now()
    ids = [many.session(expires_at=now, next_check_at=now).id for _ in range(6)]
    for each in ids:
        many.rental(Session.objects.get(id=each))
    with refusing(ids[2]):
        drive.tick()
    statuses = [Session.objects.get(id=each).status for each in ids]
    assert statuses == ["stopping", "stopping", "running", "stopping", "stopping", "stopping"]
    assert not Event.objects.filter(session_id=ids[2]).exists()
    assert f"session {ids[2]} cannot be ended" in caplog.text


@pytest.mark.django_db
def test_queries_do_not_grow_with_the_batch() -> None:
    counts = []
    for size in (10, 90):
        now = clock.now()
        ids = [many.session(expires_at=now, next_check_at=now).id for _ in range(size)]
        for each in ids:
            many.rental(Session.objects.get(id=each))
        with CaptureQueriesContext(connection) as asked:
            drive.end_due(ids)
        counts.append(len(asked))
        assert Session.objects.filter(id__in=ids, status=Status.STOPPING).count() == size
    assert counts[0] == counts[1]


# -- destroys -------------------------------------------------------------------------------------------


def pay(*owed: Rental) -> None:
    reap.pay_all("vastai", [each.id for each in owed])


def fresh(owed: Rental) -> Rental:
    return Rental.objects.get(id=owed.id)


@pytest.mark.django_db
def test_destroys_go_together_and_each_is_proved_by_itself(sandbox: SandboxProcess, time: MovableClock) -> None:
    owed = [many.debt() for _ in range(MOST_TOGETHER + 3)]
    asked: list[list[int]] = []

    def take(request: Any, call: int) -> Answer:
        asked.append(json.loads(request.body)["instance_ids"])
        return YES

    looks = ("GET", ONE, lambda request, call: GONE)
    with on_the_wire(sandbox, ("DELETE", MANY, take), looks) as calls:
        pay(*owed)
        assert calls == [1, 2]
        assert [len(ids) for ids in asked] == [MOST_TOGETHER, 3]
        assert [str(number) for ids in asked for number in ids] == [each.instance_id for each in owed]
        row = fresh(owed[0])
        assert (row.state, row.destroy_taken, row.destroy_attempts) == (Debt.DESTROYING, False, 1)
        assert row.destroy_answered_at is not None
        events = Event.objects.filter(kind="destroy_accepted")
        assert events.count() == len(owed)
        assert events.get(rental=owed[0]).details == {
            "instance_id": owed[0].instance_id, "attempt": 1, "machines_in_the_call": MOST_TOGETHER,
        }  # fmt: skip
        time.advance(seconds=2)
        pay(owed[0])
    assert fresh(owed[0]).state == Debt.CLOSED
    assert fresh(owed[1]).state == Debt.DESTROYING


@pytest.mark.django_db
def test_one_answer_for_many_proves_nothing_for_a_fresh_machine(sandbox: SandboxProcess) -> None:
    owed = [many.debt(accepted_at=clock.now()) for _ in range(2)]
    routes = ("DELETE", MANY, lambda request, call: YES), ("GET", ONE, lambda request, call: GONE)
    with on_the_wire(sandbox, *routes):
        pay(*owed)
        pay(*owed)
    assert {fresh(each).state for each in owed} == {Debt.DESTROYING}
    assert "too young" in fresh(owed[0]).last_error


@pytest.mark.django_db
def test_one_bad_id_does_not_block_the_others(sandbox: SandboxProcess) -> None:
    owed = [many.debt() for _ in range(5)]

    def singly(request: Any, call: int) -> Answer:
        return NO_SUCH if owed[0].instance_id in request.path_url else YES

    routes = ("DELETE", MANY, lambda request, call: NO_SUCH), ("DELETE", ONE, singly)
    with on_the_wire(sandbox, *routes, ("GET", ONE, lambda request, call: GONE)) as calls:
        pay(*owed)
    assert calls == [1]
    assert {fresh(each).state for each in owed} == {Debt.CLOSED}
    assert Event.objects.filter(kind="destroy_refused").count() == 5
    assert [fresh(each).destroy_taken for each in owed] == [False, True, True, True, True]


@pytest.mark.django_db
def test_provider_that_fails_is_asked_once_and_the_others_wait(sandbox: SandboxProcess) -> None:
    owed = [many.debt() for _ in range(MOST_TOGETHER + 10)]
    before = clock.now()
    with on_the_wire(sandbox, ("DELETE", MANY, lambda request, call: BROKEN)) as calls:
        pay(*owed)
    assert calls == [1]
    assert [fresh(each).destroy_failures for each in owed] == [1] * MOST_TOGETHER + [0] * 10
    dues = {fresh(each).next_check_at for each in owed}
    assert all(before < at < before + timedelta(seconds=15) for at in dues if at is not None)
    assert None not in dues
    sizes: list[int] = []

    def take(request: Any, call: int) -> Answer:
        sizes.append(len(json.loads(request.body)["instance_ids"]))
        return YES

    with on_the_wire(sandbox, ("DELETE", MANY, take)):
        pay(*owed)
    assert sizes == [MOST_TOGETHER, 10], "they stay together: the provider was unwell, not they"


@pytest.mark.django_db
def test_too_early_is_nobodys_fault_and_they_stay_together(sandbox: SandboxProcess) -> None:
    owed = [many.debt() for _ in range(5)]
    early: Answer = (429, {}, json.dumps({"detail": "API requests too frequent endpoint threshold=3.0"}))
    with on_the_wire(sandbox, ("DELETE", MANY, lambda request, call: early)) as calls:
        pay(*owed)
    assert calls == [1]
    assert {fresh(each).destroy_failures for each in owed} == {0}
    assert {(fresh(each).next_check_at or clock.now()) > clock.now() + timedelta(seconds=1) for each in owed} == {True}


@pytest.mark.django_db
def test_machine_that_waits_for_its_look_is_not_asked_again(sandbox: SandboxProcess, settings: Any) -> None:
    settings.PROVIDER_PACE = 1
    ProviderGate.objects.create(key="vastai:get_instance", next_allowed_at=clock.now() + timedelta(seconds=30))
    owed = many.debt(destroy_answered_at=clock.now() - timedelta(hours=1), destroy_attempts=1)
    with on_the_wire(sandbox, ("DELETE", ONE, lambda request, call: YES)) as calls:
        pay(owed)
        assert calls == []
    assert fresh(owed).destroy_attempts == 1


@pytest.mark.django_db
def test_gate_holds_the_rest_and_is_not_stormed(sandbox: SandboxProcess, settings: Any, time: MovableClock) -> None:
    settings.PROVIDER_PACE = 1
    owed = [many.debt() for _ in range(2 * MOST_TOGETHER)]
    with on_the_wire(sandbox, ("DELETE", MANY, lambda request, call: YES)) as calls:
        pay(*owed)
        assert calls == [1]
        gate = ProviderGate.objects.get(key="vastai:destroy").next_allowed_at
        held = [fresh(each) for each in owed[MOST_TOGETHER:]]
        assert {each.destroy_failures for each in held} == {0}
        assert all(each.next_check_at and abs(each.next_check_at - gate) < timedelta(seconds=1) for each in held)
        assert claims.due().debts.get("vastai", []) == []
        time.advance(seconds=3.5)
        pay(*held)
    assert calls == [1, 2]
    assert not Rental.objects.filter(destroy_answered_at__isnull=True).exists()


@pytest.mark.django_db
def test_held_look_does_not_shorten_the_pause_after_a_refusal(sandbox: SandboxProcess, settings: Any) -> None:
    settings.PROVIDER_PACE = 1
    owed = many.debt(destroy_failures=7)
    ProviderGate.objects.create(key="vastai:get_instance", next_allowed_at=clock.now() + timedelta(seconds=1.5))
    with on_the_wire(sandbox, ("DELETE", ONE, lambda request, call: BROKEN)):
        pay(owed)
    due = fresh(owed).next_check_at
    assert due is not None
    assert due - clock.now() > timedelta(seconds=50)


@pytest.mark.django_db
def test_looks_stop_where_the_gate_closes(sandbox: SandboxProcess, settings: Any) -> None:
    settings.PROVIDER_PACE = 1
    owed = [many.debt(destroy_answered_at=clock.now()) for _ in range(4)]
    with on_the_wire(sandbox, ("GET", ONE, lambda request, call: GONE)) as looks:
        pay(*owed)
    assert looks == [1]
    assert [fresh(each).state for each in owed] == [Debt.CLOSED, *[Debt.DESTROYING] * 3]
    assert len({fresh(each).next_check_at for each in owed[2:]}) == 1


@pytest.mark.django_db
def test_queries_of_a_bulk_destroy_do_not_grow(sandbox: SandboxProcess) -> None:
    counts = []
    for size in (5, 50):
        owed = [many.debt() for _ in range(size)]
        with (
            on_the_wire(sandbox, ("DELETE", MANY, lambda request, call: YES)),
            CaptureQueriesContext(connection) as sql,
        ):
            pay(*owed)
        counts.append(len(sql))
        assert not Rental.objects.filter(id__in=[each.id for each in owed], destroy_answered_at__isnull=True).exists()
    # The first call of all also makes the gate's row.
    assert counts[1] <= counts[0]


@pytest.mark.django_db
def test_who_works_keeps_the_lease_and_who_died_lets_go_soon(sandbox: SandboxProcess, time: MovableClock) -> None:
    owed = [many.debt(destroy_failures=4) for _ in range(4)]
    ids = [each.id for each in owed]
    assert claims.take_rentals(ids) == ids
    left: list[list[float]] = []

    def slow(request: Any, call: int) -> Answer:
        waiting = [fresh(each) for each in owed[call - 1 :]]
        left.append([(each.next_check_at - clock.now()).total_seconds() for each in waiting if each.next_check_at])
        time.advance(seconds=9)
        return NO_SUCH

    with on_the_wire(sandbox, ("DELETE", ONE, slow), ("GET", ONE, lambda request, call: GONE)):
        pay(*owed)
    assert [len(each) for each in left] == [4, 3, 2, 1]
    # Nobody's lease is older than the last call; with none kept, the last would be over by 12 s.
    assert all(8 < seconds <= 15 for each in left for seconds in each)
    assert {fresh(each).state for each in owed} == {Debt.CLOSED}


@pytest.mark.django_db
def test_a_dead_destroyers_debt_is_free_again_soon(time: MovableClock) -> None:
    owed = many.debt()
    assert claims.take_rentals([owed.id]) == [owed.id]
    assert claims.take_rentals([owed.id]) == []
    time.advance(seconds=15)
    assert claims.take_rentals([owed.id]) == [owed.id]


@pytest.mark.django_db
def test_machines_that_answered_are_destroyed_before_anybody_looks_at_them(
    sandbox: SandboxProcess, time: MovableClock
) -> None:
    """No listing has come since they answered: what they cost is known from that, and the destroys wait for no look."""
    ran = clock.now() - timedelta(minutes=10)
    owed = [many.debt(gpu_from=None, gpu_rate=None, last_seen_at=ran) for _ in range(9)]
    Session.objects.update(running_at=ran)
    looks: list[int] = []

    def look(request: Any, call: int) -> Answer:
        looks.append(call)
        return GONE

    with on_the_wire(sandbox, ("DELETE", MANY, lambda request, call: YES), ("GET", ONE, look)):
        pay(*owed)
    assert looks == []
    for each in owed:
        segment = MeterSegment.objects.get(rental_id=each.id, kind="gpu")
        assert (segment.started_at, segment.rate_per_hour, segment.ended_at) == (ran, Decimal("0.5"), None)


# -- listings ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_queries_of_a_first_listing_hardly_grow(sandbox: SandboxProcess) -> None:
    counts = []
    for size in (10, 90):
        machines = [many.rental(many.session(Status.PROVISIONING)) for _ in range(size)]
        there = (SSHEndpoint("203.0.113.9", 22, "root"),)
        price = Decimal("0.5")
        listed = [
            Instance(each.instance_id, each.label, Phase.RUNNING, "running", "", there, gpu_price_per_hour=price)
            for each in machines
        ]
        seen = [
            (Rental.objects.select_related("session").get(id=each.id), i)
            for each, i in zip(machines, listed, strict=True)
        ]
        with CaptureQueriesContext(connection) as sql:
            sightings.note_all(seen, clock.now())
        counts.append(len(sql))
        addresses = Event.objects.filter(kind="address", rental__in=machines)
        assert addresses.count() == size
        assert Session.objects.filter(rentals__in=machines, ssh_host="203.0.113.9", ssh_port=22).count() == size
        assert (
            Rental.objects.filter(id__in=[e.id for e in machines], price_actual=price, gpu_rate=price).count() == size
        )
    # The meter's columns are written machine by machine; nothing else is, but that SQLite takes only so many
    # parameters in one insert.
    assert counts[1] - counts[0] in (80, 81)


# -- a provider that takes connections and never says a word ----------------------------------------------


class Deaf:
    """Its address, and the connections that it let hang."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.hanging: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.hanging.append(self.server.accept()[0])

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join(10)
        for each in self.hanging:
            each.close()


@pytest.mark.django_db(transaction=True)
def test_deaf_provider_does_not_delay_anothers_destroy(market_with_threads: SandboxProcess, settings: Any) -> None:
    deaf = Deaf()
    settings.TENSORDOCK_API_TOKEN, settings.TENSORDOCK_BASE_URL = "token", deaf.url
    configured.configured.cache_clear()
    hung = [many.debt(provider="tensordock", instance_id=str(uuid.uuid4())) for _ in range(MOST_URGENT + 1)]
    calls = [Elsewhere(partial(reap.pay_all, "tensordock", [each.id])) for each in hung]
    for call in calls:
        call.thread.start()
    until(lambda: len(deaf.hanging) == MOST_URGENT and sum(each.thread.is_alive() for each in calls) == MOST_URGENT)
    machine = market_with_threads.foreign(make_label("testdep", "sess-" + "a" * 16, 1))
    owed = many.debt(instance_id=str(machine))
    assert claims.due().debts["vastai"] == [owed.id]
    pay(owed)
    assert fresh(owed).state == Debt.CLOSED
    deaf.close()
    for call in calls:
        call.finish()
    assert {fresh(each).state for each in hung} == {Debt.DESTROYING}
    assert all(each.next_check_at for each in Rental.objects.filter(provider="tensordock"))


def until(done: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not done():
        assert monotonic() < deadline, "not within 20 s"
        clock.pause(0.02)
