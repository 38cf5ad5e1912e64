"""What a machine costs against what its offer said: a provider that asks more is told on, and dropped above a limit."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from gpubroker.common import counters
from gpubroker.common.money import quantize
from providers.base import Instance
from sessions_app import attempts
from sessions_app.meter import MOST
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, EndReason, Status
from sessions_app.transitions import record

#: Vendors round, and quote a search and a contract in different places: up to this share above the offer is no drift.
TOLERANCE = Decimal("0.05")
PLACES = Decimal("0.00000001")


def note(rental: Rental, instance: Instance) -> None:
    """The rate in one listing, dollars per hour without disk. Above ``max_price`` it ends an attempt that does not run
    yet; what runs is the sweep's to end, as one faulty listing may show all of them to be dear."""
    session = rental.session
    if instance.gpu_price_per_hour is None or session is None or rental.state != Debt.LIVE:
        return
    rate = min(instance.gpu_price_per_hour, MOST).quantize(PLACES)
    if rate != rental.price_actual:
        _write_down(rental, rate)
        rental.price_actual = rate
    message = above(rental, instance)
    if message and session.status != Status.RUNNING:
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


def _write_down(rental: Rental, rate: Decimal) -> None:
    with transaction.atomic():
        Session.objects.select_for_update(no_key=True).filter(id=rental.session_id).first()
        if not Rental.objects.filter(id=rental.id, state=Debt.LIVE).update(price_actual=rate):
            return
        asked = rental.price_asked
        if asked is None or rate <= asked * (1 + TOLERANCE):
            return
        record(
            "price_drift", session_id=rental.session_id, rental_id=rental.id,
            reason=f"the offer said {_dollars(asked)} an hour, the provider bills {_dollars(rate)}",
            details={"attempt": rental.attempt, "price_asked": str(quantize(asked)), "price": str(quantize(rate))},
        )  # fmt: skip
        counters.increment("gpu_price_drift_total", provider=rental.provider)


def _dollars(amount: Decimal) -> str:
    text = f"{quantize(amount):f}".rstrip("0").rstrip(".")
    return f"${text}"
