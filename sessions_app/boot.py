"""From accepted to running: install the keys, wait for an address, and believe only what SSH shows.

A machine launched by its image's entrypoint has no SSH server: there, an HTTP answer on the first exposed port counts
(:mod:`sessions_app.launch_modes`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from gpubroker.common import clock, counters, crypto, rows
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Phase
from providers.errors import AuthError, InvalidRequest, ProviderError
from sessions_app import attempts, boot_time, probe, verify
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Event, Pricing, Rental, Session
from sessions_app.proved import Proof, believe
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import record, record_all
from sessions_app.waiting import Line

log = logging.getLogger(__name__)

#: Whoever has no address yet is woken when one shows; should that be lost, this finds it.
NO_ADDRESS_PAUSE = timedelta(seconds=30)
#: Until somebody who was outbid looks at the machine again.
OUTBID_PAUSE = timedelta(seconds=10)
#: A machine that is stopped this long after it was accepted does not start by itself.
STOPPED_GRACE = timedelta(seconds=60)
#: Verifications at once in one process, so that slow machines leave threads for ticks and destroys.
MOST_AT_ONCE = 20
line = Line(MOST_AT_ONCE)


def step(session: Session) -> None:
    """One step for a provisioning session; writes when to look again."""
    rental = session.rentals.filter(state=Debt.LIVE).first()
    if rental is None or f"{rental.provider}-{rental.offer_provider_id}" != session.offer_id:
        return  # its debt is being closed, and that finishes the session; or this is the next attempt's already
    now = clock.now()
    if rental.phase == Phase.STOPPED and session.pricing == Pricing.INTERRUPTIBLE and should_run(rental, now):
        _wait_for_the_bid(session, rental, now)
        return
    if rental.phase == Phase.FAILED or (rental.phase == Phase.STOPPED and should_run(rental, now)):
        _give_up(session, rental, EndReason.BOOT_FAILED, rental.status_message or "the machine failed to start")
        return
    if boot_time.is_over(session, rental, now):
        _give_up(session, rental, EndReason.BOOT_TIMEOUT, _how_far(session, rental))
        return
    by_http = session.launch_mode == ENTRYPOINT
    if rental.keys_attached_at is None and not by_http:
        if not _attach_keys(session, rental):
            return
        rental.refresh_from_db()  # an address may have come while we were busy
    if not (endpoint_of(session, rental) if by_http else rental.ssh_endpoints):
        _look_again(session, boot_time.not_past(session, rental, clock.now() + NO_ADDRESS_PAUSE))
        return
    _try(session, rental)


def _wait_for_the_bid(session: Session, rental: Rental, now: datetime) -> None:
    """Outbid before it ran. Its boot goes on when the bid wins again, but nobody waits for that for ever."""
    if boot_time.paused_for(session, rental, now) < boot_time.MOST_PAUSED:
        _look_again(session, now + OUTBID_PAUSE)
        return
    minutes = round(boot_time.MOST_PAUSED.total_seconds() / 60)
    _give_up(session, rental, EndReason.OUTBID, f"outbid for {minutes} minutes before the machine ever ran")


def should_run(rental: Rental, now: datetime) -> bool:
    """Right after the create a provider may still say "stopped", or queue the start for a moment."""
    return rental.accepted_at is None or now - rental.accepted_at >= STOPPED_GRACE


def endpoint_of(session: Session, rental: Rental) -> tuple[str, int] | None:
    """Where the first exposed port is reached from outside, once the provider tells."""
    exposed = session.launch_options.get("exposed_ports")
    outside = rental.ports.get(str(exposed[0])) if exposed else None
    return (str(outside[0]), int(outside[1])) if outside else None


def _how_far(session: Session, rental: Rental) -> str:
    seconds = boot_time.seconds(session, rental)
    if session.launch_mode == ENTRYPOINT:
        port = session.launch_options["exposed_ports"][0]
        return f"no HTTP answer on port {port} within {seconds} s: {rental.last_error or 'the port was never mapped'}"
    if not rental.ssh_endpoints:
        said = rental.status_message or rental.phase or "nothing"
        return f"no SSH address within {seconds} s; the provider says: {said}"
    return f"SSH did not answer within {seconds} s: {rental.last_error or 'never tried'}"


def _give_up(session: Session, rental: Rental, reason: EndReason, message: str) -> None:
    with transaction.atomic():
        if attempts.fail(rental, reason, message) and session.launch_mode != ENTRYPOINT:
            counters.increment("gpu_ssh_verify_failures_total", provider=session.provider)


def _look_again(session: Session, at: datetime) -> None:
    due = min(at, session.expires_at, session.hard_max_at)
    Session.objects.filter(id=session.id, status=Status.PROVISIONING).update(next_check_at=due)


def _attach_keys(session: Session, rental: Rental) -> bool:
    """Both keys, the consumer's and ours; repeating is harmless. ``False``: not done, and due again."""
    try:
        provider = configured.get(rental.provider)
        if provider.capabilities.attach_ssh_key:
            provider.attach_ssh_key(rental.instance_id, session.ssh_public_key, rental.broker_public_key)
    except (InvalidRequest, AuthError) as error:
        _give_up(session, rental, EndReason.REFUSED, f"the provider refuses the SSH key: {error.message}")
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


def knock(session: Session, rental: Rental) -> Proof:
    """What shows that the machine answers. Raises what :func:`verify.verify` raises."""
    return (_knock_by_http if session.launch_mode == ENTRYPOINT else _knock_by_ssh)(session, rental)


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


def _try(session: Session, rental: Rental) -> None:
    if not line.enter(session.id):
        return  # whoever leaves goes on with it; should that one die, the row's lease ends
    try:
        proof = knock(session, rental)
    except verify.NotYet as error:
        Rental.objects.filter(id=rental.id).update(
            last_error=str(error)[:300], verify_failures=rental.verify_failures + 1
        )
        _look_again(session, clock.now() + timedelta(seconds=settings.SSH_CHECK_SECONDS))
    except verify.WrongMachine as error:
        _give_up(session, rental, EndReason.WRONG_MACHINE, str(error))
    else:
        believe(session, rental, proof)
    finally:
        line.leave()


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


def note_addresses(machines: Sequence[tuple[Session, Rental]]) -> None:
    """The provider has told addresses: show them, not yet verified. Called inside the sweep's transaction, with the
    sessions locked and the machines known to be theirs still."""
    waiting = [(s, r) for s, r in machines if s.status == Status.PROVISIONING and s.launch_mode != ENTRYPOINT]
    for session, rental in waiting:
        first = rental.ssh_endpoints[0]
        session.ssh_host, session.ssh_port, session.ssh_user = first["host"], first["port"], first["user"]
    rows.write_each([session for session, _ in waiting], ["ssh_host", "ssh_port", "ssh_user"])
    record_all(
        Event(session_id=session.id, rental_id=rental.id, kind="address", reason="the provider gave an SSH address",
              details={"ssh": [f"{item['user']}@{item['host']}:{item['port']}" for item in rental.ssh_endpoints]})
        for session, rental in waiting
    )  # fmt: skip
