"""``python -m benchmarks pools``: Celery's worker pools with what our tasks do: mostly wait for somebody far away.

A task asks the database a question, waits for a server that answers after ``--wait`` seconds, and asks again. Five
hundred of them are queued while no worker runs, then one worker of each pool works them off: tasks a second, processor
time of a task, and what all processes of the worker weigh (PSS, so shared pages count once).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from benchmarks.read import Deployment, members, spent_by
from benchmarks.startup_memory import pss_mb
from tests import servers
from tests.stack import ROOT, command

TASKS = 500
#: Pool and concurrency; processes for prefork, threads for threads.
POOLS = (("threads", 32), ("threads", 100), ("prefork", 2), ("prefork", 8), ("solo", 1))
#: Counts what is done, in the queue's own server.
DONE = "benchmark:done"


def _port_of(server: socketserver.ThreadingTCPServer) -> int:
    return int(server.server_address[1])


@contextlib.contextmanager
def far_away(seconds: float) -> Iterator[int]:
    """A server that says a word after so long; its port."""

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            time.sleep(seconds)
            self.request.sendall(b"here")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 512

    with Server(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield _port_of(server)
        server.shutdown()


def measure(deployment: Deployment, pool: str, count: int, port: int, wait: float) -> None:
    store = redis.Redis.from_url(deployment.settings["REDIS_URL"])
    store.flushall()
    env = deployment.environment(BENCHMARK_PORT=str(port))
    subprocess.run([sys.executable, "-m", "benchmarks.pool_worker", "fill", str(TASKS)], env=env, cwd=ROOT, check=True)
    words = [sys.executable, "-m", "benchmarks.pool_worker", pool, str(count)]
    worker = subprocess.Popen(words, env=env, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + max(120, 3 * TASKS * wait / count)
        while not int(store.get(DONE) or 0):
            time.sleep(0.02)
        began, first, before = time.monotonic(), int(store.get(DONE) or 0), spent_by([worker.pid])
        while (done := int(store.get(DONE) or 0)) < TASKS and time.monotonic() < deadline:
            time.sleep(0.05)
        took, pids = time.monotonic() - began, members(worker.pid)
        cpu = (spent_by([worker.pid]) - before) * 1000 / max(done - first, 1)
        print(
            f"  {f'{pool} {count}':<12} {(done - first) / took:>7.0f} tasks/s  CPU {cpu:>5.1f} ms a task  "
            f"{len(pids)} processes, {sum(map(pss_mb, pids)):.0f} MB  load {os.getloadavg()[0]:.1f}"
            f"{'' if done == TASKS else f'  only {done} of {TASKS} in time'}",
            flush=True,
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks pools")
    parser.add_argument("--wait", type=float, default=0.2, help="seconds until the far side answers")
    parser.add_argument("--only", default="", help="pools whose name holds this")
    asked = parser.parse_args(arguments or [])
    with (
        tempfile.TemporaryDirectory(prefix="gpubroker-pools-") as folder,
        servers.postgres() as database_url,
        servers.valkey() as redis_url,
        far_away(asked.wait) as port,
    ):
        deployment = Deployment(Path(folder), database_url, redis_url)
        deployment.run(*command("migrate"))
        for pool, count in POOLS:
            if re.search(asked.only, pool):
                measure(deployment, pool, count, port, asked.wait)


if __name__ == "__main__":
    main(sys.argv[1:])
