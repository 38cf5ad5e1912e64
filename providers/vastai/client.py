"""Vast.ai as a :class:`providers.base.Provider`.

Every method raises only :class:`providers.errors.ProviderError`. None retries, and none sleeps for a slot of the
gate except before the further pages of a listing. Sections named are those of the Vast.ai contract.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from providers.base import (
    ALREADY_GONE,
    Capabilities,
    Created,
    Instance,
    InstanceListing,
    LaunchOrder,
    OfferListing,
)
from providers.errors import InvalidRequest, ListingIncomplete, MalformedAnswer, NotFound, OutcomeUnknown
from providers.vastai import fields
from providers.vastai.account import PAGE_WAIT, Account, read_instance_keys
from providers.vastai.instances import read_instance
from providers.vastai.offers import read_offer
from providers.vastai.orders import BadOrder, create_body
from providers.vastai.paging import INSTANCES, Page, collect, read_page
from providers.vastai.records import SSHKey, StateChange
from providers.vastai.reply import Reply
from providers.vastai.search import OfferSearch, OfferWalk, incomplete_offers, read_rows
from providers.vastai.transport import Transport

logger = logging.getLogger(__name__)

LABEL_LENGTH = 60
MAX_BULK = 64
_INSTANCES_PER_PAGE = 25
_ALREADY = re.compile(r"already|duplicate", re.IGNORECASE)
_QUEUED = re.compile(r"queued|currently unavailable", re.IGNORECASE)


class VastAI(Account):
    """One Vast.ai account over one transport. Thread-safe; keeps no state between calls."""

    def __init__(self, transport: Transport, search: OfferSearch | None = None) -> None:
        super().__init__(transport)
        self._search = search or OfferSearch()

    def __repr__(self) -> str:
        return f"VastAI({self._transport!r})"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            templates=True,
            interruptible=True,
            preserve_disk=True,
            attach_ssh_key=True,
            custom_image=True,
            entrypoint=True,
            label_length=LABEL_LENGTH,
        )

    def list_offers(self) -> OfferListing:
        """Every offer that the search admits, however many (section 2; how it gets past 64 rows:
        :mod:`providers.vastai.search`). Prices in dollars per hour without disk. A row that cannot be understood is
        left out and counted in the log; when that is all of them, the answer is malformed, not empty."""
        listed_at = self._transport.clock.now()

        def fetch(body: dict[str, Any], first: bool) -> list[Any]:
            return self._transport.send("list_offers", read_rows, json=body, wait=0.0 if first else PAGE_WAIT)

        rows = OfferWalk(self._search, fetch, lambda why: incomplete_offers(self.name, why)).rows()
        admitted = [row for row in rows if self._search.admits(row)]
        read = [read_offer(row, self.name, listed_at) for row in admitted]
        offers = tuple(offer for offer in read if offer is not None)
        if len(offers) < len(read):
            logger.warning("%s offers: %d of %d rows skipped", self.name, len(read) - len(offers), len(read))
        if read and not offers:
            raise self._error(MalformedAnswer, "list_offers", f"none of {len(read)} rows can be understood")
        return OfferListing(offers, listed_at)

    def create(self, order: LaunchOrder) -> Created:
        """Rent the offer (section 3). The instance's id is ``new_contract``, not the offer's. A refusal that names a
        contract all the same (a bid too low) is ``Created(accepted=False)``: it exists, is stopped, and its disk
        is billed. Keys are not sent here but attached afterwards. Raises ``OfferGone``, ``InsufficientCredit``,
        ``InvalidRequest``, ``RateLimited`` (nothing happened) or ``OutcomeUnknown`` (look for the label first)."""
        offer_id = self._id("create", order.offer_id)
        try:
            body = create_body(order)
        except BadOrder as bad:
            raise self._error(InvalidRequest, "create", str(bad)) from None
        return self._transport.send("create", _read_created, offer_id, json=body)

    def list_instances(self) -> InstanceListing:
        """Every instance of the account, all pages (section 4.1), or an error: a listing that does not add up is asked
        for once more and then raised as ``ListingIncomplete``, as is one with a row that cannot be understood."""
        listed_at = self._transport.clock.now()
        return InstanceListing(self._instances("list_instances", None), listed_at)

    def find_by_label(self, label: str) -> tuple[Instance, ...]:
        """Instances with exactly this label, from all pages of a listing filtered by the vendor (section 4.1) and
        compared again here. An empty answer is evidence as far as the vendor's listing lags no longer."""
        found = self._instances("find_by_label", label)
        return tuple(instance for instance in found if instance.label == label)

    def get_instance(self, instance_id: str) -> Instance | None:
        """One machine (section 4.2). ``None`` only when the vendor itself says that it has none: ``{"instances":
        null}``, or a 404 in its own words. A bare 404 page proves nothing and is ``MalformedAnswer``."""
        known_id = self._id("get_instance", instance_id)

        def read(reply: Reply) -> Instance | None:
            if refusal := reply.refusal():
                if reply.says_no_such_instance():
                    return None
                if isinstance(refusal, NotFound):
                    raise reply.malformed("a 404 that does not speak of the instance")
                raise refusal
            body = reply.object()
            if "instances" not in body:
                raise reply.malformed("no 'instances' in the answer")
            row = body["instances"]
            if row is None:
                return None
            instance = read_instance(row, self._transport.safe_text)
            if instance is None or instance.instance_id != known_id:
                raise reply.malformed("the answer is not about this instance")
            return instance

        return self._transport.send("get_instance", read, known_id, params={"owner": "me"})

    def destroy(self, instance_id: str) -> str:
        """Destroy a machine and its disk for good (section 4.6). Not having it (any more) is success; the proof is
        :meth:`get_instance`, as the host works on its own time. ``RateLimited`` and ``OutcomeUnknown``: call again."""

        def read(reply: Reply) -> str:
            if reply.says_no_such_instance():
                return ALREADY_GONE
            body = reply.object()
            return self._transport.safe_text(fields.text(body.get("msg"))) or "accepted"

        return self._transport.send("destroy", read, self._id("destroy", instance_id), json={})

    def destroy_many(self, instance_ids: Sequence[str]) -> str:
        """Destroy up to 64 machines in one call (section 4.6). The answer does not tell them apart: look at each."""
        if not 0 < len(instance_ids) <= MAX_BULK:
            raise self._error(InvalidRequest, "destroy_many", f"1 to {MAX_BULK} instances at a time")
        ids = [int(self._id("destroy_many", each)) for each in instance_ids]
        return self._transport.send("destroy_many", _read_note, json={"instance_ids": ids})

    def set_label(self, instance_id: str, label: str) -> str:
        """Write another label on a machine (section 4.6)."""
        return self._transport.send("set_label", _read_note, self._id("set_label", instance_id), json={"label": label})

    def set_state(self, instance_id: str, *, running: bool) -> StateChange:
        """Start or stop a machine (section 4.6). A stop keeps the disk and its price and gives the GPU away; a start
        may be queued until one is free, which stays so (and bills later) until it is stopped again."""

        def read(reply: Reply) -> StateChange:
            if running and not reply.accepted and reply.answer.ok and _QUEUED.search(reply.answer.said):
                return StateChange(queued=True, note=reply.note)
            return StateChange(queued=False, note=_read_note(reply))

        body = {"state": "running" if running else "stopped"}
        return self._transport.send("set_state", read, self._id("set_state", instance_id), json=body)

    def set_bid(self, instance_id: str, price_per_hour: Decimal) -> str:
        """Raise or lower the bid of an interruptible machine, in dollars per hour (sections 4.6 and 4.8)."""
        if not price_per_hour.is_finite() or price_per_hour <= 0:
            raise self._error(InvalidRequest, "set_bid", "a bid must be more than 0 dollars an hour")
        body = {"client_id": "me", "price": price_per_hour}
        return self._transport.send("set_bid", _read_note, self._id("set_bid", instance_id), json=body)

    def attach_ssh_key(self, instance_id: str, public_key: str) -> None:
        """Make a machine accept one more key, some seconds from now (section 4.7). Twice is success. Keys that only a
        start script wrote vanish after hours, so every key goes this way."""
        key = public_key.strip()
        if not key or "\n" in key:
            raise self._error(InvalidRequest, "attach_ssh_key", "one public key on one line is needed")

        def read(reply: Reply) -> None:
            refusal = reply.refusal()
            if refusal and not (isinstance(refusal, InvalidRequest) and _ALREADY.search(reply.answer.said)):
                raise refusal
            if refusal is None:
                reply.object()

        self._transport.send("attach_ssh_key", read, self._id("attach_ssh_key", instance_id), json={"ssh_key": key})

    def detach_ssh_key(self, instance_id: str, key_id: str) -> None:
        """Take a key off a machine (section 4.7); ``NotFound`` when either is not there."""
        ids = (self._id("detach_ssh_key", instance_id), self._id("detach_ssh_key", key_id))
        self._transport.send("detach_ssh_key", _read_note, *ids, json={})

    def instance_ssh_keys(self, instance_id: str) -> tuple[SSHKey, ...]:
        """The keys attached to a machine (section 4.7)."""
        known_id = self._id("instance_ssh_keys", instance_id)
        return self._transport.send("instance_ssh_keys", read_instance_keys, known_id)

    def remove_ssh_key(self, instance_id: str, public_key: str) -> bool:
        """Take this very key off a machine (section 4.7): its number is looked up first. ``False``: it had none."""
        wanted = public_key.split()[:2]
        held = [key for key in self.instance_ssh_keys(instance_id) if key.public_key.split()[:2] == wanted]
        for key in held:
            with contextlib.suppress(NotFound):
                self.detach_ssh_key(instance_id, key.key_id)
        return bool(held)

    def _instances(self, operation: str, label: str | None) -> tuple[Instance, ...]:
        try:
            rows = self._all_pages(operation, label, 0.0)
        except ListingIncomplete as unlucky:
            # Machines come and go between two pages; once is no reason to fail.
            logger.info("%s: listed once more: %s", self.name, unlucky)
            rows = self._all_pages(operation, label, PAGE_WAIT)
        read = [read_instance(row, self._transport.safe_text) for row in rows]
        instances = tuple(instance for instance in read if instance is not None)
        if len(instances) < len(read):
            raise self._incomplete(operation, f"{len(read) - len(instances)} rows cannot be understood")
        return instances

    def _all_pages(self, operation: str, label: str | None, first_wait: float) -> list[Any]:
        promised = 0

        def read(reply: Reply) -> Page:
            nonlocal promised
            page = read_page(reply, INSTANCES)
            counts = reply.json.get("label_counts")
            if label is not None and isinstance(counts, dict):
                promised = max(promised, fields.count(counts.get(label)))
            return page

        def fetch(token: str) -> Page:
            params: dict[str, Any] = {"limit": _INSTANCES_PER_PAGE, "order_by": [{"col": "id", "dir": "asc"}]}
            if label is not None:
                params["select_filters"] = {"label": {"eq": label}}
            if token:
                params["after_token"] = token
            return self._transport.send(
                operation,
                read,
                params=params,
                wait=PAGE_WAIT if token else first_wait,
            )

        def incomplete(why: str) -> ListingIncomplete:
            return ListingIncomplete(why, provider=self.name, operation=operation)

        rows = collect(fetch, incomplete, exact=label is None)
        ids = [fields.identifier(row.get("id")) for row in rows if isinstance(row, dict)]
        if len(set(ids)) < len(ids):
            raise incomplete("an instance is listed twice")
        if len(rows) < promised:
            raise incomplete(f"{len(rows)} rows arrived of {promised} that carry the label")
        return rows


def _read_note(reply: Reply) -> str:
    return fields.text(reply.object().get("msg"), 300) or "accepted"


def _read_created(reply: Reply) -> Created:
    contract = reply.json.get("new_contract") if isinstance(reply.json, dict) else None
    instance_id = fields.identifier(contract)
    if instance_id and reply.accepted:
        return Created(instance_id)
    if instance_id:
        return Created(instance_id, accepted=False, note=reply.note)
    if contract is not None:
        # Something was made, but what? A refusal would wrongly say that nothing happened.
        raise reply.error(OutcomeUnknown, "the contract's number cannot be read")
    if refusal := reply.refusal():
        raise refusal
    raise reply.malformed("accepted without a contract")
