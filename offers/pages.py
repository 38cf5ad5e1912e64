"""The inventory's answers as they go over the wire: bytes, printed once, with an ETag and a compressed form.

Plain Python: Django's view and the layer in front of Django (gpubroker.fast) both answer with these.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from typing import NamedTuple

#: By this in ``request.META`` the view says that the layer in front may repeat its answer's headers.
ASKED = "gpubroker.inventory_asked"
#: Smaller ones are not worth compressing: they fit into one packet as they are.
COMPRESS_FROM = 1024
COMPRESS_LEVEL = 5
GZIP, IDENTITY = "gzip", ""
_Q = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", re.IGNORECASE)


class Page:
    """One answer's body. The compressed form is made when somebody first takes it, always the same from the same."""

    __slots__ = ("_digest", "_gzipped", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self._digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        self._gzipped: bytes | None = None

    def __len__(self) -> int:
        """What it weighs: its bytes, and room for the compressed ones, which take a tenth of them."""
        return len(self.body) + len(self.body) // 4

    @property
    def gzipped(self) -> bytes:
        if self._gzipped is None:
            # Two threads may both make it, and make the same: no time stands in it.
            self._gzipped = gzip.compress(self.body, COMPRESS_LEVEL, mtime=0)
        return self._gzipped

    def etag(self, coding: str) -> str:
        """Strong, so each form has its own."""
        return f'"{self._digest}-{coding}"' if coding else f'"{self._digest}"'


class Choice(NamedTuple):
    """What of a page one request gets. ``status`` is 200 or 304; with 304 there is no body."""

    status: int
    coding: str
    etag: str
    body: bytes


def choose(page: Page, accept_encoding: str, if_none_match: str) -> Choice:
    coding = GZIP if len(page.body) >= COMPRESS_FROM and takes_gzip(accept_encoding) else IDENTITY
    etag = page.etag(coding)
    if if_none_match and _knows(if_none_match, etag):
        return Choice(304, coding, etag, b"")
    return Choice(200, coding, etag, page.gzipped if coding else page.body)


def _knows(if_none_match: str, etag: str) -> bool:
    """RFC 9110, 13.1.2: ``*``, or one of a list, compared weakly, as proxies that compress weaken tags."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or if_none_match.strip() == "*"


@functools.lru_cache(maxsize=256)
def takes_gzip(accept_encoding: str) -> bool:
    """RFC 9110, 12.5.3: named, or by ``*``, not with ``q=0``, and not where the plain form is liked better."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        weight = _Q.fullmatch(parameter) if parameter else None
        weights[name.strip()] = float(weight[1]) if weight else (0.0 if parameter else 1.0)
    wanted = weights.get(GZIP, weights.get("x-gzip", weights.get("*", 0.0)))
    return wanted > 0 and wanted >= weights.get("identity", 0.0)
