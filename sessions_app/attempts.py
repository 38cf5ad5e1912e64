"""Attempts: every rental of a session is one. What happens when one fails, and how the next one begins.

A failed attempt either ends its session or, with ``auto_retry``, leaves it ``pending``: then the failed machine is
destroyed like any other debt, and the next attempt begins only when its proof has closed it (I3). Whoever closes the
last rental makes the session due, and the driver calls :func:`next_attempt`.
"""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction

from billing import metering
from billing.budgets import InsufficientBudget
from gpubroker.common import clock, counters, crypto, sshkeys
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from offers import failures as memory
from providers.labels import make_label
from sessions_app import alternatives, heartbeat, nudge, session_budget
from sessions_app.alternatives import ELSEWHERE
from sessions_app.ending import end_session, owe_destruction, release_budget
from sessions_app.models import Rental, Session
from sessions_app.planning import Plan
from sessions_app.states import ENDABLE, OPEN, RETRYABLE, Debt, EndReason, Status
from sessions_app.transitions import record, transition

log = logging.getLogger(__name__)

#: The nudge starts a fresh attempt at once; this finds it if the nudge is lost.
LOST_NUDGE = timedelta(seconds=3)
#: A registry's words for an image that is not to be had on any machine: a request's mistake, which must not be held
#: against the machines that it was tried on, or one consumer could take them from all others.
_NO_IMAGE = re.compile(
    r"manifest unknown|pull access denied|repository does not exist|no such image|invalid reference format",
    re.IGNORECASE,
)
#: What a session knows of its machine until it has one.
NO_ADDRESS: dict[str, Any] = {"ssh_host": "", "ssh_port": None, "ssh_user": "", "api_endpoint": "", "paused_at": None}


def write_down(session: Session, plan: Plan, number: int) -> Rental:
    """The intention of one attempt, with its own label and its own key of ours, and the nudge that starts it."""
    key = sshkeys.generate("ed25519", comment=f"gpubroker-{session.id}")
    now, offer = clock.now(), plan.offer
    rental = Rental.objects.create(
        session=session,
        provider=offer.provider,
        label=make_label(deployment_id(), session.id, number),
        attempt=number,
        offer_provider_id=offer.provider_id,
        machine_id=offer.machine_id,
        gpu_type=offer.gpu_type,
        price_asked=plan.price_per_hour,
        created_at=now,
        broker_key_sealed=crypto.seal(key.private),
        broker_public_key=key.public,
        next_check_at=now + LOST_NUDGE,
    )
    nudge.rental(rental.id)
    return rental


def fail(rental: Rental, reason: EndReason, message: str) -> bool:
    """The attempt's machine came to nothing. Before the session ran, another attempt may follow; after, it ends.

    ``False``: the session is ending already, or this machine is not its machine any more: nothing changed.
    """
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        mine = Rental.objects.select_for_update(no_key=True).filter(id=rental.id, state=Debt.LIVE).first()
        if mine is None or session.status not in ENDABLE:
            return False
        again = session.status != Status.RUNNING and goes_on(session, mine, reason)
        remember(session, mine, reason, message, again=again)
        if not again:
            return end_session(session.id, reason, message=told(message, mine.attempt))
        due = min(session.expires_at, session.hard_max_at)
        if session.status == Status.PROVISIONING:
            transition(
                session.id, {Status.PROVISIONING}, Status.PENDING, reason=f"attempt {mine.attempt} failed: {message}",
                details={"attempt": mine.attempt, "reason": reason.value}, next_check_at=due, **NO_ADDRESS,
            )  # fmt: skip
        owe_destruction(mine, {Debt.LIVE}, reason=f"{reason.label}; another offer is next")
    log.info("attempt %d of session %s failed, another follows: %s %s", mine.attempt, session.id, reason, message)
    return True


def goes_on(session: Session, rental: Rental, reason: EndReason) -> bool:
    """Whether another attempt may follow this one, which failed for ``reason``."""
    elsewhere = reason in ELSEWHERE and len(configured.configured()) > 1
    return (
        session.auto_retry
        and rental.attempt <= session.max_retries
        and (reason in RETRYABLE or elsewhere)
        and clock.now() < min(session.expires_at, session.hard_max_at)
    )


def remember(session: Session, rental: Rental, reason: EndReason, message: str, *, again: bool) -> None:
    """Write the failure down: at the attempt, in the timeline, and in the memory that offers are judged by.

    In the failure's own transaction, with session and rental locked.
    """
    offer_id = f"{rental.provider}-{rental.offer_provider_id}"
    if session.running_at is None:
        metering.mark_failed(rental.id)
    Rental.objects.filter(id=rental.id).update(
        failure=reason, failure_message=message[:300], failed_at=clock.now()
    )  # fmt: skip
    record(
        "attempt_failed", session_id=session.id, rental_id=rental.id, reason=message or reason.label,
        details={"attempt": rental.attempt, "reason": reason.value, "offer_id": offer_id, "goes_on": again},
    )  # fmt: skip
    if not _is_nobodys_fault(session, reason, message):
        memory.record_failure(
            provider=rental.provider, offer_id=offer_id, machine_id=rental.machine_id,
            gpu_type=rental.gpu_type or session.gpu_type, reason=reason.value, message=message,
        )  # fmt: skip
    counters.increment("gpu_attempts_failed_total", provider=rental.provider, reason=reason.value)


