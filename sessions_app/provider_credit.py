"""No new session where the provider account cannot carry what already runs there to its promised ends as well.

A refusal out of kindness, not a rule that is held at every commit: two creates in one moment may both be let through,
and then the provider has the last word. A balance that is unknown or stale refuses nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings

from billing import balance
from gpubroker.common import clock
from gpubroker.common.errors import ApiError
from gpubroker.common.money import exact_cost, storage_per_hour
from sessions_app import preserve
from sessions_app.models import Rental, Session
from sessions_app.planning import Plan, Wish
from sessions_app.states import OPEN, Debt

log = logging.getLogger(__name__)

#: In the answer, whether we refuse or the provider did.
ERROR_TYPE = "insufficient_provider_credit"
ZERO = Decimal(0)
#: Their machines are on their way out, or keep a disk only.
_GPU_OFF = frozenset({Debt.PARKING, Debt.PRESERVED})


def refuse_if_short(wish: Wish, planned: Plan) -> None:
    """503 when the account's credit, as it was last told, does not reach; nothing is written."""
    margin = Decimal(str(settings.PROVIDER_CREDIT_MARGIN))
    if not margin:
        return
    provider = planned.offer.provider
    account = balance.standing(provider)
    if account is None or not account.fresh or account.left is None:
        return
    needed = (promised(provider, clock.now()) + cost_of(wish, planned)) * margin
    if needed <= account.left:
        return
    # What is left and what others were promised is the operator's business, not the consumer's.
    log.warning(
        "the credit at %s does not carry another session: %s are needed until what runs there has ended, this one "
        "included, and %s are left", provider, _dollars(needed), _dollars(account.left),
    )  # fmt: skip
    raise ApiError(
        503, f"the operator's credit at {provider} does not carry another session until what runs there has ended",
        error_type=ERROR_TYPE, provider=provider, offer_id=planned.offer.id, retry_suggested=False,
    )  # fmt: skip


def _dollars(amount: Decimal) -> str:
    return f"${amount:.2f}"


def cost_of(wish: Wish, planned: Plan) -> Decimal:
    """Of the session that is asked for, to its promised end, with the disk that it wants kept."""
    disk = storage_per_hour(planned.offer.storage_price_per_gb_month, planned.disk_gb)
    kept = (wish.preserve_hours or preserve.DEFAULT_HOURS) if wish.storage_policy == "preserve" else 0
    return (planned.price_per_hour + disk) * wish.reservation_hours + disk * kept


def promised(provider: str, now: datetime) -> Decimal:
    """Dollars from now to the promised ends of everything of ours that a provider has or is asked for."""
    rentals = Rental.objects.filter(provider=provider, state__in=OPEN - {Debt.DESTROYING}, session__isnull=False)
    columns = rentals.select_related("session").only(
        "state", "gpu_rate", "disk_rate", "preserve_until", "session__price_per_hour", "session__expires_at",
        "session__storage_price_per_gb_month", "session__disk_gb", "session__preserve_hours",
    )  # fmt: skip
    return sum((_rest(rental, now) for rental in columns.iterator(chunk_size=2000)), ZERO)


def _rest(rental: Rental, now: datetime) -> Decimal:
    session = rental.session
    assert session is not None
    disk = rental.disk_rate
    if disk is None:
        disk = storage_per_hour(session.storage_price_per_gb_month, session.disk_gb)
    if rental.state in _GPU_OFF:
        return exact_cost(disk, (rental.preserve_until or _kept_until(session)) - now)
    gpu = rental.gpu_rate if rental.gpu_rate is not None else session.price_per_hour
    return exact_cost(gpu, session.expires_at - now) + exact_cost(disk, _kept_until(session) - now)


def _kept_until(session: Session) -> datetime:
    return session.expires_at + timedelta(hours=session.preserve_hours or 0)
