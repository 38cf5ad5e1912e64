"""The request's id is in every line of the tasks that it started, through a real message and a real worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, current_app
from celery.contrib.testing.worker import start_worker
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from gpubroker.common import logs, tracing
from gpubroker.common.middleware import RequestIdMiddleware
from sessions_app import nudge


class Lines(logging.Handler):
    """What was logged, with the ids that stood in the line."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(logs.ContextFilter())
        self.seen: list[tuple[str, str]] = []
        self.news = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.news:
            self.seen.append((record.getMessage(), record.__dict__["ids"]))
            self.news.notify_all()

    def wait(self, count: int) -> list[tuple[str, str]]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.seen) >= count, timeout=20), self.seen
            return list(self.seen)


log = logging.getLogger("tests.tracing")
log.setLevel(logging.INFO)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """A queue in memory, and a worker with threads as in production."""
    app = Celery("tests.tracing", broker="memory://", fixups=[], set_as_current=False)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)

    @app.task(name="second", shared=False)
    def second() -> None:
        log.info("second")

    @app.task(name="first", shared=False)
    def first(fail: bool = False) -> None:
        with logs.context(session_id="sess-a"):
            log.info("first")
            if fail:
                raise ValueError("as asked")
            app.send_task("second")

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with start_worker(app, pool="threads", concurrency=1, perform_ping_check=False, shutdown_timeout=20):
        yield app
    # The worker sets up logging for its whole process, which here is everybody's.
    root.setLevel(level)
    root.handlers[:] = handlers


def test_ids_travel_from_task_to_task_and_end_with_them(app: Celery, lines: Lines) -> None:
    with logs.context(request_id="req-1"):
        app.send_task("first")
    lines.wait(2)
    app.send_task("second")
    lines.wait(3)
    with logs.context(request_id="req-2"):
        app.send_task("first", kwargs={"fail": True})
    lines.wait(4)
    app.send_task("second")
    assert lines.wait(5) == [
        ("first", " request_id=req-1 session_id=sess-a"),
        ("second", " request_id=req-1 session_id=sess-a"),
        ("second", ""),
        ("first", " request_id=req-2 session_id=sess-a"),
        ("second", ""),
    ]
    assert tracing._open == {}


def test_a_message_of_somebody_elses_making_is_no_harm(app: Celery, lines: Lines) -> None:
    for header in ("text", ["a"], {"request_id": {"nested": "x\ny"}}, None):
        app.send_task("second", headers={tracing.HEADER: header})
    assert [ids for _, ids in lines.wait(4)] == ["", "", " request_id={'nested': 'x\\ny'}", ""]


@pytest.mark.django_db(transaction=True)
def test_a_nudge_after_commit_carries_the_requests_id() -> None:
    """Through the broker's own app and nudges: the message on the queue names the request."""

    def view(request: HttpRequest) -> HttpResponse:
        with transaction.atomic():
            nudge.after_commit("sessions_app.tasks.drive_rental", "none")
        return HttpResponse()

    with current_app.connection_for_write() as connection, connection.SimpleQueue("create") as queue:
        queue.clear()
        RequestIdMiddleware(view)(RequestFactory().get("/", headers={"X-Request-ID": "my.id-7"}))
        message = queue.get(timeout=5)
        message.ack()
    carried: Any = message.headers[tracing.HEADER]
    assert carried == {"request_id": "my.id-7"}
