"""Interruptible machines that stand still because somebody bids more (Vast.ai contract, section 4.8).

A pause is what the listing shows: the machine of an interruptible session is stopped, its GPU costs nothing, its disk
goes on. The session stays as it was; nobody looks at the machine, nothing counts as idle, and all ends act as ever. The
provider is asked to start the machine as soon as the bid wins, because an outbid one is wanted "stopped". Once it runs
again it must prove itself like at the boot, at its new address, before anybody is told that it is back.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Instance, Phase
from providers.errors import ProviderError
from providers.extras import RentsByBid
from sessions_app import attempts, bidding, boot, boot_time, meter, nudge, sightings, verify, warning, watch
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Door, Pricing, Rental, Session
from sessions_app.proved import Proof
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: The start is asked for again this often, should the provider have forgotten it.
ASK_AGAIN = timedelta(minutes=10)
ASK_AFTER_A_FAILURE = timedelta(seconds=30)
#: Who can have a machine that is paused.
UP = frozenset({Status.PROVISIONING, Status.RUNNING})


def note(rental: Rental, instance: Instance) -> None:
    """What a complete listing shows of one machine, written down where it is news."""
    session = rental.session
    if session is None or session.pricing != Pricing.INTERRUPTIBLE or rental.state != Debt.LIVE:
        return
    if instance.phase == Phase.STOPPED:
        if session.paused_at is None or rental.back_at is not None:
            _stopped(rental, instance)
    elif session.paused_at is not None and instance.phase in (Phase.RUNNING, Phase.BOOTING):
        _moves(rental, instance)


def _locked(rental: Rental) -> tuple[Session, Rental] | None:
    """Both as they are now, in the one order of locks; ``None``: it is nobody's machine any more."""
    session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
    mine = Rental.objects.select_for_update(no_key=True).filter(id=rental.id, state=Debt.LIVE).first()
    return (session, mine) if mine is not None and session.status in UP else None


def _stopped(rental: Rental, instance: Instance) -> None:
    now = clock.now()
    with transaction.atomic():
        both = _locked(rental)
        if both is None:
            return
        session, mine = both
        starting = session.status == Status.PROVISIONING and not boot.should_run(mine, now)
        if starting or sightings.reboot_ends_at(mine) > now:
            return
        Rental.objects.filter(id=mine.id).update(back_at=None, next_check_at=now)
        if session.paused_at is None:
            _pause(session, mine, instance)
    nudge.rental(rental.id)


def _pause(session: Session, rental: Rental, instance: Instance) -> None:
    # It answered, and no listing has shown it running: it is billed up to now all the same.
    sightings.take_answers([rental])
    meter.stop_gpu(rental, clock.now())
    Session.objects.filter(id=session.id).update(
        paused_at=clock.now(), idle_since=None, idle_warned_at=None, next_probe_at=None
    )
    least, bid = instance.min_bid_per_hour, session.bid_price
    reason = "the provider stopped the machine"
    if least is not None and bid is not None and bid < least:
        reason = f"outbid: the least bid is now {bidding.shown(least)} an hour, ours is {bidding.shown(bid)}"
    record(
        "paused", session_id=session.id, rental_id=rental.id, reason=reason,
        details={"bid_price": str(bid), "least_bid": None if least is None else str(least),
                 "provider_says": instance.status_message[:200], "while": session.status},
    )  # fmt: skip
    log.info("session %s is paused: %s", session.id, reason)


def _moves(rental: Rental, instance: Instance) -> None:
    """A paused machine does not stand still any more."""
    now = clock.now()
    with transaction.atomic():
        both = _locked(rental)
        if both is None or both[0].paused_at is None:
            return
        session, mine = both
        if session.status == Status.PROVISIONING:
            _boots_on(session, mine)
        elif instance.phase == Phase.RUNNING and mine.back_at is None:
            due = None if mine.bid_wanted is None else mine.next_check_at
            Rental.objects.filter(id=mine.id).update(back_at=now, next_check_at=due)
            Session.objects.filter(id=session.id).update(next_check_at=now)
        else:
            return
    nudge.session(rental.session_id or "")


def _seconds_of(session: Session) -> int:
    """Of the pause that is over now."""
    return max(round((clock.now() - (session.paused_at or clock.now())).total_seconds()), 0)


def _boots_on(session: Session, rental: Rental) -> None:
    """It had never run: its boot goes on, with the time that the pause took given back."""
    seconds = _seconds_of(session)
    Session.objects.filter(id=session.id).update(paused_at=None, next_check_at=clock.now())
    Rental.objects.filter(id=rental.id).update(paused_seconds=F("paused_seconds") + seconds)
    record(
        "boot_resumed", session_id=session.id, rental_id=rental.id, reason="the machine starts again",
        details={"paused_seconds": seconds},
    )  # fmt: skip


