"""What a provider's page shows, from our own books, and what the provider itself says when somebody asks for it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from django.urls import reverse
from django.utils.html import format_html

from billing import balance as balances
from billing import charges as bills
from billing.balance import Standing
from billing.models import BillFinding, ChargeFetch, ProviderCharge
from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from gpubroker.common.models import Counter, ProviderBreaker, ProviderGate
from offers.models import ProviderInventory
from providers.base import Provider
from providers.extras import KeepsBooks, RentsOutMachines
from sessions_app import maintenance
from sessions_app import provider_pages as pages
from sessions_app.maintenance import Maintenance
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine
from sessions_app.provider_calls import ask, lacking
from sessions_app.states import OPEN

#: Rows of one table.
MOST_ROWS = 100
#: How far back invoices are asked for.
INVOICE_SPAN = timedelta(days=30)
#: In the words of design.md, by what the books or :mod:`sessions_app.provider_owners` call them.
WHOSE = {"session": "ours", "orphan": "orphan", "deployment": "another deployment's", "unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Account:
    """One provider account as our books have it. Nobody is asked."""

    name: str
    watch: ProviderWatch
    breaker: ProviderBreaker
    inventory: ProviderInventory
    balance: Standing | None
    maintenance: Maintenance | None

    @property
    def breaker_open(self) -> bool:
        return self.breaker.open_until is not None

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Where the last try failed, and why."""
        told = [
            ("machines", self.watch.last_error if self.watch.failures_in_a_row else ""),
            ("offers", self.inventory.last_error if self.inventory.failures_in_a_row else ""),
            ("balance", self.balance.error if self.balance is not None and self.balance.offered else ""),
            ("calls", self.breaker.last_error if self.breaker.failures else ""),
        ]
        return [(what, error) for what, error in told if error]


def accounts() -> list[Account]:
    """Every configured account by name, in a fixed number of queries."""
    watches = {row.provider: row for row in ProviderWatch.objects.all()}
    breakers = {row.provider: row for row in ProviderBreaker.objects.all()}
    inventories = {row.provider: row for row in ProviderInventory.objects.all()}
    standings = {account.provider: account for account in balances.standings()}
    resting = maintenance.all_of_them()
    return [
        Account(
            name,
            watches.get(name) or ProviderWatch(provider=name),
            breakers.get(name) or ProviderBreaker(provider=name),
            inventories.get(name) or ProviderInventory(provider=name),
            standings.get(name),
            resting.get(name),
        )
        for name in sorted(configured.configured())
    ]


