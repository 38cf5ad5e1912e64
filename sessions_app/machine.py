"""What a consumer can do with the machine itself: read its log, reboot it.

Starting and stopping is nobody's: a machine that stands still is lost to its session (the sweep ends it), and the way
to keep its disk is ``storage_policy: preserve``. A reboot is written down before it is asked for, so that the sweep,
which may see the machine go down in the same moment, waits for it: see :func:`sessions_app.sightings.lost`.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Any

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import OPEN, Principal
from providers import deadline
from providers.base import Provider
from providers.errors import InvalidRequest, NotFound, ProviderError
from providers.extras import Reboots, TellsLogs
from providers.redact import without_secrets
from sessions_app import heartbeat
from sessions_app.models import Rental, Session
from sessions_app.provider_calls import LOOK_AGAIN_SECONDS, ask, lacking
from sessions_app.services import found
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: Characters of a log that are shown at most: its end.
MOST_CHARACTERS = 256 * 1024
#: About our own machine: the caller cannot help what the provider does not like of it.
CONFLICTS: dict[type[ProviderError], int] = {InvalidRequest: 409, NotFound: 409}
LOGS, REBOOTS = "logs of machines", "reboot of machines"
_HIDDEN = "[redacted]"
#: As long as :func:`heartbeat.new_token` makes them.
_TOKEN_LENGTH = 43
_TOKEN_LIKE = re.compile(rf"[A-Za-z0-9_-]{{{_TOKEN_LENGTH},}}")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_log(session_id: str, tail: int, principal: Principal = OPEN) -> dict[str, Any]:
    """The last ``tail`` lines that the provider has of the machine. 400 unless there is one."""
    session = found(session_id, principal)
    rental = session.rentals.filter(state=Debt.LIVE).first()
    if rental is None:
        raise ApiError(
            400, f"session {session_id} has no machine, it is {session.status}",
            session_id=session_id, status=session.status,
        )  # fmt: skip
    provider = configured.get(rental.provider)
    if not (provider.capabilities.logs and isinstance(provider, TellsLogs)):
        raise lacking(rental.provider, LOGS)
    text = ask("log", lambda: _fetched(provider, rental.instance_id, tail), CONFLICTS)
    lines, cut = shown(text, session.agent_token_hash, tail)
    return {"session_id": session_id, "lines": lines, "count": len(lines), "truncated": cut}


def _fetched(teller: TellsLogs, instance_id: str, tail: int) -> str:
    """Providers put it somewhere some seconds later."""
    where = teller.request_logs(instance_id, tail=tail)
    while (text := teller.read_log(where)) is None:
        if deadline.left() <= LOOK_AGAIN_SECONDS:
            raise ApiError(
                503, "the provider did not have the log ready in time", error_type="log_not_ready",
                retry_suggested=True, headers={"Retry-After": "5"},
            )  # fmt: skip
        clock.pause(LOOK_AGAIN_SECONDS)
    return text


def shown(text: str, token_hash: str, tail: int) -> tuple[list[str], bool]:
    """The last lines without secrets and control characters, and whether something was cut off before them."""
    # Before anything is cut: half a secret would not be known again.
    clean = without_secrets(_TOKEN_LIKE.sub(lambda run: _without_token(run[0], token_hash), text))
    end = clean[-MOST_CHARACTERS:]
    lines = [_CONTROLS.sub("", line) for line in end.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-tail:], len(end) < len(clean) or len(lines) > tail


def _without_token(run: str, token_hash: str) -> str:
    """The agent's token is known by its hash alone, so every place where it could begin is tried."""
    for start in range(len(run) - _TOKEN_LENGTH + 1):
        if heartbeat.hashed(run[start : start + _TOKEN_LENGTH]) == token_hash:
            return run[:start] + _HIDDEN + _without_token(run[start + _TOKEN_LENGTH :], token_hash)
    return run


def reboot(session_id: str, principal: Principal = OPEN) -> datetime:
    """Down and up again, with its disk and its bill. 409 unless running, 501 where the provider cannot; when it was
    asked for. A machine that is not back after ``SSH_VERIFY_SECONDS`` is lost, and its session ends."""
    machine = _rebooter(configured.get(found(session_id, principal).provider))
    rental, before = _intend(session_id, principal.actor)
    try:
        said = ask("reboot", lambda: machine.reboot(rental.instance_id), CONFLICTS)
    except ApiError as error:
        if error.extra.get("error_type") != "outcome_unknown":
            _take_back(rental, before, error, principal.actor)
        raise
    log.info("session %s is rebooted: %s", session_id, said)
    return rental.rebooted_at or clock.now()


def _rebooter(provider: Provider) -> Reboots:
    if not (provider.capabilities.reboot and isinstance(provider, Reboots)):
        raise lacking(provider.name, REBOOTS)
    return provider


def _intend(session_id: str, actor: str) -> tuple[Rental, datetime | None]:
    """The machine, with the reboot written down, and when the one before was."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        live = Rental.objects.select_for_update(no_key=True).filter(session_id=session_id, state=Debt.LIVE)
        rental = live.first() if session.status == Status.RUNNING else None
        if rental is None:
            raise ApiError(
                409, f"session {session_id} is {session.status}; only a running one can be rebooted",
                session_id=session_id, status=session.status,
            )  # fmt: skip
        if session.paused_at is not None:
            raise ApiError(409, f"session {session_id} is paused: others bid more for its machine",
                           session_id=session_id, status=session.status)  # fmt: skip
        before, rental.rebooted_at = rental.rebooted_at, clock.now()
        rental.save(update_fields=["rebooted_at"])
        record(
            "rebooted", session_id=session_id, rental_id=rental.id, reason="a reboot was asked for", actor=actor,
            details={"instance_id": rental.instance_id},
        )  # fmt: skip
    return rental, before


def _take_back(rental: Rental, before: datetime | None, error: ApiError, actor: str) -> None:
    """The provider refused, so nothing is waited for."""
    with transaction.atomic():
        mine = Rental.objects.filter(id=rental.id, rebooted_at=rental.rebooted_at)
        mine.update(rebooted_at=before)
        record(
            "reboot_failed", session_id=rental.session_id, rental_id=rental.id, reason=error.message, actor=actor,
        )  # fmt: skip
