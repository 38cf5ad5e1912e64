"""API keys: how one looks, how it is checked, and what a process remembers of it for a few seconds.

A key is ``gpb_<8 characters>_<40 characters>`` in lower-case base32. The first part is public and finds the row; the
second holds 200 random bits and is kept nowhere, only the SHA-256 of the whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.db.models import Q

from billing.models import ApiKey
from gpubroker.common import clock
from gpubroker.common.principal import Principal

log = logging.getLogger(__name__)

#: How long a process may go on with what it read of a key: a key revoked elsewhere works at most so long.
CACHE_SECONDS = 5.0
#: Prefixes remembered at a time, known and unknown ones.
CACHE_SIZE = 10_000
#: The last use is written at most so often per key and process.
USE_NOTED_EVERY = timedelta(minutes=1)
PATTERN = re.compile(r"(gpb_[a-z2-7]{8})_[a-z2-7]{40}", re.ASCII)
PREFIX_LENGTH = 12
#: Stands in for the digest of a key that does not exist, so that both answers take the same work.
NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class NewKey:
    prefix: str
    #: The whole key; shown once, never stored.
    secret: str = field(repr=False)


def _base32(length: int) -> str:
    return base64.b32encode(secrets.token_bytes(length * 5 // 8)).decode().lower()


def generate() -> NewKey:
    prefix = f"gpb_{_base32(8)}"
    return NewKey(prefix, f"{prefix}_{_base32(40)}")


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True)
class _Known:
    """What the database said of one prefix, and when."""

    read_at: float
    digest: str = NO_DIGEST
    principal: Principal | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class Keyring:
    """Checks keys. One per process; ``timer`` tells how old what it remembers is."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def check(self, presented: str) -> Principal | None:
        """On whose behalf the key acts; ``None`` for one that is malformed, unknown, wrong, expired or revoked.

        At most one query per prefix in ``CACHE_SECONDS`` and one update per key in a minute.
        """
        found = PATTERN.fullmatch(presented)
        if found is None:
            return None
        known = self._look_up(found[1])
        right = hmac.compare_digest(digest(presented), known.digest)
        now = clock.now()
        if not right or known.principal is None or (known.expires_at is not None and known.expires_at <= now):
            return None
        self._note_use(found[1], known, now)
        return known.principal

    def recall(self, presented: str) -> Principal | None:
        """What :meth:`check` would say, where it would ask and write nothing; else ``None``, which refuses nobody."""
        known = self._fresh(presented[:PREFIX_LENGTH])  # the digest is of the whole, so its form needs no look
        if known is None or known.principal is None or not hmac.compare_digest(digest(presented), known.digest):
            return None
        now = clock.now()
        expired = known.expires_at is not None and known.expires_at <= now
        noted = known.last_used_at is not None and now - known.last_used_at < USE_NOTED_EVERY
        return known.principal if noted and not expired else None

    def forget(self, prefix: str) -> None:
        """Read it again at the next check: it was changed by this process."""
        with self._lock:
            self._known.pop(prefix, None)

    def _look_up(self, prefix: str) -> _Known:
        known = self._fresh(prefix)
        if known is not None:
            return known
        # One thread asks, the others that want to know wait for its answer.
        with self._lock:
            known = self._fresh(prefix)
            if known is None:
                if len(self._known) >= CACHE_SIZE:
                    self._known.clear()
                known = self._known[prefix] = self._read(prefix)
            return known

    def _fresh(self, prefix: str) -> _Known | None:
        known = self._known.get(prefix)
        return known if known is not None and self._timer() - known.read_at < CACHE_SECONDS else None

    def _read(self, prefix: str) -> _Known:
        known = _Known(read_at=self._timer())
        row = ApiKey.objects.select_related("consumer").filter(prefix=prefix, revoked_at__isnull=True).first()
        if row is not None:
            consumer = row.consumer.name if row.consumer is not None else None
            known.digest = row.digest
            known.principal = Principal(consumer=consumer, scopes=row.scope_set, key_prefix=prefix)
            known.expires_at = row.expires_at
            known.last_used_at = row.last_used_at
        return known

    @staticmethod
    def _note_use(prefix: str, known: _Known, now: datetime) -> None:
        if known.last_used_at is not None and now - known.last_used_at < USE_NOTED_EVERY:
            return
        known.last_used_at = now
        stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
        try:
            ApiKey.objects.filter(stale, prefix=prefix).update(last_used_at=now)
        except DatabaseError as error:
            # Worth a line, not worth the request.
            log.warning("the last use of %s could not be written: %s", prefix, type(error).__name__)


keyring = Keyring()
