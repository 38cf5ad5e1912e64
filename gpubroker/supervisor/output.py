"""What people see: the terminal, and one log file per child under ``<data folder>/log``."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from gpubroker.failures import StartFailure

MAX_LOG_BYTES = 5_000_000
#: The same warning is shown again only after so long, with how often it came.
REPEAT_SECONDS = 600
#: Our text form, ``12:00:00 WARNING name: ...``
TEXT_WARNING = re.compile(r"^\d\d:\d\d:\d\d (?:WARNING|ERROR|CRITICAL)\s+(.*)$")
LOUD = {"WARNING", "ERROR", "CRITICAL"}
#: What differs between two lines that say the same: ids that end a line, and anything with a digit in it.
VARYING = re.compile(r"\b\w+_id=\S+|\S*\d\S*")
#: Several parts of the broker meet one provider's trouble and each says so: ``..., vastai list_offers: reason; again``.
PROVIDER_TROUBLE = re.compile(r", (\w+) \w+: (.*?)(?:; again in .*)?$")
#: Our own question whether the broker is ready is answered "not yet"; that is no warning.
EXPECTED = re.compile(r"django\.request: Service Unavailable: /(?:ready|health)\b")
COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class LogFile:
    """Appends; beyond a size the old part becomes ``<name>.log.1``. A full disk loses lines, never a process."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.log"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            self._open()
        except OSError as error:
            raise StartFailure(
                f"GPUBROKER_DATA_DIR: cannot write {self.path}: {error.strerror or error}.", code=2
            ) from None

    def _open(self) -> None:
        if self.path.exists() and self.path.stat().st_size > MAX_LOG_BYTES:
            self.path.replace(f"{self.path}.1")
        self.file = self.path.open("ab", buffering=0)
        self.size = self.file.tell()

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.size += self.file.write(data) or 0
            if self.size > MAX_LOG_BYTES:
                self.file.close()
                self._open()


@dataclass
class _Seen:
    shown_at: float
    more: int = 0


@dataclass
class Terminal:
    """Speaks to the person who started us, and keeps what it said in ``supervisor.log``."""

    log: LogFile | None = None
    seen: dict[str, _Seen] = field(default_factory=dict)

    @property
    def colours(self) -> bool:
        return sys.stdout.isatty()

    def paint(self, colour: str, text: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colours else text

    def say(self, text: str) -> None:
        self.show(text)
        self.note(text)

    def show(self, text: str) -> None:
        """On the terminal only: what holds a password must not reach a log."""
        # A closed terminal or pipe is no reason to stop.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        if self.log is not None:
            self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n".encode())

    def event(self, name: str, text: str) -> None:
        """Something happened to a child."""
        self.note(f"{name}: {text}")
        self.show(f"{self.paint('yellow', f'{name:>8}')} | {text}")

    def warning(self, name: str, text: str) -> None:
        """A child's own warning, once; the same again much later and with how often it came."""
        now = time.monotonic()
        trouble = PROVIDER_TROUBLE.search(text)
        key = f"{name} {VARYING.sub('#', ' '.join(trouble.groups()) if trouble else text)}"
        if (seen := self.seen.get(key)) is not None and now - seen.shown_at < REPEAT_SECONDS:
            seen.more += 1
            return
        more = f" ({seen.more} more like this in the log)" if seen is not None and seen.more else ""
        if len(self.seen) > 1000:
            self.seen.clear()
        self.seen[key] = _Seen(now)
        self.show(f"{self.paint('yellow', f'{name:>8}')} | {text}{more}")


def warning_in(line: str) -> str | None:
    """The message, when a child's log line is a warning or worse; text and JSON forms."""
    message = None
    if found := TEXT_WARNING.match(line):
        message = found[1]
    elif line.startswith("{"):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("level") in LOUD:
                message = f"{record.get('logger', '')}: {record.get('message', '')}"
    return None if message is None or EXPECTED.match(message) else message
