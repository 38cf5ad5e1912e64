"""Identifiers that people and vendors see."""

from __future__ import annotations

import base64
import secrets


def _base32(length: int) -> str:
    raw = base64.b32encode(secrets.token_bytes(length)).decode().lower().rstrip("=")
    return raw[:length]


def new_session_id() -> str:
    """``sess-`` and 16 lower-case base32 characters (80 random bits): the part that stands in labels."""
    return f"sess-{_base32(16)}"


def new_deployment_id() -> str:
    """8 lower-case base32 characters: names this installation in every label."""
    return _base32(8)