def _is_nobodys_fault(session: Session, reason: EndReason, message: str) -> bool:
    """Nothing that a machine should be judged by: the request's own image, or others who bid more, which a provider may
    also call an offer that is gone."""
    outbid = reason == EndReason.OUTBID or (reason == EndReason.OFFER_GONE and session.bid_price is not None)
    return outbid or bool(session.docker_image and _NO_IMAGE.search(message))


def told(message: str, attempts: int, more: str = "") -> str:
    """The session's last word: why, and after how many attempts where there was more than one or might have been."""
    made = f"{attempts} attempt{'' if attempts == 1 else 's'} made" if attempts > 1 or more else ""
    suffix = "; ".join(part for part in (made, more) if part)
    return f"{message[: 297 - len(suffix)]} ({suffix})" if suffix else message[:300]


def end_pending(session: Session, reason: EndReason, message: str) -> bool:
    """A pending session of which nothing is owed is over: failed."""
    moved = transition(
        session.id, {Status.PENDING}, Status.FAILED, reason=message,
        details={"end_reason": reason.value}, end_reason=reason, end_message=message[:300],
        ended_at=clock.now(), next_check_at=None, agent_token_hash="", agent_token_sealed="",
    )  # fmt: skip
    if moved:
        release_budget(session.id)
        counters.increment("gpu_sessions_ended_total", provider=session.provider, reason=reason.value)
        log.warning("session %s failed to launch: %s %s", session.id, reason.value, message)
    return moved


def next_attempt(session_id: str) -> None:
    """What a pending session needs now: nothing while a rental of it is open, else its next attempt or its end."""
    try:
        _next_attempt(session_id)
    except IntegrityError:
        # A new session of the same consumer took that very offer in this moment: choose again, without it.
        _next_attempt(session_id)


def _next_attempt(session_id: str) -> None:
    seen = Session.objects.get(id=session_id)
    tried = list(seen.rentals.order_by("attempt"))
    ready = all(rental.state not in OPEN for rental in tried)
    # Looked for before anything is locked: it reads many offers.
    wanted = ready and goes_on(seen, tried[-1], _reason(tried[-1]))
    plan = alternatives.choose(seen, tried) if wanted else None
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status != Status.PENDING:
            return
        if session.rentals.filter(state__in=OPEN).exists():
            # Whoever closes it waits for this lock, and then makes the session due.
            due = min(session.expires_at, session.hard_max_at)
            Session.objects.filter(id=session_id).update(next_check_at=due)
        elif not ready or session.rentals.count() != len(tried):
            return  # closed since we looked, and so due again
        elif plan is None:
            _give_up(session, tried[-1])
        else:
            _begin_within_budget(session, tried[-1], plan)


def _reason(rental: Rental) -> EndReason:
    return EndReason(rental.failure) if rental.failure else EndReason.PROVIDER_LOST


def _begin_within_budget(session: Session, last: Rental, plan: Plan) -> None:
    try:
        session_budget.reserve_attempt(session, plan)
    except InsufficientBudget as refusal:
        _give_up(session, last, refusal.message)
    else:
        _begin(session, last.attempt + 1, plan)


def _begin(session: Session, number: int, plan: Plan) -> None:
    """The same session on another offer: same id, keys of the consumer and end; its own label, key and token."""
    offer, token = plan.offer, heartbeat.new_token()
    changes: dict[str, Any] = {
        "offer_id": offer.id,
        "provider": offer.provider,
        "gpu_type": offer.gpu_type,
        "gpu_count": offer.gpu_count,
        "vram_mb": offer.vram_mb,
        "price_per_hour": plan.price_per_hour,
        "bid_price": plan.bid_price,
        "storage_price_per_gb_month": offer.storage_price_per_gb_month,
        "docker_image": plan.docker_image,
        "launch_options": plan.launch_options,
        # A new one: the failed machine's owner has seen the old one.
        "agent_token_hash": heartbeat.hashed(token),
        "agent_token_sealed": crypto.seal(token),
        "next_check_at": min(session.expires_at, session.hard_max_at),
        **NO_ADDRESS,
    }
    Session.objects.filter(id=session.id).update(**changes)
    session.refresh_from_db()
    rental = write_down(session, plan, number)
    record(
        "attempt", session_id=session.id, rental_id=rental.id, reason=f"attempt {number} with another offer",
        details={"attempt": number, "offer_id": offer.id, "gpu_type": offer.gpu_type, "gpu_count": offer.gpu_count,
                 "price_per_hour": str(plan.price_per_hour)},
    )  # fmt: skip
    log.info("session %s goes on with attempt %d on %s", session.id, number, offer.id)


def _give_up(session: Session, last: Rental, why: str = "no other offer fits") -> None:
    more = why if last.attempt <= session.max_retries else ""
    message = told(last.failure_message or _reason(last).label, last.attempt, more)
    end_pending(session, _reason(last), message)
