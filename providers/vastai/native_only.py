"""What the broker makes use of where it can be had: on Vast.ai's own API, not through a gateway.

These stand apart because the broker asks by type (``DestroysMany``, ``RemovesKeys``): a client that could only refuse
must not have them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from providers.base import LOOK_WAIT, MOST_TOGETHER, Instance
from providers.errors import InvalidRequest, NotFound
from providers.vastai import uploads
from providers.vastai.actions import Actions
from providers.vastai.caller import read_note
from providers.vastai.instances import read_instance
from providers.vastai.paging import INSTANCES, INSTANCES_PER_PAGE, read_page


class NativeOnly(Actions):
    """Several machines in one call, the youngest at a glance, keys taken off a machine, and the logs of machines."""

    def destroy_many(self, instance_ids: Sequence[str]) -> str:
        """Destroy up to 64 machines in one call (section 4.6). The answer does not tell them apart: look at each."""
        if not 0 < len(instance_ids) <= MOST_TOGETHER:
            raise self._error(InvalidRequest, "destroy_many", f"1 to {MOST_TOGETHER} instances at a time")
        ids = [int(self._id("destroy_many", each)) for each in instance_ids]
        return self._transport.send("destroy_many", read_note, json={"instance_ids": ids})

    def newest_instances(self) -> tuple[Instance, ...]:
        """The youngest machines, one page of them (section 4.1); a row that cannot be understood is left out."""
        page = self._transport.send(
            "newest_instances",
            lambda reply: read_page(reply, INSTANCES),
            params={"limit": INSTANCES_PER_PAGE, "order_by": [{"col": "id", "dir": "desc"}]},
            wait=LOOK_WAIT,
        )
        read = (read_instance(row, self._transport.safe_text) for row in page.rows)
        return tuple(instance for instance in read if instance is not None)

    def remove_ssh_key(self, instance_id: str, public_key: str) -> bool:
        """Take this very key off a machine (section 4.7): its number is looked up first. ``False``: it had none."""
        wanted = public_key.split()[:2]
        held = [key for key in self.instance_ssh_keys(instance_id) if key.public_key.split()[:2] == wanted]
        for key in held:
            with contextlib.suppress(NotFound):
                self.detach_ssh_key(instance_id, key.key_id)
        return bool(held)

    def read_log(self, where: str) -> str | None:
        """What :meth:`request_logs` promised to put there; ``None`` while it is not there yet (section 4.6)."""
        return uploads.fetch(self._transport, where)
