"""The worker of :mod:`benchmarks.pools`: ``python -m benchmarks.pool_worker POOL COUNT`` or ``fill TASKS``.

The broker's own Celery app with its settings and all that it imports, and one task more.
"""

from __future__ import annotations

import os
import socket
import sys

import redis
from celery import signals

from benchmarks.pools import DONE
from gpubroker.celery import app


@app.task(name="benchmarks.far", ignore_result=True)
def far() -> None:
    from gpubroker.common.models import Pulse

    list(Pulse.objects.all())
    with socket.create_connection(("127.0.0.1", int(os.environ["BENCHMARK_PORT"])), timeout=30) as connection:
        connection.recv(16)
    list(Pulse.objects.all())
    redis.Redis.from_url(os.environ["REDIS_URL"]).incr(DONE)


def main(what: str, count: int) -> None:
    if what == "fill":
        for _ in range(count):
            far.delay()
        return
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
    signals.setup_logging.connect(lambda **_: None, weak=False)
    app.Worker(
        pool=what, concurrency=count, queues="default",
        without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True,
    ).start()  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
