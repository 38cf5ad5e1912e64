"""The inventory in memory: who looks at the database, when, and what is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from offers import snapshot
from offers.models import ProviderInventory
from offers.rendered import Rendered
from tests.harness import Api
from tests.offers.factory import apply, row


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "inventory-watcher"]


@pytest.fixture
def watched(transactional_db: None, settings: Any) -> Iterator[None]:
    settings.INVENTORY_WATCH = True
    yield
    settings.INVENTORY_WATCH = False
    for thread in watchers():
        thread.join(5)
    snapshot.forget()


def until_total(api: Api, total: int) -> None:
    deadline = time.monotonic() + 5
    while api.get("/inventory")["total"] != total:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_never_ask_the_database_while_the_watcher_looks(watched: None, api: Api) -> None:
    apply([row("1")])
    until_total(api, 1)
    with CaptureQueriesContext(connection) as captured:
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            assert api.get("/inventory")["total"] == 1
            time.sleep(0.1)
    assert len(captured) == 0
    assert len(watchers()) == 1


def test_the_watcher_brings_what_another_process_wrote(watched: None, api: Api) -> None:
    apply([row("1")])
    until_total(api, 1)
    before = snapshot.current()
    # As another process would: without telling this one.
    from_elsewhere = [row("1"), row("2")]
    threading.Thread(target=apply, args=(from_elsewhere,)).start()
    until_total(api, 2)
    assert snapshot.current().version > before.version


def test_a_database_that_is_away_leaves_the_watcher_alive(watched: None, api: Api) -> None:
    apply([row("1")])
    until_total(api, 1)
    ProviderInventory.objects.all().delete()
    until_total(api, 1)
    assert len(watchers()) == 1


@pytest.mark.django_db
def test_without_a_watcher_a_request_looks_at_most_once_a_second(api: Api) -> None:
    apply([row("1")])
    api.get("/inventory")
    with CaptureQueriesContext(connection) as captured:
        ends = time.monotonic() + 1.2
        while time.monotonic() < ends:
            api.get("/inventory")
            time.sleep(0.1)
    assert len(captured) in (1, 2)
    assert all("providerinventory" in query["sql"] for query in captured)


@pytest.mark.django_db
def test_a_request_that_must_look_says_when_it_cannot(api: Api) -> None:
    apply([row("1")])

    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("could not connect")

    with connection.execute_wrapper(away):
        assert api.get("/inventory", 503)["error"] == "the database is not available, try again"
    assert api.get("/inventory")["total"] == 1


@pytest.mark.django_db
def test_vendors_rows_are_loaded_once_and_shared() -> None:
    apply([row("1", raw={"cpu_name": "Xeon", "search": {"a": 1}, "gone": None, "num_gpus": 2})])
    held = snapshot.current()
    with CaptureQueriesContext(connection) as captured:
        first = held.raw.get()
        assert held.raw.get() is first
    assert len(captured) == 1
    assert first == {"vastai-1": {"cpu_name": "Xeon", "num_gpus": 2}}


def test_rendered_answers_are_bounded_by_number_and_weight() -> None:
    kept: Rendered[bytes] = Rendered(max_entries=3, max_bytes=40)
    for number in range(5):
        assert kept.get(number, lambda number=number: b"x" * number) == b"x" * number  # type: ignore[misc]
    assert (len(kept), kept.size) == (3, 2 + 3 + 4)
    assert kept.get(2, lambda: b"anew") == b"xx"
    kept.get("new", lambda: b"y" * 10)  # pushes out 3, the least recently used
    assert kept.get(3, lambda: b"anew") == b"anew"
    assert kept.get("huge", lambda: b"z" * 11) == b"z" * 11  # more than a quarter of all is not kept
    assert kept.get("huge", lambda: b"anew!") == b"anew!"
    for number in range(10):
        kept.get(("heavy", number), lambda: b"h" * 10)
    assert (len(kept), kept.size) == (3, 30)


def test_rendered_answers_hold_under_threads() -> None:
    kept: Rendered[bytes] = Rendered(max_entries=5, max_bytes=1000)

    def ask(start: int) -> None:
        for number in range(300):
            key = (start * 7 + number) % 9
            assert kept.get(key, lambda key=key: b"k" * key) == b"k" * key  # type: ignore[misc]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 5
    assert kept.size == sum(len(value) for value in kept._entries.values())
