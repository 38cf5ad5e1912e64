"""What an agent on a machine tells of itself. Its credential is the session's own token, which stands in the machine's
environment, is stored only as a hash, and dies with the session."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from sessions_app.models import HeartbeatSample, Session
from sessions_app.states import LIVE

#: The environment of every machine that we launch.
TOKEN_VARIABLE = "GPUBROKER_AGENT_TOKEN"  # noqa: S105 - its name
SESSION_VARIABLE = "GPUBROKER_SESSION_ID"
WRONG_TOKEN = "the agent token is not valid for this session"  # noqa: S105 - a sentence
#: The newest samples of a session that are kept: an hour at one every 10 seconds.
MOST_SAMPLES = 360
#: Older ones are deleted this many at a time, not one by one.
SLACK = 40


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
    """Keep one sample. 401 for a wrong token, an unknown session and one that is over, all alike."""
    session = Session.objects.filter(id=session_id, status__in=LIVE).first()
    known = session.agent_token_hash if session is not None else ""
    if not hmac.compare_digest(known or "-", hashed(token)) or session is None:
        raise ApiError(401, WRONG_TOKEN)
    with transaction.atomic():
        newest = HeartbeatSample.objects.create(
            session=session, at=clock.now(), gpu_utilization=told.gpu_utilization,
            memory_used_mb=told.memory_used_mb, ssh_connections=told.ssh_connections,
        )  # fmt: skip
        _forget_old(session.id, newest.id)
    return session


def _forget_old(session_id: str, newest_id: int) -> None:
    """At most ``MOST_SAMPLES + SLACK`` rows of a session, and after a clean-up the newest ``MOST_SAMPLES``."""
    samples = HeartbeatSample.objects.filter(session_id=session_id, id__lte=newest_id).order_by("-id")
    too_many = samples.values_list("id", flat=True)[MOST_SAMPLES + SLACK - 1 : MOST_SAMPLES + SLACK].first()
    if too_many is not None:
        last_kept = samples.values_list("id", flat=True)[MOST_SAMPLES - 1 : MOST_SAMPLES].first()
        HeartbeatSample.objects.filter(session_id=session_id, id__lt=last_kept).delete()
