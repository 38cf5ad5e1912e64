"""What a deployment goes through, gone through: its queue is lost, its database restarted, workers are killed, its web
processes are replaced. On real processes and servers, under load, and held against the marketplace's ledger after."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle

import pytest

from tests import servers
from tests.fleet import API, Fleet, ask, fleet, until
from tests.load import Load
from tests.sandbox import SandboxProcess

# All of it on one worker: what the module's fixture starts is dear.
pytestmark = pytest.mark.xdist_group("outages")

SETTINGS = {"PROVIDER_PACE": "0.05", "LISTING_LAG_SECONDS": "10", "SSH_CHECK_SECONDS": "0.5", "RECONCILE_SECONDS": "2"}


class World:
    """A fleet and what it stands on."""

    def __init__(self, made: Fleet, database: servers.Postgres, queue: servers.Valkey) -> None:
        self.fleet, self.database, self.queue = made, database, queue

    @contextmanager
    def without(self, server: servers.Postgres | servers.Valkey, how: signal.Signals) -> Iterator[float]:
        """Since when it is away. It comes back on the same port, whatever happens."""
        server.stop(how)
        try:
            yield time.monotonic()
        finally:
            server.start()

    def load(self, *names: str) -> Load:
        """Customers of those web processes."""
        return Load([self.fleet.ports[name] for name in names], self.fleet.offers(names[0], 150))

    def driven_on(self, load: Load) -> None:
        """Whatever was under way has gone on: at the latest when the longest lease is over."""
        try:
            load.until_driven(180)
        except AssertionError:
            raise AssertionError(f"not driven on:\n{self.fleet.open_rows()}") from None

    def settled(self, load: Load) -> None:
        """The end of every test: everything was answered properly, comes to its end, and no rule is broken."""
        load.stop()
        load.end_all()
        assert load.improper() == []
        assert self.fleet.broken_rules() == ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One of each role, ready; PostgreSQL and Valkey of their own."""
    folder = tmp_path_factory.mktemp("fleet")
    options = {"boot_seconds": 0.5, "credit": 100_000, "offers": 640}
    with (
        # What is committed stays, also when the server crashes: everything rests on that (rule I1).
        servers.postgres_server(synchronous_commit="on") as database,
        servers.valkey_server() as queue,
        SandboxProcess(folder / "market", **options) as market,
        fleet(folder, database, queue, market, **SETTINGS) as made,
    ):
        for name in ("web-a", "worker-a", "beat-a"):
            made.start(name)
        made.wait_ready("web-a")
        yield World(made, database, queue)


def running(load: Load, count: int) -> None:
    until(lambda: load.statuses()["running"] >= count, f"{count} sessions run")


@pytest.mark.timeout(600)
def test_the_queue_is_lost_under_load(world: World) -> None:
    """Creates and ends go on being accepted, and are done as soon as there is a queue again."""
    with world.load("web-a") as load:
        running(load, 2)
        with world.without(world.queue, signal.SIGKILL) as lost_at:
            until(lambda: len(load.since(lost_at, "POST")) >= 6, "creates are asked for without a queue")
            until(lambda: len(load.since(lost_at, "DELETE")) >= 3, "ends are asked for without a queue")
            assert {each.status for each in load.since(lost_at)} <= {200, 201, 202, 404, 409}
            assert {each.status for each in load.since(lost_at, "POST")} >= {201}
            assert max(each.seconds for each in load.since(lost_at)) < 30
            assert world.fleet.status("web-a", "/ready") == 200
        load.stop()
        world.driven_on(load)
        world.settled(load)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_the_database_is_restarted_under_load(world: World, how: signal.Signals) -> None:
    """503 in the API's own shape while it is away, and nothing else; then everything goes on."""
    with world.load("web-a") as load:
        running(load, 2)
        with world.without(world.database, how) as lost_at:
            until(lambda: sum(one.status == 503 for one in load.since(lost_at)) >= 4, "refusals without a database")
            assert world.fleet.status("web-a", "/ready") == 503
            assert world.fleet.status("web-a", "/health") == 503
        back_at = time.monotonic()
        until(lambda: world.fleet.status("web-a", "/ready") == 200, "ready again")
        until(lambda: any(one.status == 201 for one in load.since(back_at, "POST")), "creates again")
        load.stop()
        world.driven_on(load)
        world.settled(load)
        refused = [one for one in load.since(lost_at) if one.status == 503 and one.at < back_at]
        assert {one.body["error"] for one in refused} == {"the database is not available, try again"}


