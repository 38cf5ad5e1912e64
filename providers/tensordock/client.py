"""TensorDock as a :class:`providers.base.Provider`.

Every method raises only :class:`providers.errors.ProviderError`. None sleeps, except for a slot of the gate before the
further calls of one operation. Sections named are those of the TensorDock contract.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from providers.base import (
    LOOK_WAIT,
    Balance,
    Capabilities,
    Created,
    Instance,
    InstanceListing,
    LaunchOrder,
    OfferListing,
    TemplateData,
)
from providers.errors import InvalidRequest, MalformedAnswer, NotSupported, ProviderError
from providers.tensordock.answers import read_destroyed, read_look, read_places, read_power
from providers.tensordock.details import Details
from providers.tensordock.instances import instance_id_of, listed_rows, read_instance
from providers.tensordock.launch import Launch
from providers.tensordock.offers import read_offers
from providers.tensordock.orders import DEFAULT_IMAGE, IMAGE_NAMES, LABEL_LENGTH, MIN_DISK_GB
from providers.tensordock.wire import Wire

logger = logging.getLogger(__name__)

#: How long a further call of one operation may wait for its slot; the first one does not wait.
WAIT = 15.0


class TensorDock:
    """One TensorDock organisation. Thread-safe; ``preferred_image`` is tried first at every create."""

    def __init__(self, wire: Wire, preferred_image: str = DEFAULT_IMAGE) -> None:
        self._wire = wire
        self._preferred_image = preferred_image
        self._details = Details(self._describe, wire.clock)

    def __repr__(self) -> str:
        return f"TensorDock({self._wire!r})"

    @property
    def name(self) -> str:
        return self._wire.provider

    @property
    def capabilities(self) -> Capabilities:
        """Machines with SSH, and nothing else: a stop keeps the full bill (section 8), keys go in at create only, and
        images are the provider's own."""
        return Capabilities(
            label_length=LABEL_LENGTH,
            own_images=IMAGE_NAMES,
            least_disk_gb=MIN_DISK_GB,
            bills_from_order=True,
            price_includes=("gpu", "vcpu", "ram"),
        )

    def list_offers(self) -> OfferListing:
        """Every slice of every location and hostnode (section 4); prices: :mod:`providers.tensordock.offers`. Both
        lists must be had: locations are told to anybody, so only the hostnodes show that the token works, and the two
        disagree where stock is old. A row that cannot be understood is left out and counted in the log; when that is
        all of them, the answer is malformed, not empty."""
        listed_at = self._wire.clock.now()
        locations = self._wire.send("list_offers", lambda reply: read_places(reply, "locations"))
        hostnodes = self._wire.send("list_hostnodes", lambda reply: read_places(reply, "hostnodes"))
        reading = read_offers(locations, hostnodes, self.name)
        if reading.unreadable:
            logger.warning("%s offers: %d rows skipped", self.name, reading.unreadable)
            if not reading.offers:
                raise self._error(
                    MalformedAnswer, "list_offers", f"none of {reading.unreadable} rows can be understood"
                )
        return OfferListing(tuple(reading.offers), listed_at)

    def create(self, order: LaunchOrder) -> Created:
        """Rent the slice (section 5): the first image and network that the place accepts
        (:mod:`providers.tensordock.launch`). The disk has 100 GB at least. ``Created(accepted=False)``: refused, and
        yet there. Raises ``OfferGone``, ``InsufficientCredit``, ``InvalidRequest``, ``NotSupported``, ``RateLimited``
        (nothing happened) or ``OutcomeUnknown`` (look for the label first)."""
        return Launch(self._wire, order, self._preferred_image).send()

    def list_instances(self) -> InstanceListing:
        """Every instance of the organisation (section 6.1), or an error: an odd list is never an empty one. The
        broker's own come with what the detail call tells (:mod:`providers.tensordock.details`), all others with id,
        name and status."""
        listed_at = self._wire.clock.now()
        rows = self._wire.send("list_instances", listed_rows)
        return InstanceListing(self._details.describe(rows), listed_at)

    def find_by_label(self, label: str) -> tuple[Instance, ...]:
        """Instances with exactly this name, from a complete listing; id, name and status only."""
        rows = self._wire.send("find_by_label", listed_rows, wait=LOOK_WAIT)
        return tuple(read_instance(row) for row in rows if row["name"] == label)

    def get_instance(self, instance_id: str) -> Instance | None:
        """One machine (section 6.2). ``None`` when the vendor says that it has no such machine. A 404 in other words
        may come from a wrong path, and counts only if the complete listing does not have the machine either."""
        known_id = self._id("get_instance", instance_id)
        look = self._wire.send("get_instance", lambda reply: read_look(reply, known_id), known_id)
        if look.proved:
            return look.instance
        rows = self._wire.send("list_instances", listed_rows, wait=WAIT)
        if known_id in {instance_id_of(row.get("id")) for row in rows}:
            raise self._error(MalformedAnswer, "get_instance", "a 404 for a machine that is listed")
        return None

    def destroy(self, instance_id: str) -> str:
        """Delete a machine and its disk for good (section 6.4). Not having it (any more) is success. It may take a
        minute and go on after we stopped waiting (``OutcomeUnknown``), so the proof is :meth:`get_instance`."""
        return self._wire.send("destroy", read_destroyed, self._id("destroy", instance_id))

    def power_on(self, instance_id: str) -> str:
        """Start a stopped machine (section 6.3). Running already is success. ``InvalidRequest`` mostly means that its
        GPU was given away, and may stay so."""
        return self._wire.send("power_on", read_power, self._id("power_on", instance_id))

    def power_off(self, instance_id: str) -> str:
        """Stop a machine (section 6.3), **which goes on costing its full price** unless the host gives its GPU away; so
        this is no way to keep a disk, and no :class:`providers.base.KeepsDisks`."""
        return self._wire.send("power_off", read_power, self._id("power_off", instance_id))

    def attach_ssh_key(self, instance_id: str, public_key: str, *more: str) -> None:
        raise self._error(NotSupported, "attach_ssh_key", "keys can be installed at create only")

    def list_templates(self) -> Sequence[TemplateData]:
        raise self._error(NotSupported, "list_templates", "there are no launch templates")

    def balance(self) -> Balance:
        raise self._error(NotSupported, "balance", "the v2 API does not tell the balance")

    def _describe(self, instance_id: str, wait: float) -> Instance | None:
        return self._wire.send("describe", lambda reply: read_look(reply, instance_id), instance_id, wait=wait).instance

    def _id(self, operation: str, instance_id: str) -> str:
        # An empty id would name the whole list.
        if not instance_id or instance_id_of(instance_id) != instance_id:
            raise self._error(InvalidRequest, operation, "this is no instance id")
        return instance_id

    def _error(self, kind: type[ProviderError], operation: str, message: str) -> ProviderError:
        return kind(message, provider=self.name, operation=operation)
