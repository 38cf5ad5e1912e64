"""From accepted to running: install the keys, wait for an address, and believe only what SSH shows.

A machine launched by its image's entrypoint has no SSH server: there, an HTTP answer on the first exposed port counts
(:mod:`sessions_app.launch_modes`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from gpubroker.common import clock, counters, crypto
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Phase
from providers.errors import AuthError, InvalidRequest, ProviderError
from sessions_app import probe, verify
from sessions_app.ending import end_session
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import record, transition

log = logging.getLogger(__name__)

NO_ADDRESS_PAUSE = timedelta(seconds=10)
#: Verifications at once in one process, so that slow machines leave threads for ticks and destroys.
MOST_AT_ONCE = 20
_slots = threading.BoundedSemaphore(MOST_AT_ONCE)


def boot_deadline(rental: Rental) -> datetime:
    assert rental.accepted_at is not None
    return rental.accepted_at + timedelta(seconds=settings.SSH_VERIFY_SECONDS)


def step(session: Session) -> None:
    """One step for a provisioning session; writes when to look again."""
    rental = session.rentals.filter(state=Debt.LIVE).first()
    if rental is None:
        return  # its debt is being closed, and that finishes the session
    now = clock.now()
    if rental.phase == Phase.FAILED:
        _give_up(session, EndReason.BOOT_FAILED, rental.status_message or "the machine failed to start")
        return
    if now >= boot_deadline(rental):
        _give_up(session, EndReason.BOOT_TIMEOUT, _how_far(session, rental))
        return
    by_http = session.launch_mode == ENTRYPOINT
    if rental.keys_attached_at is None and not by_http:
        if not _attach_keys(session, rental):
            return
        rental.refresh_from_db()  # an address may have come while we were busy
    if not (endpoint_of(session, rental) if by_http else rental.ssh_endpoints):
        # The sweep wakes us when an address shows; should that wake-up be lost, this finds it.
        _look_again(session, min(boot_deadline(rental), clock.now() + NO_ADDRESS_PAUSE))
        return
    _try(session, rental, _knock_by_http if by_http else _knock_by_ssh)


def endpoint_of(session: Session, rental: Rental) -> tuple[str, int] | None:
    """Where the first exposed port is reached from outside, once the provider tells."""
    exposed = session.launch_options.get("exposed_ports")
    outside = rental.ports.get(str(exposed[0])) if exposed else None
    return (str(outside[0]), int(outside[1])) if outside else None


def _how_far(session: Session, rental: Rental) -> str:
    seconds = int(settings.SSH_VERIFY_SECONDS)
    if session.launch_mode == ENTRYPOINT:
        port = session.launch_options["exposed_ports"][0]
        return f"no HTTP answer on port {port} within {seconds} s: {rental.last_error or 'the port was never mapped'}"
    if not rental.ssh_endpoints:
        said = rental.status_message or rental.phase or "nothing"
        return f"no SSH address within {seconds} s; the provider says: {said}"
    return f"SSH did not answer within {seconds} s: {rental.last_error or 'never tried'}"


def _give_up(session: Session, reason: EndReason, message: str) -> None:
    with transaction.atomic():
        if end_session(session.id, reason, message=message) and session.launch_mode != ENTRYPOINT:
            counters.increment("gpu_ssh_verify_failures_total", provider=session.provider)


def _look_again(session: Session, at: datetime) -> None:
    due = min(at, session.expires_at, session.hard_max_at)
    Session.objects.filter(id=session.id, status=Status.PROVISIONING).update(next_check_at=due)


def _attach_keys(session: Session, rental: Rental) -> bool:
    """Both keys, the consumer's and ours; repeating is harmless. ``False``: not done, and due again."""
    try:
        provider = configured.get(rental.provider)
        if provider.capabilities.attach_ssh_key:
            for key in (session.ssh_public_key, rental.broker_public_key):
                provider.attach_ssh_key(rental.instance_id, key)
    except (InvalidRequest, AuthError) as error:
        _give_up(session, EndReason.REFUSED, f"the provider refuses the SSH key: {error.message}")
        return False
    except ProviderError as error:
        # Not found, too: a fresh machine may not be known everywhere at the provider yet.
        Rental.objects.filter(id=rental.id).update(last_error=str(error)[:300])
        _look_again(session, clock.now() + timedelta(seconds=error.retry_after or 1.0))
        return False
    except ApiError as error:
        Rental.objects.filter(id=rental.id).update(last_error=error.message[:300])
        _look_again(session, clock.now() + timedelta(seconds=30))
        return False
    Rental.objects.filter(id=rental.id).update(keys_attached_at=clock.now())
    return True


