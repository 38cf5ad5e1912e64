"""What was paid in and what was spent (Vast.ai contract, sections 5.3 and 5.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from providers import fields
from providers.errors import NotFound
from providers.vastai.caller import PAGE_WAIT, WHOLE, Caller, Part, rows_under
from providers.vastai.paging import STATEMENT, Page, collect, read_page
from providers.vastai.records import Charge, ChargeItem, Invoice
from providers.vastai.reply import Reply

T = TypeVar("T")

_CHARGES_PER_PAGE = 500
_INVOICES_PER_PAGE = 100
_INVOICE_SERVICES = [
    *("transfer", "stripe_payments", "bitpay", "coinbase", "crypto.com"),
    *("instance_prepay", "paypal_manual", "wise_manual"),
]
_INSTANCE_SOURCE = "instance-"
#: Before the vendor's first invoice.
_THE_BEGINNING = datetime(2017, 1, 1, tzinfo=UTC)


class Statements(Caller):
    """The account's books at the vendor."""

    def charges(self, since: datetime, until: datetime) -> tuple[Charge, ...]:
        """What instances cost between two moments (section 5.4), in positive dollars. A label outlives its machine."""
        filters = {
            "day": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "type": {"in": ["instance"]},
        }
        return self._statement("charges", filters, _CHARGES_PER_PAGE, _charge)

    def invoices(self, since: datetime, until: datetime) -> tuple[Invoice, ...]:
        """The account's statement between two moments, section 5.3: dollars, top-ups negative."""
        filters = {
            "when": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "service": {"in": _INVOICE_SERVICES},
        }
        return self._statement("invoices", filters, _INVOICES_PER_PAGE, _invoice)

    def invoice_page(self, part: Part = WHOLE) -> tuple[Invoice, ...]:
        """Some invoices, however old."""
        self._own_rows_only("invoice_page", part)
        if self._transport.supports("invoice_page"):
            return self._transport.send("invoice_page", self._read_invoices, params=part.params())
        return part.of(self._all_invoices())

    def invoice(self, invoice_id: str) -> Invoice:
        """One invoice; ``NotFound`` when there is none. Vast.ai itself is asked for all of them."""
        known_id = self._id("invoice", invoice_id)
        if self._transport.supports("invoice"):
            found = self._transport.send("invoice", self._read_invoices, known_id)
        else:
            found = self._all_invoices()
        for each in found:
            if each.invoice_id == known_id:
                return each
        raise self._error(NotFound, "invoice", "there is no such invoice")

    def _all_invoices(self) -> tuple[Invoice, ...]:
        # A day on, as the vendor's clock is not ours.
        return self.invoices(_THE_BEGINNING, self._transport.clock.now() + timedelta(days=1))

    def _read_invoices(self, reply: Reply) -> tuple[Invoice, ...]:
        return self._all_understood(reply.operation, rows_under(reply, "results", "invoices"), _invoice)

    def _statement(
        self, operation: str, filters: Mapping[str, Any], limit: int, read_row: Callable[[object], T | None]
    ) -> tuple[T, ...]:
        def fetch(token: str) -> Page:
            params: dict[str, Any] = {"select_filters": filters, "limit": limit, "latest_first": False}
            if token:
                params["after_token"] = token
            return self._transport.send(
                operation,
                lambda reply: read_page(reply, STATEMENT),
                params=params,
                wait=PAGE_WAIT if token else 0.0,
            )

        rows = collect(fetch, lambda why: self._incomplete(operation, why))
        return self._all_understood(operation, rows, read_row)

    def _all_understood(self, operation: str, rows: list[Any], read_row: Callable[[object], T | None]) -> tuple[T, ...]:
        records = [read_row(row) for row in rows]
        known = tuple(record for record in records if record is not None)
        if len(known) < len(records):
            # A sum over the rest would be believed.
            raise self._incomplete(operation, f"{len(records) - len(known)} rows cannot be understood")
        return known


def _charge(row: object) -> Charge | None:
    if not isinstance(row, dict):
        return None
    amount = fields.exact(row.get("amount"))
    source = fields.text(row.get("source"))
    if amount is None or not source:
        return None
    metadata = row.get("metadata")
    parts = row.get("items")
    return Charge(
        source=source,
        instance_id=fields.identifier(source.removeprefix(_INSTANCE_SOURCE)),
        label=fields.text(metadata.get("label")) if isinstance(metadata, dict) else "",
        description=fields.text(row.get("description")),
        amount=amount,
        starts_at=fields.moment(row.get("start")),
        ends_at=fields.moment(row.get("end")),
        items=tuple(item for part in parts if (item := _charge_item(part))) if isinstance(parts, list) else (),
    )


def _charge_item(row: object) -> ChargeItem | None:
    if not isinstance(row, dict):
        return None
    amount = fields.exact(row.get("amount"))
    if amount is None:
        return None
    return ChargeItem(fields.text(row.get("type"), 40), fields.text(row.get("description")), amount)


def _invoice(row: object) -> Invoice | None:
    if not isinstance(row, dict):
        return None
    amount = fields.exact(row.get("amount"))
    if amount is None:
        return None
    metadata = row.get("metadata")
    return Invoice(
        kind=fields.text(row.get("type"), 40),
        source=fields.text(row.get("source")),
        description=fields.text(row.get("description")),
        amount=amount,
        starts_at=fields.moment(row.get("start")),
        ends_at=fields.moment(row.get("end")),
        invoice_id=fields.identifier(metadata.get("invoice_id")) if isinstance(metadata, dict) else "",
    )
