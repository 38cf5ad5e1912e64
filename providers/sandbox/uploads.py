"""Texts that were asked for and can be fetched a moment later without a key, as from a bucket."""

from __future__ import annotations

import secrets

from providers.sandbox.clock import Clock

#: A requested text is there this many sandbox seconds later; until then its address is a 404.
UPLOAD_SECONDS = 0.4
#: How many are kept.
KEPT = 200
PREFIX = "/uploads/"


class Uploads:
    """The newest texts, by an unguessable name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[float, str]] = {}

    def put(self, text: str) -> str:
        """Take a text; the path under which it will appear."""
        name = secrets.token_hex(16)
        self._texts[name] = (self._clock.now() + UPLOAD_SECONDS, text)
        while len(self._texts) > KEPT:
            self._texts.pop(next(iter(self._texts)))
        return f"{PREFIX}{name}.log"

    def get(self, name: str) -> str | None:
        ready_at, text = self._texts.get(name, (float("inf"), ""))
        return text if self._clock.now() >= ready_at else None
