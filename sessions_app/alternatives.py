"""Which offer a session goes on with after a failed attempt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.db.models import Q, QuerySet

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from offers import failures
from offers.health import machine_key
from offers.listed import confidence
from offers.models import Offer
from sessions_app import maintenance, planning, session_budget
from sessions_app.models import Rental, RetryScope, Session
from sessions_app.planning import Plan
from sessions_app.states import LIVE, EndReason
from templates_app import selectors as templates
from templates_app.matching import Filters, compiled

log = logging.getLogger(__name__)

#: Without ``max_price`` the next offer costs at most this many times what the first one did.
MOST_TIMES_THE_FIRST_PRICE = Decimal("1.5")
#: Looked at, cheapest first: beyond these a better one is not worth its price.
MOST_LOOKED_AT = 300
#: They speak of our account at the provider: only another provider can do better.
ELSEWHERE = frozenset({EndReason.NO_CREDIT, EndReason.PROVIDER_AUTH})


def choose(session: Session, tried: Sequence[Rental]) -> Plan | None:
    """The surest and then cheapest offer that can do what was asked and that the budget holds, on no machine that this
    session has tried.

    ``tried`` are its attempts so far, the first one first. ``None``: there is no such offer.
    """
    wish = planning.wish_of(session)
    filters = _template_filters(session)
    affordable = session_budget.affordable(session)
    for offer in _ranked(session, tried):
        if filters is not None and not filters.match(offer.raw, offer.fetched_at):
            continue
        try:
            found = planning.fit(replace(wish, offer_id=offer.id), offer)
        except ApiError as refusal:
            log.debug("offer %s does not fit session %s: %s", offer.id, session.id, refusal.message)
            continue
        if affordable(found):
            return found
    return None


def _template_filters(session: Session) -> Filters | None:
    """The first offer was the consumer's own choice; one of ours must be what the template asks for."""
    template = templates.one(session.template_hash_id) if session.template_hash_id else None
    return compiled(template.raw.get("extra_filters")) if template is not None else None


def _ranked(session: Session, tried: Sequence[Rental]) -> list[Offer]:
    """Those on machines that failed for others lately come last, the suppressed ones not at all."""
    now = clock.now()
    view = failures.remembered().at(now)
    ranked = []
    # The bid costs the same everywhere; where the least one is low, it is the safest from others'.
    price = "price_per_hour" if session.bid_price is None else "min_bid_per_hour"
    for offer in _fitting(session, tried, now).order_by(price, "id")[:MOST_LOOKED_AT]:
        machine = machine_key(offer.provider, offer.machine_id, offer.id)
        if machine not in view.suppressed:
            sure = confidence(offer.fetched_at, now, view.factor(machine, offer.provider, offer.gpu_type))
            ranked.append((-round(sure, 1), getattr(offer, price) or Decimal(0), offer.id, offer))
    return [row[-1] for row in sorted(ranked, key=lambda row: row[:-1])]


def _fitting(session: Session, tried: Sequence[Rental], now: datetime) -> QuerySet[Offer]:
    """All that the database can tell; the rest is the plan's to refuse."""
    first = tried[0]
    refused = {rental.provider for rental in tried if rental.failure in ELSEWHERE} | maintenance.under()
    most = session.max_price or (first.price_asked or session.price_per_hour) * MOST_TIMES_THE_FIRST_PRICE
    hours = Decimal((session.expires_at - now).total_seconds()) / 3600
    price = Q(price_per_hour__lte=most)
    if session.bid_price is not None:
        # What the offer costs on demand is nothing to a bid.
        price = Q(interruptible=True) & (Q(min_bid_per_hour__isnull=True) | Q(min_bid_per_hour__lte=session.bid_price))
    offers = Offer.objects.defer("raw").filter(
        Q(disk_gb__isnull=True) | Q(disk_gb__gte=session.disk_gb),
        # Zero and unknown: no limit.
        Q(max_duration_hours__isnull=True) | Q(max_duration_hours=0) | Q(max_duration_hours__gte=hours),
        _alike(session, first),
        price,
        withdrawn_at__isnull=True,
        provider__in=set(configured.configured()) - refused,
    )
    for rental in tried:
        offers = offers.exclude(id=_offer_id(rental))
        if rental.machine_id:
            offers = offers.exclude(provider=rental.provider, machine_id=rental.machine_id)
    active = Session.objects.filter(consumer_id=session.consumer_id, status__in=LIVE).values("offer_id")
    return offers.exclude(id__in=active)


def _alike(session: Session, first: Rental) -> Q:
    """As ``retry_scope`` says, measured at the offer that the consumer chose, not at the last one of ours."""
    if session.retry_scope == RetryScope.ANY:
        return Q()
    chosen = Offer.objects.defer("raw").get(id=_offer_id(first))
    if session.retry_scope == RetryScope.SAME_VRAM:
        return Q(vram_gb__gte=chosen.vram_gb, gpu_count=chosen.gpu_count)
    return Q(gpu_key=chosen.gpu_key, gpu_count=chosen.gpu_count)


def _offer_id(rental: Rental) -> str:
    return f"{rental.provider}-{rental.offer_provider_id}"
