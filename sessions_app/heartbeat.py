"""What an agent on a machine tells of itself. Its credential is the session's own token, which stands in the machine's
environment, is stored only as a hash, and dies with the session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from gpubroker.common.errors import ApiError
from sessions_app import samples
from sessions_app.models import Session
from sessions_app.states import LIVE

#: The environment of every machine that we launch.
TOKEN_VARIABLE = "GPUBROKER_AGENT_TOKEN"  # noqa: S105 - its name
SESSION_VARIABLE = "GPUBROKER_SESSION_ID"
WRONG_TOKEN = "the agent token is not valid for this session"  # noqa: S105 - a sentence


@dataclass(frozen=True, slots=True)
class Beat:
    gpu_utilization: float
    memory_used_mb: int
    ssh_connections: int


def new_token() -> str:
    return secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """A token is 256 random bits: a plain hash cannot be guessed backwards."""
    return hashlib.sha256(token.encode()).hexdigest()


def beat(session_id: str, token: str, told: Beat) -> Session:
    """Keep one sample, and act on it. 401 for a wrong token, an unknown session and one that is over, all alike."""
    session = Session.objects.filter(id=session_id, status__in=LIVE).first()
    known = session.agent_token_hash if session is not None else ""
    if not hmac.compare_digest(known or "-", hashed(token)) or session is None:
        raise ApiError(401, WRONG_TOKEN)
    reading = samples.Reading(told.gpu_utilization, told.memory_used_mb, told.ssh_connections)
    samples.take(session.id, samples.Source.HEARTBEAT, reading)
    # It may have ended this very session, which was idle for too long.
    session.refresh_from_db(fields=["status", "expires_at"])
    return session
