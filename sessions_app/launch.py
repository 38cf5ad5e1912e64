"""From the written-down intention to a machine: the create call, and what its answer means."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from gpubroker.common import clock, crypto
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.money import storage_per_hour
from gpubroker.common.outlast import patiently
from offers import services as offers
from providers import errors
from providers.base import Access, Created, Instance, LaunchOrder
from sessions_app import attempts, heartbeat, meter, nudge
from sessions_app.ending import close_rental, owe_destruction
from sessions_app.models import ProviderWatch, Rental, Session
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import move_rental, transition

log = logging.getLogger(__name__)

#: Longer than the create call can take: after it, whoever made the call is dead and its answer is lost.
CREATE_LEASE = timedelta(seconds=150)
#: A machine that is listed so long after its create was sent is taken as found, whatever became of the answer: whoever
#: waits for it may have been killed, and the lease above is as long as the slowest provider.
ANSWER_LATE = timedelta(seconds=20)
#: How long a session may stay pending because the provider holds us off or cannot be reached.
PENDING_PATIENCE = timedelta(seconds=300)
FIRST_LOOKUP = timedelta(seconds=1)
#: Complete listings without the label before a lost create counts as never made.
LOOKUPS = 6

REFUSALS: dict[type[errors.ProviderError], EndReason] = {
    errors.OfferGone: EndReason.OFFER_GONE,
    errors.InsufficientCredit: EndReason.NO_CREDIT,
    errors.AuthError: EndReason.PROVIDER_AUTH,
}


def order_for(session: Session, rental: Rental) -> LaunchOrder:
    """What to send, again and again the same. The agent's token goes along as long as it is kept for that."""
    options = session.launch_options
    environment = {heartbeat.SESSION_VARIABLE: session.id}
    if session.agent_token_sealed:
        environment[heartbeat.TOKEN_VARIABLE] = crypto.unseal(session.agent_token_sealed)
    return LaunchOrder(
        offer_id=rental.offer_provider_id,
        label=rental.label,
        image=session.docker_image,
        disk_gb=session.disk_gb,
        env=environment,
        ports=tuple(options.get("exposed_ports", ())),
        onstart=options.get("on_start_cmd", ""),
        args=tuple(options.get("args", ())),
        template_id=session.template_hash_id,
        access=Access(options["access"]) if "access" in options else None,
        ssh_public_keys=(session.ssh_public_key, rental.broker_public_key),
        bid_price=session.bid_price,
    )


def launch(rental: Rental) -> None:
    """Send the create once. The rental is committed as ``creating`` before the call leaves us (I1).

    Its answer comes only once, so writing it down waits for a database that is just away; whoever dies meanwhile is
    found by the rental's lease."""
    assert rental.session is not None
    session = rental.session
    if not _take_in_hand(rental):
        return
    try:
        created = configured.get(rental.provider).create(order_for(session, rental))
    except errors.ProviderError as error:
        refused = error
        patiently(lambda: _not_created(rental, refused))
    except ApiError as error:
        message = error.message
        patiently(lambda: fail_create(rental, EndReason.PROVIDER_UNAVAILABLE, message))
    else:
        patiently(lambda: apply_created(rental, created))


def _take_in_hand(rental: Rental) -> bool:
    """Only while the session still wants it, and its time is not up: whoever ends a session closes what was not yet
    asked for."""
    now = clock.now()
    with transaction.atomic():
        wanted = Session.objects.select_for_update(no_key=True).filter(
            id=rental.session_id, status=Status.PENDING, expires_at__gt=now, hard_max_at__gt=now
        )
        return wanted.exists() and move_rental(
            rental, {Debt.INTENDED}, Debt.CREATING, quiet=True, create_sent_at=now, next_check_at=now + CREATE_LEASE
        )


def _hand_back(rental: Rental, error: errors.ProviderError) -> None:
    """Nothing was made and the call may be repeated: later, unless the session was ended meanwhile."""
    pause = max(error.retry_after or 0, 0 if isinstance(error, errors.GateClosed) else 2.0)
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        if session.status != Status.PENDING:
            close_rental(rental, {Debt.CREATING}, {"call": "create", "answer": f"nothing was made: {error.message}"})
            return
        move_rental(
            rental, {Debt.CREATING}, Debt.INTENDED, quiet=True,
            last_error=str(error)[:300], next_check_at=clock.now() + timedelta(seconds=pause),
        )  # fmt: skip


def _not_created(rental: Rental, error: errors.ProviderError) -> None:
    now = clock.now()
    if error.may_have_happened:
        log.warning("create of %s: answer lost, looking for its label: %s", rental.label, error)
        move_rental(
            rental, {Debt.CREATING}, Debt.UNKNOWN, reason=str(error),
            last_error=str(error)[:300], unknown_since=now, next_check_at=now + FIRST_LOOKUP,
        )  # fmt: skip
    elif error.retryable and now - rental.created_at < PENDING_PATIENCE:
        _hand_back(rental, error)
    elif error.retryable:
        fail_create(rental, EndReason.PROVIDER_UNAVAILABLE, error.message)
    else:
        fail_create(rental, REFUSALS.get(type(error), EndReason.REFUSED), error.message, answer=str(error))


