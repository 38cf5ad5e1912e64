"""The browser that the console is tested in: the Chromium on PATH; else Debian's package, installed where we are root;
else Playwright's own. ``python -m tests.chromium`` brings it ahead of the tests and says where it is."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
APT = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
INSTALL = [*APT, "install", "-y", "--no-install-recommends", "chromium"]
#: Two test processes may come at once; the second finds what the first has brought.
LOCK = Path(sys.prefix) / "chromium.lock"
#: Root has no sandbox of Chromium's own, and a container's /dev/shm is small.
OPTIONS = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]


class BrowserMissing(Exception):
    """It is neither here nor to be had: a failure, never a reason to skip."""


@functools.cache
def path() -> Path:
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _found() or _brought()


def _found() -> Path | None:
    return next((Path(found) for program in PROGRAMS if (found := shutil.which(program))), None)


def _brought() -> Path:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        said = _installed()
    else:
        said = _run([sys.executable, "-m", "playwright", "install", "chromium"])
    found = _found() or _playwrights_own()
    if found is None:
        raise BrowserMissing(
            "the console's tests need a browser: there is no chromium, chromium-browser or google-chrome on PATH, and "
            f"none could be installed: {said.strip()[-1000:]}"
        )
    return found


def _installed() -> str:
    """Debian's package; a fresh container has no list of packages yet, and an old list names files that are gone."""
    said = _run([*APT, "update"])
    return said + _run(INSTALL)


def _run(command: list[str]) -> str:
    """What it said of its troubles."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900, env=environment)
    return done.stderr


def _playwrights_own() -> Path | None:
    ask = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    done = subprocess.run([sys.executable, "-c", ask], check=False, capture_output=True, text=True, timeout=60)
    own = Path(done.stdout.strip() or "/nowhere")
    return own if own.is_file() else None


if __name__ == "__main__":
    sys.stdout.write(f"{path()}\n")
