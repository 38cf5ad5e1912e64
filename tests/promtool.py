"""promtool, Prometheus' own checker: the one on PATH, else the one in Debian's package, unpacked into the virtual
environment. Nothing is installed, and no service starts."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "prometheus"
MEMBER = "./usr/bin/promtool"
KEPT = Path(sys.prefix) / "promtool" / "promtool"


class ToolMissing(Exception):
    """It is neither here nor to be had: a failure, never a reason to skip."""


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end, with ``given`` on standard input."""
    command = [_path(), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, input=given, timeout=60)


@functools.cache
def _path() -> Path:
    if found := shutil.which("promtool"):
        return Path(found)
    if not KEPT.exists():
        with tempfile.TemporaryDirectory(prefix="gpubroker-promtool-") as folder:
            _unpack(_download(Path(folder)))
    return KEPT


def _download(folder: Path) -> Path:
    """Debian's package; the lists of packages are fetched first where a machine has none yet."""
    if shutil.which("apt-get") is None:
        raise ToolMissing(
            "promtool is not on PATH, and this is no Debian where it could be fetched: install Prometheus"
        )
    said = ""
    for command in (["download", PACKAGE], ["update"], ["download", PACKAGE]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], check=False, capture_output=True, text=True, cwd=folder, timeout=300
        )
        said += done.stderr
        if package := next(folder.glob(f"{PACKAGE}_*.deb"), None):
            return package
    raise ToolMissing(f"promtool is not on PATH and Debian's package cannot be fetched: {said.strip()}")


def _unpack(package: Path) -> None:
    """The one program, put in its place whole: two test processes may come at once."""
    KEPT.parent.mkdir(exist_ok=True)
    mine = KEPT.with_name(f"{KEPT.name}-{os.getpid()}")
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as members,
        mine.open("wb") as kept,
    ):
        for member in members:
            if member.name == MEMBER and (content := members.extractfile(member)) is not None:
                shutil.copyfileobj(content, kept)
    mine.chmod(0o755)
    mine.replace(KEPT)