def fail_create(rental: Rental, reason: EndReason, message: str, answer: str = "") -> None:
    """The provider certainly made nothing: close the rental, and the session goes on with another offer or fails, in
    one transaction."""
    expected = {Debt.INTENDED, Debt.CREATING, Debt.UNKNOWN}
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        if not close_rental(rental, expected, {"call": "create", "answer": answer or message}):
            return
        # Ended by somebody meanwhile: close_rental has finished it with that reason.
        pending = session.status == Status.PENDING
        again = pending and attempts.goes_on(session, rental, reason)
        attempts.remember(session, rental, reason, message, again=again)
        if pending and not again:
            attempts.end_pending(session, reason, attempts.told(message, rental.attempt))
        if reason == EndReason.OFFER_GONE:
            offers.withdraw(f"{rental.provider}-{rental.offer_provider_id}", "gone at create")


def apply_created(rental: Rental, created: Created) -> None:
    """The machine exists. The session goes on with it, or, when it was ended meanwhile, owes its destruction."""
    now = clock.now()
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        moved = move_rental(
            rental, {Debt.CREATING, Debt.UNKNOWN}, Debt.LIVE,
            reason=created.note, details={"instance_id": created.instance_id},
            instance_id=created.instance_id, accepted_at=now, next_check_at=None, last_error="",
        )  # fmt: skip
        if not moved and Rental.objects.filter(id=rental.id, instance_id=created.instance_id).exists():
            return  # found by its label before this answer came
        if not moved:
            log.error("late answer for %s: machine %s is left to the sweep", rental.label, created.instance_id)
            wake_sweep(rental.provider)
            return
        # Sent, and not needed again: only the machine knows it now. Another attempt gets its own.
        Session.objects.filter(id=session.id).update(agent_token_sealed="")
        _start_meter(session, rental)
        if session.status != Status.PENDING:
            owe_destruction(rental, {Debt.LIVE})
        elif not created.accepted:
            reason = EndReason.OUTBID if session.bid_price is not None else EndReason.REFUSED
            attempts.fail(rental, reason, created.note or "the provider did not start it")
        else:
            transition(session.id, {Status.PENDING}, Status.PROVISIONING, next_check_at=now)
            nudge.session(session.id)
            wake_sweep(rental.provider)
    # An offer can be taken once, and its machine's other slices get new ids.
    offers.withdraw(session.offer_id, "rented")
    offers.refresh_soon(rental.provider)


def adopt(rental: Rental, instance: Instance) -> None:
    """A lost create was found by its label."""
    log.info("found %s at the provider as %s", rental.label, instance.instance_id)
    apply_created(rental, Created(instance.instance_id, note="found by its label after a lost answer"))


def _start_meter(session: Session, rental: Rental) -> None:
    """The disk is billed from the contract on; the GPU from when the machine runs, or from the order as well."""
    began = clock.now()
    if rental.unknown_since is not None and rental.create_sent_at is not None:
        began = rental.create_sent_at  # made then or a little later, and found only now
    rate = storage_per_hour(session.storage_price_per_gb_month, session.disk_gb)
    meter.run(rental, "disk", rate, began)
    provider = configured.configured().get(rental.provider)
    if provider is not None and provider.capabilities.bills_from_order:
        meter.run(rental, "gpu", session.price_per_hour, began)


def wake_sweep(provider: str) -> None:
    """Something boots or is unclear: list this provider's machines soon."""
    soon = clock.now()
    ProviderWatch.objects.filter(provider=provider, next_sweep_at__gt=soon).update(next_sweep_at=soon)


def give_up_waiting(rental: Rental) -> None:
    """Whoever sent this create is dead: its answer is lost, so look for the label."""
    now = clock.now()
    move_rental(
        rental, {Debt.CREATING}, Debt.UNKNOWN, reason="no answer was recorded in time",
        unknown_since=now, next_check_at=now + FIRST_LOOKUP,
    )  # fmt: skip


def found_first(rental: Rental) -> bool:
    """A create under way whose machine is listed already: is it time not to wait for the answer any more? Then its
    rental is ``unknown``, and may be adopted."""
    sent = rental.create_sent_at
    if rental.state != Debt.CREATING or sent is None or clock.now() - sent < ANSWER_LATE:
        return False
    give_up_waiting(rental)
    rental.refresh_from_db()
    return rental.state == Debt.UNKNOWN


def look_up(rental: Rental) -> None:
    """One look for a lost create's label; absence counts only after as long as a listing may lag (I2)."""
    assert rental.unknown_since is not None
    now = clock.now()
    try:
        found = configured.get(rental.provider).find_by_label(rental.label)
    except errors.ProviderError as error:
        pause = max(error.retry_after or 0, 2.0)
        Rental.objects.filter(id=rental.id, state=Debt.UNKNOWN).update(
            last_error=str(error)[:300], next_check_at=now + timedelta(seconds=pause)
        )
        return
    if found:
        adopt(rental, found[0])
        return
    lookups = rental.lookups + 1
    waited = now - rental.unknown_since
    # Both the clock and the count: hosts' clocks differ, and each look-up takes real time.
    if lookups >= LOOKUPS and waited >= timedelta(seconds=settings.LISTING_LAG_SECONDS):
        answer = f"the label was in none of {lookups} complete listings over {waited.total_seconds():.0f} s"
        fail_create(rental, EndReason.CREATE_LOST, f"the provider's answer was lost, and {answer}", answer=answer)
        return
    pause = min(2.0 * lookups, settings.LISTING_LAG_SECONDS / LOOKUPS)
    Rental.objects.filter(id=rental.id, state=Debt.UNKNOWN).update(
        lookups=lookups, next_check_at=now + timedelta(seconds=pause)
    )
