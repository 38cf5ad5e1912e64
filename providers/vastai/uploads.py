"""Texts that the vendor puts somewhere else for us to fetch, such as a machine's log (Vast.ai contract, section 4.6).

They lie on another host, so no key of ours goes there, and the address is checked: it comes from the vendor's answer.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from providers.answers import Answer
from providers.errors import MalformedAnswer
from providers.gates import NullGate, NullObserver
from providers.http import HTTPClient, Limits
from providers.vastai.transport import Transport

_OPERATION = "fetch_log"
_LIMITS = Limits(connect=5.0, read=10.0, total=20.0, body=8 * 1024 * 1024)
#: What the store says until the text is there.
_NOT_THERE_YET = (403, 404)


def fetch(transport: Transport, address: str) -> str | None:
    """The text at ``address``, or ``None`` while it is not there yet. ``MalformedAnswer`` for an address that nobody
    should follow: anything but HTTPS, except on the very host and port of the vendor's API."""
    parts, own = urlsplit(address), urlsplit(transport.base_url)
    same = (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
    if not (same or parts.scheme == "https") or "@" in parts.netloc:
        raise MalformedAnswer("an address that is not followed", provider=transport.provider, operation=_OPERATION)
    try:
        client = HTTPClient(
            transport.provider,
            f"{parts.scheme}://{parts.netloc}",
            "",
            NullGate(),
            NullObserver(),  # how the store does says nothing of the vendor's API
            transport.clock,
            limits=_LIMITS,
        )
    except ValueError:
        raise MalformedAnswer(
            "an address that cannot be one", provider=transport.provider, operation=_OPERATION
        ) from None

    def read(answer: Answer) -> str | None:
        if answer.ok:
            return answer.text
        if answer.status in _NOT_THERE_YET:
            return None
        raise MalformedAnswer(
            transport.safe_text(answer.said), provider=transport.provider, operation=_OPERATION, status=answer.status
        )

    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return client.request(_OPERATION, "GET", path, read=read, any_text=True)