def ask_back(rental: Rental) -> None:
    """Have the provider start a paused machine as soon as its bid wins; said again now and then, as it may forget."""
    session, mine = rental.session, Rental.objects.filter(id=rental.id, state=Debt.LIVE)
    if session is None or session.paused_at is None or rental.back_at is not None or session.status not in UP:
        mine.update(next_check_at=None)
        return
    try:
        provider = configured.get(rental.provider)
        said = provider.start(rental.instance_id) if isinstance(provider, RentsByBid) else ""
    except (ProviderError, ApiError) as error:
        pause = error.retry_after if isinstance(error, ProviderError) else None
        later = timedelta(seconds=pause) if pause else ASK_AFTER_A_FAILURE
        mine.update(last_error=str(error)[:300], next_check_at=clock.now() + later)
        log.warning("%s is paused, and its start could not be asked for: %s", rental.label, error)
        return
    mine.update(next_check_at=clock.now() + ASK_AGAIN)
    log.info("%s is paused, its start is asked for: %s", rental.label, said)


def step(session: Session) -> None:
    """One step of a paused session's way back; nothing while its machine stands still."""
    rental = session.rentals.filter(state=Debt.LIVE).first()
    if session.paused_at is None or rental is None or rental.back_at is None:
        return
    if clock.now() - rental.back_at >= boot_time.base():
        seconds = round(settings.SSH_VERIFY_SECONDS)
        why = rental.last_error or "it has no address"
        attempts.fail(
            rental, EndReason.BOOT_TIMEOUT, f"no answer within {seconds} s after the machine ran again: {why}"
        )
        return
    by_http = session.launch_mode == ENTRYPOINT
    ready = boot.endpoint_of(session, rental) if by_http else rental.ssh_endpoints and _keys_are_on(session, rental)
    if not ready:
        _look_again(session, boot.OUTBID_PAUSE if by_http else timedelta(seconds=settings.SSH_CHECK_SECONDS))
        return
    if not boot.line.enter(session.id):
        return  # whoever leaves goes on with it; should that one die, the row's lease ends
    try:
        proof = boot.knock(session, rental)
    except (verify.NotYet, verify.WrongMachine) as error:
        # Whatever answers there, it has until its time is over to be what it was.
        Rental.objects.filter(id=rental.id).update(last_error=str(error)[:300])
        _look_again(session, timedelta(seconds=settings.SSH_CHECK_SECONDS))
    else:
        _resume(session, rental, proof)
    finally:
        boot.line.leave()


def _keys_are_on(session: Session, rental: Rental) -> bool:
    """Both keys once more, through the provider: vendors rewrite the list, and nobody could look meanwhile."""
    attached = rental.keys_attached_at
    if attached is not None and rental.back_at is not None and attached >= rental.back_at:
        return True
    try:
        provider = configured.get(rental.provider)
        if provider.capabilities.attach_ssh_key:
            provider.attach_ssh_key(rental.instance_id, session.ssh_public_key, rental.broker_public_key)
    except (ProviderError, ApiError) as error:
        Rental.objects.filter(id=rental.id).update(last_error=str(error)[:300])
        return False
    Rental.objects.filter(id=rental.id).update(keys_attached_at=clock.now())
    return True


def _look_again(session: Session, pause: timedelta) -> None:
    at = clock.now() + pause
    mine = Session.objects.filter(id=session.id, status=Status.RUNNING, paused_at__isnull=False)
    mine.filter(next_check_at__gt=at).update(next_check_at=at)


def _resume(session: Session, rental: Rental, proof: Proof) -> None:
    """It answers: running as before, unless it ended or was stopped again while we looked."""
    now = clock.now()
    with transaction.atomic():
        both = _locked(rental)
        if both is None or both[0].paused_at is None or both[1].back_at is None:
            return
        fresh, seconds = both[0], _seconds_of(both[0])
        fresh.paused_at = None
        changed = {name: value for name, value in proof.session.items() if getattr(fresh, name) != value}
        changes: dict[str, Any] = {"paused_at": None, "next_probe_at": watch.first_look(fresh), **proof.session}
        Session.objects.filter(id=fresh.id).update(**changes, next_check_at=warning.next_check(fresh, now))
        opened = {"host_key": proof.host_key, "key_checked_at": now} if proof.host_key else {}
        Rental.objects.filter(id=rental.id).update(
            back_at=None, door=Door.OPEN, last_error="", paused_seconds=F("paused_seconds") + seconds, **opened
        )
        record(
            "resumed", session_id=fresh.id, rental_id=rental.id, reason=f"the machine runs again: {proof.reason}",
            details={**proof.details, "paused_seconds": seconds, "address_changed": bool(changed)},
        )  # fmt: skip
    log.info("session %s is resumed: %s", session.id, proof.reason)
