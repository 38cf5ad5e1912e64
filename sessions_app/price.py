"""What a machine costs against what its offer said: a provider that asks more is told on, and dropped above a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from django.db import transaction

from gpubroker.common import clock, counters, rows
from gpubroker.common.money import quantize
from providers.base import Instance
from sessions_app import attempts
from sessions_app.meter import MOST
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import lock_rentals, record_all

#: Vendors round, and quote a search and a contract in different places: up to this share above the offer is no drift.
DRIFT = Decimal("1.05")
ZERO = Decimal(0)
PLACES = Decimal("0.00000001")


def note_all(seen: Sequence[tuple[Rental, Instance]]) -> None:
    """The rates in one listing, dollars per hour without disk. One above ``max_price`` ends an attempt that does not
    run yet; what runs is the sweep's to end, as one faulty listing may show all of them to be dear."""
    told = [(r, i) for r, i in seen if i.gpu_price_per_hour is not None and r.session is not None]
    live = [(rental, instance) for rental, instance in told if rental.state == Debt.LIVE]
    rates = [(rental, min(instance.gpu_price_per_hour or ZERO, MOST).quantize(PLACES)) for rental, instance in live]
    _write_down([(rental, rate) for rental, rate in rates if rate != rental.price_actual])
    for rental, instance in live:
        message = above(rental, instance)
        if message and rental.session is not None and rental.session.status != Status.RUNNING:
            attempts.fail(rental, EndReason.PRICE, message)


def above(rental: Rental, instance: Instance) -> str:
    """Why this machine is too dear for its session; empty when it is not. Compared as prices are shown: whoever copies
    the offer's price into ``max_price`` may have it, although the vendor quotes more digits."""
    session, rate = rental.session, instance.gpu_price_per_hour
    if session is None or session.max_price is None or rate is None or rental.state != Debt.LIVE:
        return ""
    if quantize(min(rate, MOST)) <= session.max_price:
        return ""
    return f"the provider asks {_dollars(min(rate, MOST))} an hour, max_price is {_dollars(session.max_price)}"


def _write_down(news: Sequence[tuple[Rental, Decimal]]) -> None:
    if not news:
        return
    with transaction.atomic():
        # Sessions before rentals, each in the order of its ids: the one order of locks for everybody.
        ours = Session.objects.filter(id__in=[rental.session_id for rental, _ in news]).order_by("id")
        list(ours.select_for_update(no_key=True).values_list("id", flat=True))
        live = set(lock_rentals([rental for rental, _ in news], Debt.LIVE).values_list("id", flat=True))
        noted = [(rental, rate) for rental, rate in news if rental.id in live]
        drifted = [(r, rate) for r, rate in noted if r.price_asked is not None and rate > r.price_asked * DRIFT]
        above, now = {rental.id for rental, _ in drifted}, clock.now()
        for rental, rate in noted:
            rental.price_actual = rate
            rental.drifted_at = (rental.drifted_at or now) if rental.id in above else None
        rows.write_each([rental for rental, _ in noted], ["price_actual", "drifted_at"])
        record_all(_drift(rental, rental.price_asked or ZERO, rate) for rental, rate in drifted)
        for provider, count in Counter(rental.provider for rental, _ in drifted).items():
            counters.increment("gpu_price_drift_total", count, provider=provider)


def _drift(rental: Rental, asked: Decimal, rate: Decimal) -> Event:
    return Event(
        kind="price_drift", session_id=rental.session_id, rental_id=rental.id,
        reason=f"the offer said {_dollars(asked)} an hour, the provider bills {_dollars(rate)}",
        details={"attempt": rental.attempt, "price_asked": str(quantize(asked)), "price": str(quantize(rate))},
    )  # fmt: skip


def _dollars(amount: Decimal) -> str:
    text = f"{quantize(amount):f}".rstrip("0").rstrip(".")
    return f"${text}"