def money(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"${amount:,.2f}"


def rate(amount: Decimal | None) -> str:
    return "" if amount is None else f"${amount:.4f}".rstrip("0").rstrip(".")


def runway(account: Standing | None) -> str:
    if account is None or account.runway_hours is None:
        return "nothing runs" if account is not None and account.credit is not None else "unknown"
    return f"{account.runway_hours:,.1f} h" if account.runway_hours < 240 else f"{account.runway_hours / 24:,.0f} days"


def calls(name: str) -> dict[str, Any]:
    """How the calls went, by operation, since the books began; and how many 429s there were in all."""
    by_operation: dict[str, Tally[str]] = {}
    rows = Counter.objects.filter(name="gpu_provider_calls_total").values_list("labels", "value")
    for text, value in rows:
        labels = orjson.loads(text)
        if labels.get("provider") == name:
            outcome = {"ok": "ok", "rate_limited": "429", "gate_closed": "held"}.get(labels["outcome"], "failed")
            by_operation.setdefault(labels["operation"], Tally())[outcome] += int(value)
    shown = [
        [operation.replace("_", " "), *(f"{tally[what]:,}" for what in ("ok", "failed", "429", "held"))]
        for operation, tally in sorted(by_operation.items())
    ]
    headers = ["operation", "answered", "failed", "429", "held back by us"]
    return {
        "table": {"headers": headers, "rows": shown},
        "limited": sum(tally["429"] for tally in by_operation.values()),
    }


def gates(name: str, now: datetime) -> list[str]:
    """Endpoints that have to wait for their turn at this moment."""
    rows = ProviderGate.objects.filter(key__startswith=f"{name}:", next_allowed_at__gt=now).order_by("next_allowed_at")
    return [
        f"{row.key.partition(':')[2].replace('_', ' ')}: in {(row.next_allowed_at - now).total_seconds():.1f} s"
        for row in rows[:MOST_ROWS]
    ]


# -- machines ----------------------------------------------------------------------------------------

MACHINE_HEADERS = ["whose", "machine", "of", "state", "GPU"]


def link(name: str, text: object, *args: object) -> str:
    return format_html('<a class="underline" href="{}">{}</a>', reverse(f"admin:{name}", args=args), text)


def machines_seen(name: str) -> dict[str, Any]:
    """The last sweep's picture: what it saw of each machine stands in our books."""
    rentals = Rental.objects.filter(provider=name, state__in=OPEN).exclude(instance_id="")
    rentals = rentals.select_related("session__consumer").order_by("-created_at")
    columns = (
        "id", "state", "instance_id", "label", "phase", "gpu_type", "price_actual", "price_asked",
        "session", "session__consumer", "session__consumer__name",
    )  # fmt: skip
    rows = [
        [
            WHOSE["session" if row.session is not None else "orphan"],
            _machine(link("sessions_app_rental_change", row.instance_id, row.id), row.label),
            _session(row.session_id, row.session.consumer.name) if row.session is not None else "",
            row.phase or row.state,
            _gpu(row.gpu_type, row.price_actual if row.price_actual is not None else row.price_asked),
        ]
        for row in rentals.only(*columns)[:MOST_ROWS]
    ]
    for orphan in SeenOrphan.objects.filter(provider=name).order_by("first_seen_at")[:MOST_ROWS]:
        named = _machine(orphan.instance_id, orphan.label)
        rows.append([WHOSE["orphan"], named, "", orphan.get_decision_display(), ""])
    for other in UnknownMachine.objects.filter(provider=name).order_by("first_seen_at")[:MOST_ROWS]:
        named = _machine(other.instance_id, other.label)
        rows.append([WHOSE["unknown"], named, "", "known" if other.known_at else "not decided", ""])
    return {"headers": MACHINE_HEADERS, "rows": rows[:MOST_ROWS], "more": len(rows) > MOST_ROWS}


def _machine(name: str, label: str) -> str:
    return format_html('{} <span class="block text-subtle text-xs wrap-anywhere">{}</span>', name, label)


def _gpu(name: str, price: Decimal | None) -> str:
    return ", ".join(part for part in (name, f"{rate(price)} an hour" if price is not None else "") if part)


def _session(session_id: str | None, consumer: str) -> str:
    return format_html("{} ({})", link("sessions_app_session_change", session_id, session_id), consumer)


def machines_now(name: str, provider: Provider) -> dict[str, Any]:
    """A complete listing, asked for now. ``ApiError`` as the API's own page has it."""
    found = pages.instances(name, ask("machines", provider.list_instances).instances)
    rows = [
        [
            WHOSE[row["owner"]["kind"]], _machine(row["instance_id"], row["label"]),
            _session(row["owner"]["session_id"], row["owner"]["consumer_id"])
            if row["owner"]["kind"] == "session" else row["owner"]["deployment"] or row["owner"]["session_id"] or "",
            row["phase"], _gpu(f"{row['gpu_count']} x {row['gpu_name']}", row["gpu_price_per_hour"]),
        ]
        for row in found
    ]  # fmt: skip
    return {"headers": MACHINE_HEADERS, "rows": rows[:MOST_ROWS], "more": len(rows) > MOST_ROWS}


# -- money -------------------------------------------------------------------------------------------


def bill(name: str, provider: Provider) -> dict[str, Any]:
    """What was fetched of the provider's charges, the newest first, and what does not agree with ours."""
    rows = ProviderCharge.objects.filter(provider=name).order_by("-starts_at", "-id")[:20]
    shown = [
        [
            _minute(row.starts_at), row.description or row.source,
            link("sessions_app_rental_change", row.label or row.instance_id, row.rental_id)
            if row.rental_id else row.label or row.instance_id,
            rate(row.amount),
        ]
        for row in rows
    ]  # fmt: skip
    return {
        "offered": bills.offered(provider),
        "fetch": ChargeFetch.objects.filter(provider=name).first(),
        "findings": BillFinding.objects.filter(provider=name, state=BillFinding.State.OPEN).count(),
        "table": {"headers": ["from", "what", "rental", "amount"], "rows": shown},
    }


def _minute(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def invoices_now(name: str, provider: Provider) -> dict[str, Any]:
    if not isinstance(provider, KeepsBooks):
        raise lacking(name, "invoices")
    now = clock.now()
    found = ask("invoices", lambda: provider.invoices(now - INVOICE_SPAN, now))
    newest = sorted(found, key=lambda each: each.starts_at.timestamp() if each.starts_at else 0.0, reverse=True)
    rows = [[_minute(each.starts_at), each.kind, each.description, money(each.amount)] for each in newest[:MOST_ROWS]]
    return {"headers": ["when", "kind", "what", "amount"], "rows": rows, "more": len(found) > MOST_ROWS}


def hosted_now(name: str, provider: Provider) -> dict[str, Any]:
    """Machines that the account itself rents out."""
    if not isinstance(provider, RentsOutMachines):
        raise lacking(name, "machines that the account rents out")
    found = [pages.host_machine(each) for each in ask("machines for rent", provider.host_machines)]
    rows = [
        [
            row["machine_id"], row["hostname"], f"{row['gpu_count']} x {row['gpu_name']}",
            rate(row["price_per_gpu_hour"]), rate(row["min_bid_per_gpu_hour"]), "yes" if row["verified"] else "no",
        ]
        for row in found
    ]  # fmt: skip
    headers = ["machine", "host", "GPUs", "per GPU and hour", "least bid", "verified"]
    return {"headers": headers, "rows": rows[:MOST_ROWS], "more": len(rows) > MOST_ROWS}


@dataclass(frozen=True, slots=True)
class Told:
    """What the provider said just now, or why it said nothing."""

    table: dict[str, Any] | None
    error: str
    at: datetime


#: What may be asked for, by its name in the query.
ASKS: dict[str, Callable[[str, Provider], dict[str, Any]]] = {
    "instances": machines_now,
    "invoices": invoices_now,
    "machines": hosted_now,
}


def asked(what: str, name: str, provider: Provider) -> Told | None:
    """The provider is asked once, behind the same gate as everybody; ``None``: there is no such question."""
    question = ASKS.get(what)
    if question is None:
        return None
    try:
        return Told(question(name, provider), "", clock.now())
    except ApiError as refusal:
        return Told(None, refusal.message, clock.now())


def hosts(provider: Provider) -> bool:
    return isinstance(provider, RentsOutMachines)
