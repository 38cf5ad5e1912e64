"""Cutting and cleaning what a vendor wrote, before it may stand in an error, a log or a table (rule I10)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAX_READ = 8_000
_MAX_WRITTEN = 300
_GONE = "[redacted]"

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)", re.DOTALL)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+|%20|\+)[^\s\"',;<>]+")
#: ``name=value``, ``name: value`` and ``"name": "value"`` where the name says that the value is a secret.
#: (All repeats are bounded or exclude their own start: a hostile text must not cost more than its length.)
_NAMED = re.compile(
    r"(?i)((?:api[_-]?key|api[_-]?token|jupyter[_-]?token|access[_-]?token|agent[_-]?token|auth[_-]?token|password"
    r"|passwd|secret|(?<![a-z])token|authorization)\\?[\"']?\s*(?:=|:|%3D|%3A)\s*\\?[\"']?)[^\s\"'\\,;&<>}]+"
)
#: A Vast.ai key is 64 hexadecimal digits; nothing else that long and that random is worth keeping either.
_LONG_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64,}(?![0-9a-fA-F])")
_GATEWAY_TOKEN = re.compile(r"\bat_[A-Za-z0-9_-]{6,}")
#: The broker's own API keys: the part that names a key may stand, the secret after it may not.
_BROKER_KEY = re.compile(r"(gpb_[A-Za-z0-9]{1,16})_[A-Za-z0-9]+")
_MARKUP = re.compile(r"<(?:!--|/?[A-Za-z!])[^<>]{0,2000}>")
#: Control characters, line and paragraph separators, and the marks that turn text around on a screen.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` with ``[redacted]`` in place of what looks like a credential, and of ``secrets``."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, _GONE)
    text = _PEM.sub(_GONE, text)
    # Before the named ones, which would take the visible part of the key as well.
    text = _BROKER_KEY.sub(lambda m: f"{m[1]}_{_GONE}", text)
    text = _BEARER.sub(lambda m: f"{m[1]} {_GONE}", text)
    text = _NAMED.sub(lambda m: m[1] + _GONE, text)
    text = _LONG_HEX.sub(_GONE, text)
    return _GATEWAY_TOKEN.sub(_GONE, text)


def safe_text(text: object, secrets: Iterable[str] = (), *, limit: int = _MAX_WRITTEN) -> str:
    """``text`` on one line, without secrets, markup or control characters, at most ``limit`` characters.

    Redaction comes before the cut, so that half a secret is never what is left of it. ``secrets`` are the
    configured credentials, which are removed whatever they look like.
    """
    shown = str(text)[:_MAX_READ].encode("utf-8", "replace").decode("utf-8")
    shown = without_secrets(shown, secrets)
    shown = _MARKUP.sub(" ", shown)
    shown = " ".join(_CONTROLS.sub(" ", shown).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
