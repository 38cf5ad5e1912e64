"""What belongs to the account rather than to a machine: keys, templates, money (Vast.ai contract, section 5)."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from providers.base import Balance, TemplateData
from providers.errors import InvalidRequest, ListingIncomplete, NotFound, ProviderError
from providers.vastai import fields
from providers.vastai.paging import STATEMENT, Page, collect, read_page
from providers.vastai.records import Charge, ChargeItem, Invoice, SSHKey
from providers.vastai.reply import Reply
from providers.vastai.transport import Transport

T = TypeVar("T")

#: How long a further page may wait for its slot; the first one does not wait.
PAGE_WAIT = 30.0
_CHARGES_PER_PAGE = 500
_INVOICES_PER_PAGE = 100
_INVOICE_SERVICES = [
    *("transfer", "stripe_payments", "bitpay", "coinbase", "crypto.com"),
    *("instance_prepay", "paypal_manual", "wise_manual"),
]
_INSTANCE_SOURCE = "instance-"


class Account:
    """The account's side of :class:`providers.vastai.client.VastAI`, which see."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def name(self) -> str:
        return self._transport.provider

    def balance(self) -> Balance:
        """What can still be spent: ``credit``, in dollars, below zero when in debt. (``balance`` is another
        figure, 0 for prepaid accounts.) Section 5.2. Needs the key's permission ``user_read``."""

        def read(reply: Reply) -> Balance:
            credit = fields.exact(reply.object().get("credit"))
            if credit is None:
                raise reply.malformed("no number under 'credit'")
            return Balance(credit)

        return self._transport.send("balance", read)

    def list_templates(self, select_filters: Mapping[str, Any] | None = None) -> tuple[TemplateData, ...]:
        """Launch templates, section 5.1. Thousands of other people's are public and there is no paging, so without
        filters these are asked for in two calls: the account's own, and those that the vendor recommends.
        The hash changes with every edit; the id stays."""
        if select_filters is not None:
            return self._templates(select_filters)

        def read_user(reply: Reply) -> str:
            user_id = fields.identifier(reply.object().get("id"))
            if not user_id:
                raise reply.malformed("no number under 'id'")
            return user_id

        user_id = self._transport.send("balance", read_user, wait=PAGE_WAIT)
        own = self._templates({"creator_id": {"eq": int(user_id)}})
        recommended = self._templates({"recommended": {"eq": True}})
        return tuple({each.provider_id: each for each in (*recommended, *own)}.values())

    def ssh_keys(self) -> tuple[SSHKey, ...]:
        """The account's public keys, section 4.7. Having none is answered with a 404, which is not an error here."""

        def read(reply: Reply) -> tuple[SSHKey, ...]:
            refusal = reply.refusal()
            if isinstance(refusal, NotFound) and "no ssh keys" in reply.answer.said.lower():
                return ()
            if refusal:
                raise refusal
            return _keys(reply, reply.json)

        return self._transport.send("ssh_keys", read)

    def add_ssh_key(self, public_key: str) -> SSHKey:
        """Put a key on the account: machines made from now on accept it. Section 4.7; not with a team's API key."""

        def read(reply: Reply) -> SSHKey:
            key = _key(reply.object().get("key"))
            if key is None:
                raise reply.malformed("no key in the answer")
            return key

        return self._transport.send("add_ssh_key", read, json={"ssh_key": public_key.strip()})

    def delete_ssh_key(self, key_id: str) -> None:
        """Take a key off the account. One that is not there is success. Section 4.7."""

        def read(reply: Reply) -> None:
            refusal = reply.refusal()
            if refusal and not (isinstance(refusal, NotFound) or reply.code == "no_ssh_key"):
                raise refusal

        self._transport.send("delete_ssh_key", read, self._id("delete_ssh_key", key_id), json={})

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
        records = [read_row(row) for row in rows]
        known = tuple(record for record in records if record is not None)
        if len(known) < len(records):
            # A sum over the rest would be believed.
            raise self._incomplete(operation, f"{len(records) - len(known)} rows cannot be understood")
        return known

    def _templates(self, select_filters: Mapping[str, Any]) -> tuple[TemplateData, ...]:
        def read(reply: Reply) -> tuple[TemplateData, ...]:
            rows = reply.object().get("templates")
            if not isinstance(rows, list):
                raise reply.malformed("no list under 'templates'")
            known = tuple(template for row in rows if (template := _template(row)))
            if len(known) < len(rows):
                raise reply.error(ListingIncomplete, f"{len(rows) - len(known)} templates cannot be understood")
            return known

        params = {"select_cols": ["*"], "select_filters": select_filters}
        return self._transport.send("list_templates", read, params=params, wait=PAGE_WAIT)

    def _id(self, operation: str, value: str) -> str:
        """``value`` if it is an id of this vendor. An empty one would name the whole collection in a path."""
        if known := fields.identifier(value):
            return known
        # Not NotFound: that would sound like proof that something is gone.
        raise self._error(InvalidRequest, operation, "this is no id of the provider")

    def _incomplete(self, operation: str, why: str) -> ProviderError:
        return self._error(ListingIncomplete, operation, why)

    def _error(self, kind: type[ProviderError], operation: str, message: str) -> ProviderError:
        return kind(self._transport.safe_text(message), provider=self.name, operation=operation)


def read_instance_keys(reply: Reply) -> tuple[SSHKey, ...]:
    """The keys of an instance, which come as JSON inside a JSON string (section 4.7)."""
    value = reply.object().get("ssh_keys")
    if isinstance(value, str):
        try:
            value = jsonlib.loads(value)
        except (ValueError, RecursionError):
            raise reply.malformed("the text under 'ssh_keys' is no JSON") from None
    return _keys(reply, value if value is not None else [])


def _keys(reply: Reply, rows: object) -> tuple[SSHKey, ...]:
    if not isinstance(rows, list):
        raise reply.malformed("no list of keys")
    keys: Sequence[SSHKey | None] = [_key(row) for row in rows]
    known = tuple(key for key in keys if key is not None)
    if len(known) < len(keys):
        raise reply.malformed("a key cannot be understood")
    return known


def _key(row: object) -> SSHKey | None:
    """The field is ``key`` in listings and ``public_key`` in the answer to adding one."""
    if not isinstance(row, dict):
        return None
    key_id = fields.identifier(row.get("id"))
    public_key = fields.text(row.get("public_key"), 20_000) or fields.text(row.get("key"), 20_000)
    return SSHKey(key_id, public_key) if key_id and public_key else None


def _template(row: object) -> TemplateData | None:
    if not isinstance(row, dict):
        return None
    template_id, hash_id = fields.identifier(row.get("id")), fields.text(row.get("hash_id"), 200)
    if not template_id or not hash_id:
        return None
    return TemplateData(
        provider_id=int(template_id),
        hash_id=hash_id,
        name=fields.text(row.get("name")),
        image=fields.text(row.get("image")),
        raw=fields.json_safe(row),
    )


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
    return Invoice(
        kind=fields.text(row.get("type"), 40),
        source=fields.text(row.get("source")),
        description=fields.text(row.get("description")),
        amount=amount,
        starts_at=fields.moment(row.get("start")),
        ends_at=fields.moment(row.get("end")),
    )