@dataclass(frozen=True, slots=True)
class Proof:
    """What showed that the machine runs: an event's words, and what is written down with it."""

    reason: str
    details: dict[str, Any]
    session: dict[str, Any]
    host_key: str = ""


def _knock_by_ssh(session: Session, rental: Rental) -> Proof:
    endpoints = [verify.Endpoint(item["host"], item["port"], item["user"]) for item in rental.ssh_endpoints]
    promise = verify.Promise(gpu_count=session.gpu_count, vram_mb=session.vram_mb)
    verified = verify.verify(endpoints, crypto.unseal(rental.broker_key_sealed), promise, rental.host_key)
    at = verified.endpoint
    return Proof(
        "SSH verified",
        {"ssh": f"{at.user}@{at.host}:{at.port}", "gpus": list(verified.gpus),
         "host_key": verify.fingerprint(verified.host_key)},
        {"ssh_host": at.host, "ssh_port": at.port, "ssh_user": at.user},
        verified.host_key,
    )  # fmt: skip


def _knock_by_http(session: Session, rental: Rental) -> Proof:
    at = endpoint_of(session, rental)
    if at is None:
        raise verify.NotYet("the port is not mapped any more")
    line = probe.answer(*at)
    return Proof("HTTP answered", {"api_endpoint": api_endpoint(*at), "answer": line}, {})


def _try(session: Session, rental: Rental, knock: Callable[[Session, Rental], Proof]) -> None:
    if not _slots.acquire(blocking=False):
        _look_again(session, clock.now() + timedelta(seconds=1))
        return
    try:
        proof = knock(session, rental)
    except verify.NotYet as error:
        Rental.objects.filter(id=rental.id).update(
            last_error=str(error)[:300], verify_failures=rental.verify_failures + 1
        )
        _look_again(session, clock.now() + timedelta(seconds=settings.SSH_CHECK_SECONDS))
    except verify.WrongMachine as error:
        _give_up(session, EndReason.WRONG_MACHINE, str(error))
    else:
        _believe(session, rental, proof)
    finally:
        _slots.release()


def _believe(session: Session, rental: Rental, proof: Proof) -> None:
    now = clock.now()
    with transaction.atomic():
        fresh = Session.objects.select_for_update(no_key=True).get(id=session.id)
        if Rental.objects.filter(id=rental.id, phase=Phase.FAILED).exists():
            Session.objects.filter(id=session.id, status=Status.PROVISIONING).update(next_check_at=now)
            return  # it died while we were looking
        moved = transition(
            session.id, {Status.PROVISIONING}, Status.RUNNING, reason=proof.reason, details=proof.details,
            running_at=now, next_check_at=min(fresh.expires_at, fresh.hard_max_at), **proof.session,
        )  # fmt: skip
        if not moved:
            return
        Rental.objects.filter(id=rental.id).update(host_key=proof.host_key, last_error="")
        seconds = (now - (rental.verify_from or now)).total_seconds()
        if proof.host_key:
            counters.observe_duration("gpu_ssh_verify_duration_seconds", max(seconds, 0.0), provider=session.provider)
    log.info("session %s is running: %s", session.id, proof.reason)


def api_endpoint(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def note_endpoint(session: Session, rental: Rental) -> None:
    """The provider's port map shows where the first exposed port is. Called inside the sweep's transaction."""
    at = endpoint_of(session, rental)
    if at is None or session.api_endpoint == api_endpoint(*at):
        return
    live = Session.objects.filter(id=session.id, status__in=[Status.PROVISIONING, Status.RUNNING])
    if live.update(api_endpoint=api_endpoint(*at)):
        record(
            "endpoint", session_id=session.id, rental_id=rental.id, reason="the provider mapped the exposed ports",
            details={"api_endpoint": api_endpoint(*at), "ports": rental.ports},
        )  # fmt: skip


def note_address(session: Session, rental: Rental) -> None:
    """The provider has told an address: show it, not yet verified. Called inside the sweep's transaction."""
    first = rental.ssh_endpoints[0]
    shown = Session.objects.filter(id=session.id, status=Status.PROVISIONING)
    if shown.update(ssh_host=first["host"], ssh_port=first["port"], ssh_user=first["user"]):
        record(
            "address", session_id=session.id, rental_id=rental.id, reason="the provider gave an SSH address",
            details={"ssh": [f"{item['user']}@{item['host']}:{item['port']}" for item in rental.ssh_endpoints]},
        )  # fmt: skip
