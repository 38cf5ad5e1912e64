"""From accepted to running: install the keys, wait for an address, and believe only what SSH shows."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from gpubroker.common import clock, counters, crypto
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Phase
from providers.errors import AuthError, InvalidRequest, ProviderError
from sessions_app import verify
from sessions_app.ending import end_session
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
        _give_up(session, EndReason.BOOT_TIMEOUT, _how_far(rental))
        return
    if rental.keys_attached_at is None:
        if not _attach_keys(session, rental):
            return
        rental.refresh_from_db()  # an address may have come while we were busy
    if not rental.ssh_endpoints:
        # The sweep wakes us when an address shows; should that wake-up be lost, this finds it.
        _look_again(session, min(boot_deadline(rental), clock.now() + NO_ADDRESS_PAUSE))
        return
    _try_ssh(session, rental)


def _how_far(rental: Rental) -> str:
    seconds = int(settings.SSH_VERIFY_SECONDS)
    if not rental.ssh_endpoints:
        said = rental.status_message or rental.phase or "nothing"
        return f"no SSH address within {seconds} s; the provider says: {said}"
    return f"SSH did not answer within {seconds} s: {rental.last_error or 'never tried'}"


def _give_up(session: Session, reason: EndReason, message: str) -> None:
    with transaction.atomic():
        if end_session(session.id, reason, message=message):
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


def _try_ssh(session: Session, rental: Rental) -> None:
    endpoints = [verify.Endpoint(item["host"], item["port"], item["user"]) for item in rental.ssh_endpoints]
    promise = verify.Promise(gpu_count=session.gpu_count, vram_mb=session.vram_mb)
    key = crypto.unseal(rental.broker_key_sealed)
    if not _slots.acquire(blocking=False):
        _look_again(session, clock.now() + timedelta(seconds=1))
        return
    try:
        verified = verify.verify(endpoints, key, promise, rental.host_key)
    except verify.NotYet as error:
        Rental.objects.filter(id=rental.id).update(
            last_error=str(error)[:300], verify_failures=rental.verify_failures + 1
        )
        _look_again(session, clock.now() + timedelta(seconds=settings.SSH_CHECK_SECONDS))
    except verify.WrongMachine as error:
        _give_up(session, EndReason.WRONG_MACHINE, str(error))
    else:
        _believe(session, rental, verified)
    finally:
        _slots.release()


def _believe(session: Session, rental: Rental, verified: verify.Verified) -> None:
    now = clock.now()
    endpoint = verified.endpoint
    with transaction.atomic():
        Session.objects.select_for_update(no_key=True).get(id=session.id)
        if Rental.objects.filter(id=rental.id, phase=Phase.FAILED).exists():
            Session.objects.filter(id=session.id, status=Status.PROVISIONING).update(next_check_at=now)
            return  # it died while we were logged in
        moved = transition(
            session.id, {Status.PROVISIONING}, Status.RUNNING, reason="SSH verified",
            details={"ssh": f"{endpoint.user}@{endpoint.host}:{endpoint.port}", "gpus": list(verified.gpus),
                     "host_key": verify.fingerprint(verified.host_key)},
            running_at=now, ssh_host=endpoint.host, ssh_port=endpoint.port, ssh_user=endpoint.user,
            next_check_at=min(session.expires_at, session.hard_max_at),
        )  # fmt: skip
        if not moved:
            return
        Rental.objects.filter(id=rental.id).update(host_key=verified.host_key, last_error="")
        seconds = (now - (rental.verify_from or now)).total_seconds()
        counters.observe_duration("gpu_ssh_verify_duration_seconds", max(seconds, 0.0), provider=session.provider)
    log.info("session %s is running at %s:%s", session.id, endpoint.host, endpoint.port)


def note_address(session: Session, rental: Rental) -> None:
    """The provider has told an address: show it, not yet verified. Called inside the sweep's transaction."""
    first = rental.ssh_endpoints[0]
    shown = Session.objects.filter(id=session.id, status=Status.PROVISIONING)
    if shown.update(ssh_host=first["host"], ssh_port=first["port"], ssh_user=first["user"]):
        record(
            "address", session_id=session.id, rental_id=rental.id, reason="the provider gave an SSH address",
            details={"ssh": [f"{item['user']}@{item['host']}:{item['port']}" for item in rental.ssh_endpoints]},
        )  # fmt: skip