class Clients:
    """Threads that ask the web processes in turns without pause, and only know how to go on to the next one when they
    are refused. Any other trouble is a request without an answer."""

    def __init__(self, ports: Sequence[int], count: int = 4) -> None:
        self.unanswered: list[BaseException] = []
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=([*ports[number % 2 :], *ports[: number % 2]],), daemon=True)
            for number in range(count)
        ]

    def _run(self, ports: Sequence[int]) -> None:
        turns = cycle(ports)
        while not self._over.is_set():
            try:
                self.statuses.append(ask(next(turns), "GET", f"{API}/sessions?limit=1")[0])
            except ConnectionRefusedError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, there was no answer
                self.unanswered.append(error)

    def __enter__(self) -> Clients:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join(100)


@pytest.mark.timeout(600)
def test_replacing_web_processes_drops_no_request(world: World) -> None:
    """One is stopped and started anew, then the other is stopped, while clients ask both. A create that waits for its
    verdict when the signal comes is answered in full."""
    names = ("web-a", "web-b")
    world.fleet.start("web-b")
    world.fleet.wait_ready("web-b")
    offers = world.fleet.offers("web-a", 2)
    load = Load([world.fleet.ports["web-a"]], offers, customers=0)
    world.fleet.market.fault("slow", operation="create", seconds=6, times=2)
    with Clients([world.fleet.ports[name] for name in names]) as clients, ThreadPoolExecutor(1) as pool:
        for name, offer in zip(names, offers, strict=True):
            body = {"consumer_id": name, "offer_id": offer, "workload_type": "batch", "reservation_hours": 1}
            asked = time.monotonic()
            create = pool.submit(ask, world.fleet.ports[name], "POST", f"{API}/sessions", body, Prefer="wait=3")
            load.ports = [world.fleet.ports[name]]
            until(lambda: load.of(name) != [], "the create is under way")  # noqa: B023 - called at once
            assert world.fleet.stop(name) == 0
            status, answer = create.result(90)
            # It had its time, although its server was told to go.
            assert (status, time.monotonic() - asked >= 3) == (201, True)
            load.made.append(answer["session"]["id"])
            if name == "web-a":
                world.fleet.start(name)
                world.fleet.wait_ready(name)
    assert clients.unanswered == []
    assert set(clients.statuses) == {200}
    assert len(clients.statuses) > 20
    load.ports = [world.fleet.ports["web-a"]]
    world.settled(load)


@pytest.mark.timeout(600)
def test_two_hosts_two_schedulers_and_workers_that_are_killed(world: World) -> None:
    """As on two machines; one worker or the other is killed again and again while sessions begin and end."""
    for name in ("web-b", "worker-b", "beat-b"):
        world.fleet.start(name)
    world.fleet.wait_ready("web-b")
    with world.load("web-a", "web-b") as load:
        running(load, 1)
        for name in ("worker-a", "worker-b", "worker-a"):
            answered = time.monotonic()
            until(lambda: len(load.since(answered, "POST")) >= 3, "creates")  # noqa: B023 - called at once
            world.fleet.kill(name)
            world.fleet.start(name)
        load.stop()
    load.end_what_is_left()
    # A create that was under way when its worker was killed is found by its label, if it made a machine; if it made
    # none, its rental waits for the end of its lease, and nobody pays for anything.
    until(lambda: world.fleet.market.alive() == [], "no machine is left", 180, 0.5)
    assert load.improper() == []
    assert world.fleet.broken_rules(over=False) == ""
    for name in ("web-b", "worker-b", "beat-b"):
        assert world.fleet.stop(name) == 0
