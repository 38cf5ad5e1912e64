"""Another bid for an interruptible session's machine.

The wish is written down before the provider is asked, and stays due until it is done or refused: a crash in between
repeats the call, which says the same again. Of two wishes at once the second is refused, so that the books and the
provider never disagree about which came last.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.db import transaction

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import OPEN, Principal
from providers import deadline
from providers.errors import GateClosed, NotSupported, ProviderError, RateLimited
from providers.extras import RentsByBid
from sessions_app import launch, meter, paused, session_budget
from sessions_app.bidding import refuse_bounds, shown
from sessions_app.machine import CONFLICTS
from sessions_app.models import Pricing, Rental, Session
from sessions_app.provider_calls import LOOK_AGAIN_SECONDS, patience, refusal
from sessions_app.services import found
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: Longer than a request may try by itself: afterwards the driver goes on.
LEASE = timedelta(seconds=120)
MOST_PAUSE = 60.0
BIDDABLE = frozenset({Status.PROVISIONING, Status.RUNNING})


@dataclass(frozen=True, slots=True)
class Changed:
    #: Whether the provider has taken it; else it is still being told.
    settled: bool
    paused: bool


def change(session_id: str, price: Decimal, principal: Principal = OPEN) -> Changed:
    """409 unless interruptible and up, or while another bid is on its way; 400 out of bounds; what else the provider
    says. Repeating it is harmless."""
    configured.get(found(session_id, principal).provider)
    rental = _intend(session_id, price, principal.actor)
    error = _send_patiently(rental) if rental is not None else None
    session = Session.objects.get(id=session_id)
    wanted = Rental.objects.filter(session_id=session_id, state=Debt.LIVE).values_list("bid_wanted", flat=True).first()
    if wanted == price:
        return Changed(False, session.paused_at is not None)
    if session.bid_price == price and session.status in BIDDABLE:
        return Changed(True, session.paused_at is not None)
    if error is not None:
        raise refusal(error, "bid", CONFLICTS)
    if session.status in BIDDABLE:
        meanwhile = f"this bid for session {session_id} was refused, or another came after it; see its events"
    else:
        meanwhile = f"session {session_id} ended meanwhile, it is {session.status}"
    raise ApiError(409, meanwhile, session_id=session_id, status=session.status)


def _intend(session_id: str, price: Decimal, actor: str) -> Rental | None:
    """The machine, with the wish written down; ``None``: that is its bid already."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        live = Rental.objects.select_for_update(no_key=True).filter(session_id=session_id, state=Debt.LIVE)
        rental = live.first() if session.status in BIDDABLE else None
        if session.pricing != Pricing.INTERRUPTIBLE:
            raise ApiError(409, f"session {session_id} is not interruptible: it has no bid", session_id=session_id)
        if rental is None:
            raise ApiError(
                409, f"session {session_id} is {session.status}; only a bid for a machine that is up can be changed",
                session_id=session_id, status=session.status,
            )  # fmt: skip
        refuse_bounds(price, session.gpu_count, session.max_price)
        if rental.bid_wanted not in (None, price):
            raise ApiError(
                409, f"a bid of {shown(rental.bid_wanted)} an hour is on its way for session {session_id}; ask again",
                session_id=session_id, headers={"Retry-After": "5"},
            )  # fmt: skip
        if rental.bid_wanted is None and session.bid_price == price:
            return None
        rental.bid_wanted, rental.bid_wanted_by = price, actor
        rental.next_check_at = clock.now() + LEASE
        rental.save(update_fields=["bid_wanted", "bid_wanted_by", "next_check_at"])
        session_budget.reserve(session, rental)
    return rental


def _send_patiently(rental: Rental) -> ProviderError | None:
    """Within the request's time; a slot of the gate that is taken is waited for."""
    until = time.monotonic() + patience()
    with deadline.within(patience()):
        while isinstance(error := send(rental), GateClosed | RateLimited):
            pause = error.retry_after or LOOK_AGAIN_SECONDS
            if time.monotonic() + pause >= until:
                break
            clock.pause(pause)
            if not _still_wanted(rental):
                return None  # the driver has told it, and another bid may have followed
    return error


