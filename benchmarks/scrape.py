"""One scrape of ``/metrics`` with ten thousand live sessions beside twenty thousand that are over, and the plan of each
query behind it. On PostgreSQL: ``python -m tests.with_servers python -m benchmarks scrape``."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

from benchmarks.report import Result, show
from tests.stack import ROOT, environment, gpubroker


def main() -> None:
    settings = {"VASTAI_API_KEY": "none", "LOG_LEVEL": "warning"}
    if "DATABASE_URL" in os.environ:
        settings |= {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
        settings |= {"SECRET_KEY": "only-for-benchmarks-" + "x" * 40, "ENCRYPTION_KEYS": Fernet.generate_key().decode()}
    with tempfile.TemporaryDirectory(prefix="gpubroker-scrape-") as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        migrated = gpubroker("migrate", data_dir=data_dir, port=8080, prefix=(), **settings)
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        printed = subprocess.run(
            [sys.executable, "-m", "benchmarks.scrape_books"],
            env=environment(data_dir, 8080, **settings), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
    found = json.loads(printed)
    for query in found["plans"]:
        print(f"  {query['ms']:.0f} ms  {query['sql'][:300]}")
        for line in query["plan"]:
            print(f"          {line}")
    spent = [milliseconds for milliseconds, _ in found["scrapes"]]
    show(
        "scrape",
        [
            Result("scrape with 10,000 live sessions, median", statistics.median(spent), "ms", 50.0),
            Result("scrape with 10,000 live sessions, worst", max(spent), "ms", 50.0),
            # What else runs on a busy machine costs a scrape time on the clock, and caches.
            Result("scrape: CPU, median", statistics.median(cpu for _, cpu in found["scrapes"]), "ms"),
            Result("scrape: CPU, least", min(cpu for _, cpu in found["scrapes"]), "ms"),
        ],
    )
