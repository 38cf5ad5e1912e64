"""What each process of the broker does, as the supervisor and a deployment both start it.

``python -m gpubroker.roles web|worker|beat|sandbox`` is what the supervisor starts; ``gpubroker web`` does the same.

Celery's and Granian's own command lines are not used: they import far more than these roles need.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import sys
import threading
import warnings
from datetime import timedelta
from typing import Any

from gpubroker import leaving, pinned
from gpubroker.common import lifeline
from gpubroker.failures import SettingsError

#: A destroy is never behind a create, nor a tick behind anything (``CELERY_BROKER_TRANSPORT_OPTIONS``).
QUEUES = "tick,destroy,create,default,ssh"
#: ``POST /sessions`` waits up to a minute in its thread for the worker's verdict, so a few dozen must fit.
WEB_THREADS = 32
#: Connections that one web process holds, busy, idle and slow ones alike; more wait to be accepted.
CONNECTIONS = 512
#: In which a request's headers have to come, and how long a connection may be idle between two requests.
HEADER_SECONDS = 30
WORKER_THREADS = 32
#: Seconds that requests get to finish on SIGTERM: the longest is a create that waits a minute for its verdict. Where
#: one person runs everything, Ctrl-C is to be quick; nothing is lost by that, as rows carry what is due.
STOP_SECONDS, EMBEDDED_STOP_SECONDS = 75, 3
#: Granian's own lines in the form of our text logs. Errors only: it warns that waiting threads outnumber the cores.
GRANIAN_LOGS = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"text": {"format": "%(asctime)s %(levelname)-7s granian: %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "text"}},
    "loggers": {"_granian": {"level": "ERROR", "handlers": ["stderr"], "propagate": False}},
}


def web(host: str = "", port: int = 0, workers: int = 1, threads: int = WEB_THREADS) -> None:
    """The HTTP server: Granian with ``gpubroker.wsgi``."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server import Server

    from gpubroker import settings

    # A trial ends at once; a deployment lets everybody have their answer.
    quickly = settings.EMBEDDED
    # The processes that it starts load ``gpubroker.wsgi`` by name and read it there.
    os.environ["GPUBROKER_WEB_THREADS"] = str(threads)
    os.environ[pinned.PROCESSES] = str(workers)
    server = Server(
        "gpubroker.wsgi:application",
        address=host or settings.SERVER_HOST,
        port=port or settings.SERVER_PORT,
        interface=Interfaces.WSGI,
        # Where it also listens for HTTP/2, it waits for ever for a connection's first byte.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
        workers=workers,
        # One for each connection: they read and wait, the work is done by ``threads`` others. With fewer, those who
        # send slowly would hold up everybody else.
        blocking_threads=CONNECTIONS,
        blocking_threads_idle_timeout=60,
        runtime_threads=1,
        # It counts connections, not requests.
        backpressure=CONNECTIONS,
        websockets=False,
        workers_kill_timeout=EMBEDDED_STOP_SECONDS if quickly else STOP_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=GRANIAN_LOGS,
    )
    if not quickly:
        _leave_first(server)
    server.serve()


def _leave_first(server: Any) -> None:
    """The first signal to stop lets the processes close their doors (:mod:`gpubroker.leaving`); they are told to stop a
    moment later, or by a second signal."""
    stop = server.signal_handler_interrupt
    told: list[int] = []
    # Those that have only just been forked and do not know it yet have nobody's request either.
    signal.signal(leaving.SIGNAL, signal.SIG_IGN)

    def on_signal(*_: object) -> None:
        if told:
            stop()
            return
        for worker in server.wrks:
            told.append(worker.inner.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.inner.pid, leaving.SIGNAL)
        threading.Timer(leaving.SECONDS if told else 0, stop).start()

    server.signal_handler_interrupt = on_signal


def worker(concurrency: int = WORKER_THREADS, queues: str = QUEUES) -> None:
    """The worker: threads, because its tasks wait for the network and hardly compute."""
    from celery import signals
    from celery.exceptions import SecurityWarning

    from gpubroker.celery import app

    # Django has set up logging; without a receiver Celery would set levels and handlers of its own.
    signals.setup_logging.connect(_keep_logging, weak=False)
    signals.worker_ready.connect(_take_over, weak=False)
    # `gpubroker check` is for that; here it would load every view into the worker.
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
    # Messages are JSON only, so a worker that runs as root, as in most containers, is in no danger from them.
    warnings.simplefilter("ignore", SecurityWarning)
    program = app.Worker(
        pool="threads",
        concurrency=concurrency,
        queues=queues,
        # Other workers' news: of no use here, and a steady trickle of messages.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    program.start()
    sys.exit(program.exitcode)


def _keep_logging(**_: object) -> None: ...


def _take_over(**_: object) -> None:
    """The embedded run has one worker: whatever another one held in hand, it is dead, and its leases are void."""
    from celery import signals
    from django.conf import settings
    from django.core.management import call_command

    signals.worker_ready.disconnect(_take_over)  # it also comes whenever the queue is back
    if settings.EMBEDDED:
        call_command("recover", stdout=io.StringIO())


def beat() -> None:
    """The scheduler. It only sends names on time, so it loads neither Django's apps nor the tasks."""
    from celery import Celery
    from celery.beat import Scheduler, Service

    from gpubroker import settings
    from gpubroker.common import logs
    from gpubroker.queueing import PatientAMQP

    logs.configure(settings.LOGGING)
    app = Celery("gpubroker", amqp=PatientAMQP, fixups=[])
    app.config_from_object(settings, namespace="CELERY")
    # In memory: every entry is due within seconds anyway, and a schedule file can be torn by a crash.
    service = Service(app, scheduler_cls=Scheduler)
    # Whatever fell due while no scheduler ran is due now, not a whole interval from now.
    for entry in service.scheduler.schedule.values():
        entry.last_run_at = entry.default_now() - timedelta(days=1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service.start()


def sandbox(arguments: list[str]) -> None:
    """The sandbox marketplace, with the options of ``python -m providers.sandbox``."""
    sys.argv = ["gpubroker sandbox", *arguments]
    runpy.run_module("providers.sandbox", run_name="__main__")


def main(arguments: list[str]) -> int:
    lifeline.start()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    role, *rest = arguments
    try:
        if role == "sandbox":
            sandbox(rest)
        elif role == "web":
            web()
        elif role == "worker":
            worker()
        else:
            beat()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
