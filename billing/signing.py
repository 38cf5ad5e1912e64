"""How a webhook proves that it is ours: an HMAC over the time and the very bytes of the body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

HEADER = "GPUBroker-Signature"


def new_secret() -> str:
    """``whsec_`` and 40 lower-case base32 characters: 200 random bits. All of it, as text, is the HMAC's key."""
    return f"whsec_{base64.b32encode(secrets.token_bytes(25)).decode().lower()}"


def signature(keys: Iterable[str], timestamp: int, body: bytes) -> str:
    """``t=<unix seconds>,v1=<hex>``, and a ``v1`` more for every further secret that still counts."""
    signed = str(timestamp).encode() + b"." + body
    parts = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in keys]
    return ",".join([f"t={timestamp}", *(f"v1={part}" for part in parts)])
