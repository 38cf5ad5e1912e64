"""What can be done to a machine that runs (Vast.ai contract, sections 4.6 to 4.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from providers import fields
from providers.errors import InvalidRequest
from providers.vastai.caller import Caller, read_note
from providers.vastai.keys import read_instance_keys
from providers.vastai.records import SSHKey, StateChange
from providers.vastai.reply import Reply

#: How long a further key may wait for its slot.
KEY_WAIT = 5.0
_ALREADY = re.compile(r"already|duplicate", re.IGNORECASE)
_QUEUED = re.compile(r"queued|currently unavailable", re.IGNORECASE)


class Actions(Caller):
    """One machine at a time."""

    def set_label(self, instance_id: str, label: str) -> str:
        """Write another label on a machine (section 4.6)."""
        return self._transport.send("set_label", read_note, self._id("set_label", instance_id), json={"label": label})

    def set_state(self, instance_id: str, *, running: bool) -> StateChange:
        """Start or stop a machine (section 4.6). A stop keeps the disk and its price and gives the GPU away; a start
        may be queued until one is free, which stays so (and bills later) until it is stopped again."""

        def read(reply: Reply) -> StateChange:
            if running and not reply.accepted and reply.answer.ok and _QUEUED.search(reply.answer.said):
                return StateChange(queued=True, note=reply.note)
            return StateChange(queued=False, note=read_note(reply))

        body = {"state": "running" if running else "stopped"}
        return self._transport.send("set_state", read, self._id("set_state", instance_id), json=body)

    def stop(self, instance_id: str) -> str:
        """Stop a machine: its disk and the disk's price stay, its GPU is given away (section 4.6)."""
        return self.set_state(instance_id, running=False).note

    def start(self, instance_id: str) -> str:
        """Start a stopped machine, or have it wait for its GPU (section 4.6): an outbid one is wanted ``stopped``, and
        comes back by itself only when it is wanted ``running`` again."""
        change = self.set_state(instance_id, running=True)
        return change.note or ("queued" if change.queued else "accepted")

    def set_bid(self, instance_id: str, price_per_hour: Decimal) -> str:
        """Raise or lower the bid of an interruptible machine, in dollars per hour (sections 4.6 and 4.8)."""
        if not price_per_hour.is_finite() or price_per_hour <= 0:
            raise self._error(InvalidRequest, "set_bid", "a bid must be more than 0 dollars an hour")
        body = {"client_id": "me", "price": price_per_hour}
        return self._transport.send("set_bid", read_note, self._id("set_bid", instance_id), json=body)

    def attach_ssh_key(self, instance_id: str, public_key: str, *more: str) -> None:
        """Make a machine accept one more key, some seconds from now, or several, in a call each (section 4.7). Twice is
        success. Keys that only a start script wrote vanish after hours, so every key goes this way."""
        keys = [key.strip() for key in (public_key, *more)]
        if not all(keys) or any("\n" in key for key in keys):
            raise self._error(InvalidRequest, "attach_ssh_key", "one public key on one line is needed")

        def read(reply: Reply) -> None:
            refusal = reply.refusal()
            if refusal and not (isinstance(refusal, InvalidRequest) and _ALREADY.search(reply.answer.said)):
                raise refusal
            if refusal is None:
                reply.object()

        machine = self._id("attach_ssh_key", instance_id)
        for number, key in enumerate(keys):
            wait = KEY_WAIT if number else 0.0
            self._transport.send("attach_ssh_key", read, machine, json={"ssh_key": key}, wait=wait)

    def detach_ssh_key(self, instance_id: str, key_id: str) -> None:
        """Take a key off a machine (section 4.7); ``NotFound`` when either is not there."""
        ids = (self._id("detach_ssh_key", instance_id), self._id("detach_ssh_key", key_id))
        self._transport.send("detach_ssh_key", read_note, *ids, json={})

    def instance_ssh_keys(self, instance_id: str) -> tuple[SSHKey, ...]:
        """The keys attached to a machine (section 4.7)."""
        known_id = self._id("instance_ssh_keys", instance_id)
        return self._transport.send("instance_ssh_keys", read_instance_keys, known_id)

    def update_instance(self, instance_id: str, changes: Mapping[str, Any]) -> str:
        """Write some of a machine's fields, in the vendor's names: ``label`` and ``state`` (section 4.6)."""
        if not changes:
            raise self._error(InvalidRequest, "update_instance", "nothing to change")
        known_id = self._id("update_instance", instance_id)
        return self._transport.send("update_instance", read_note, known_id, json=dict(changes))

    def reboot(self, instance_id: str) -> str:
        """Stop and start the container; the GPU stays ours, and billed (section 4.6)."""
        return self._transport.send("reboot", read_note, self._id("reboot", instance_id), json={})

    def recycle(self, instance_id: str) -> str:
        """Make the container anew in place; what was on its disk is lost (section 4.6)."""
        return self._transport.send("recycle", read_note, self._id("recycle", instance_id), json={})

    def request_logs(self, instance_id: str, *, tail: int = 1_000, containing: str = "") -> str:
        """Ask for the last lines of a machine's log (section 4.6). Returns the address at which they appear some
        seconds later as plain text: 403 or 404 until then. It is another host's: no key of ours belongs there."""

        def read(reply: Reply) -> str:
            address = fields.text(reply.object().get("result_url"), 4_000)
            if not address:
                raise reply.malformed("no address under 'result_url'")
            return address

        wanted = {"tail": str(tail)} | ({"filter": containing} if containing else {})
        return self._transport.send("request_logs", read, self._id("request_logs", instance_id), json=wanted)
