"""How a running session is doing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from sessions_app import verify
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Door, Session
from sessions_app.states import Debt, Status

NOTE_SSH = "Full SSH diagnostics require client-side SSH access."
NOTE_PAUSED = "Paused: others bid more for the machine. It goes on when the bid wins again."
NOTE_ENTRYPOINT = "Launched by the image's entrypoint: there is no SSH server; ask the api_endpoint."


def diagnostics(session: Session) -> dict[str, Any]:
    """The seed's body, both spans also in seconds, and the pinned host key's fingerprint. 400 unless running.

    ``uptime`` counts from ``created_at``, as in the seed's example, where it and ``time_to_expiry`` add up to the hours
    reserved.
    """
    if session.status != Status.RUNNING:
        raise ApiError(
            400, f"session {session.id} is not running, it is {session.status}",
            session_id=session.id, status=session.status,
        )  # fmt: skip
    now = clock.now()
    up = max(now - session.created_at, timedelta(0))
    left = max(min(session.expires_at, session.hard_max_at) - now, timedelta(0))
    by_entrypoint, paused = session.launch_mode == ENTRYPOINT, session.paused_at is not None
    rental = session.rentals.filter(state=Debt.LIVE).first()
    host_key = rental.host_key if rental is not None else ""
    return {
        "session_id": session.id,
        "status": session.status,
        "provider": session.provider,
        "gpu_type": session.gpu_type,
        "gpu_count": session.gpu_count,
        "ssh_host": session.ssh_host,
        "ssh_port": session.ssh_port or 0,
        "ssh_user": session.ssh_user or "root",
        "launch_mode": session.launch_mode,
        "api_endpoint": session.api_endpoint,
        "created_at": clock.iso(session.created_at),
        "expires_at": clock.iso(session.expires_at),
        "uptime": span(up),
        "uptime_seconds": int(up.total_seconds()),
        "time_to_expiry": span(left),
        "time_to_expiry_seconds": int(left.total_seconds()),
        "ssh_available": not (by_entrypoint or paused) and rental is not None and rental.door == Door.OPEN,
        "host_key": verify.fingerprint(host_key) if host_key else "",
        "note": NOTE_PAUSED if paused else NOTE_ENTRYPOINT if by_entrypoint else NOTE_SSH,
        "ssh_checked_at": clock.iso(rental.key_checked_at) if rental is not None else None,
    }


def span(length: timedelta) -> str:
    """``1h 30m``, ``2h 0m``, ``30m``, and ``45s`` under a minute; rounded down, hours never become days."""
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds}s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m"
