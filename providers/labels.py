"""The labels that machines carry at the providers (rule I1).

A label reads ``gpb-<deployment>-<session>-<attempt>``. The fields hold no hyphen, so a label has one
reading only: a deployment whose id begins like another's never takes that one's machines for its own.
Labels are compared exactly as the vendor returns them, without stripping or case folding: whatever
differs was not written by us and is not ours to destroy (rule I4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "gpb"
MAX_LENGTH = 60
SESSION_PREFIX = "sess-"

_DEPLOYMENT = re.compile(r"[a-z0-9]{4,20}")
_SESSION = re.compile(r"[a-z2-7]{16}")
_LABEL = re.compile(r"gpb-([a-z0-9]{4,20})-([a-z2-7]{16})-([1-9][0-9]{0,8})")
_MAX_ATTEMPT = 999_999_999


@dataclass(frozen=True, slots=True)
class Label:
    """The three facts in a label. ``session_id`` has its ``sess-`` in front again."""

    deployment: str
    session_id: str
    attempt: int

    def __str__(self) -> str:
        return make_label(self.deployment, self.session_id, self.attempt)


def make_label(deployment: str, session_id: str, attempt: int) -> str:
    """The label of one attempt of one session; ``attempt`` counts from 1. ``ValueError`` for anything malformed."""
    session = session_id.removeprefix(SESSION_PREFIX)
    if not _DEPLOYMENT.fullmatch(deployment):
        raise ValueError(f"deployment id must be 4 to 20 of a-z and 0-9, got {deployment!r}")
    if session == session_id or not _SESSION.fullmatch(session):
        raise ValueError(f"session id must be 'sess-' and 16 of a-z and 2-7, got {session_id!r}")
    if not 1 <= attempt <= _MAX_ATTEMPT:
        raise ValueError(f"attempt must be 1 to {_MAX_ATTEMPT}, got {attempt}")
    return f"{PREFIX}-{deployment}-{session}-{attempt}"


def parse_label(text: str | None) -> Label | None:
    """What a label says, or ``None`` when it is not one of a GPU broker (of whichever deployment)."""
    match = _LABEL.fullmatch(text or "")
    if match is None:
        return None
    return Label(match[1], SESSION_PREFIX + match[2], int(match[3]))


def is_ours(text: str | None, deployment: str) -> bool:
    """Whether this very deployment wrote the label."""
    label = parse_label(text)
    return label is not None and label.deployment == deployment