def _still_wanted(rental: Rental) -> bool:
    """Nobody has told it meanwhile; if so it is in our hands again, and the driver leaves it."""
    mine = Rental.objects.filter(id=rental.id, state=Debt.LIVE, bid_wanted=rental.bid_wanted)
    return bool(mine.update(next_check_at=clock.now() + LEASE))


def tend(rental: Rental) -> None:
    """What a machine that lives needs now: a bid that is still to be made, or to be asked back after a pause."""
    if rental.bid_wanted is None:
        paused.ask_back(rental)
        return
    try:
        send(rental)
    except ApiError as error:  # the provider is not configured any more
        Rental.objects.filter(id=rental.id, state=Debt.LIVE).update(
            last_error=error.message[:300], next_check_at=clock.now() + timedelta(seconds=MOST_PAUSE)
        )


def send(rental: Rental) -> ProviderError | None:
    """Tell the provider the bid that is wanted, once. Its refusal ends the wish; any other failure leaves it due."""
    price, provider = rental.bid_wanted, configured.get(rental.provider)
    assert price is not None
    try:
        if not isinstance(provider, RentsByBid):
            raise NotSupported("no bids", provider=rental.provider, operation="set_bid")
        answer = provider.set_bid(rental.instance_id, price)
    except ProviderError as error:
        if error.retryable or error.may_have_happened:
            _later(rental, error)
        else:
            _refused(rental, price, error)
        return error
    _settle(rental, price, answer)
    return None


def _later(rental: Rental, error: ProviderError) -> None:
    pause = min(max(error.retry_after or 0.0, 5.0), MOST_PAUSE)
    Rental.objects.filter(id=rental.id, state=Debt.LIVE, bid_wanted=rental.bid_wanted).update(
        last_error=str(error)[:300], next_check_at=clock.now() + timedelta(seconds=pause)
    )


def _refused(rental: Rental, price: Decimal, error: ProviderError) -> None:
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        mine = Rental.objects.filter(id=rental.id, state=Debt.LIVE, bid_wanted=price)
        if mine.update(bid_wanted=None, bid_wanted_by="", last_error=str(error)[:300], next_check_at=clock.now()):
            session_budget.give_back(session)
            record(
                "bid_refused", session_id=rental.session_id, rental_id=rental.id, reason=error.message,
                actor=rental.bid_wanted_by or "broker", details={"bid_price": str(price)},
            )  # fmt: skip


def _settle(rental: Rental, price: Decimal, answer: str) -> None:
    """The provider has it: from now on it is the session's price. A paused machine may win with it."""
    now = clock.now()
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        mine = Rental.objects.filter(id=rental.id, state=Debt.LIVE, bid_wanted=price)
        if not mine.update(bid_wanted=None, bid_wanted_by="", price_asked=price, last_error="", next_check_at=now):
            return
        # It may have been stopped, or begun to run, while the provider was asked.
        rental.refresh_from_db(fields=["gpu_rate", "gpu_from"])
        Session.objects.filter(id=session.id).update(bid_price=price, price_per_hour=price)
        if rental.gpu_rate is not None:
            meter.run(rental, "gpu", price, now)  # from now on, not from when the next listing tells of it
        record(
            "bid_changed", session_id=session.id, rental_id=rental.id, actor=rental.bid_wanted_by or "broker",
            reason=f"the bid is {shown(price)} an hour now, it was {shown(session.bid_price or price)}",
            details={"before": str(session.bid_price), "bid_price": str(price), "provider_says": answer[:200]},
        )  # fmt: skip
        launch.wake_sweep(rental.provider)
    log.info("session %s bids %s an hour now", session.id, shown(price))
