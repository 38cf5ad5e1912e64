"""One create: which images and networks are tried, and what may follow a refusal (TensorDock contract, section 5).

An order is sent again in another form only after a refusal that says why: an image that the place does not have, or no
free public address. A refusal that came inside of an accepted answer does not prove that nothing was made, so the
label is looked up first; everything unclear is left to the caller, who looks for longer (rule I2).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from providers import fields
from providers.base import Created, LaunchOrder
from providers.errors import InvalidRequest, NotSupported, OfferGone, OutcomeUnknown, ProviderError, Unavailable
from providers.tensordock import orders
from providers.tensordock.answers import read_created, read_hostnode
from providers.tensordock.instances import instance_id_of, listed_rows
from providers.tensordock.offers import hostnode_room
from providers.tensordock.orders import BadOrder, CannotDo, Network
from providers.tensordock.reply import IMAGE_REFUSED, NO_PUBLIC_IP, Reply
from providers.tensordock.slices import DEDICATED, FORWARDED, HOSTNODE, Slice
from providers.tensordock.wire import Wire

logger = logging.getLogger(__name__)

#: How long a further call of one create may wait for its slot; the first one does not wait.
WAIT = 15.0
#: No create is sent later than this: whoever called holds a lease, and one call may take more than a minute and a half.
LAST_START = 25.0


class Launch:
    """One order on its way."""

    def __init__(self, wire: Wire, order: LaunchOrder, preferred_image: str) -> None:
        self._wire = wire
        self._order = order
        self._preferred_image = preferred_image

    def send(self) -> Created:
        begun = self._wire.clock.monotonic()
        try:
            orders.check(self._order)
            part = Slice.of(self._order.offer_id)
            if part is None:
                raise BadOrder("this is no offer id")
            images = orders.images(self._order, self._preferred_image)
            ports = orders.inside_ports(self._order)
            # Before anything is asked: what cannot be sent is refused without a call.
            orders.create_body(self._order, part, images[0], Network())
        except CannotDo as bad:
            raise self._error(NotSupported, str(bad)) from None
        except BadOrder as bad:
            raise self._error(InvalidRequest, str(bad)) from None
        networks = self._networks_of_host(part, ports) if part.placement == HOSTNODE else _networks(part, ports)
        if self._late(begun):
            raise self._error(Unavailable, "the hostnode took too long to answer")
        first = part.placement != HOSTNODE
        while True:
            body = orders.create_body(self._order, part, images[0], networks[0])
            try:
                return self._wire.send("create", self._read, json=body, wait=0.0 if first else WAIT)
            except ProviderError as refused:
                if left_over := self._left_over(refused):
                    return left_over
                in_time = not self._late(begun)
                if in_time and refused.code == IMAGE_REFUSED and len(images) > 1:
                    logger.info("%s: %s is refused here, trying %s", self._order.label, images[0], images[1])
                    images = images[1:]
                elif in_time and refused.code == NO_PUBLIC_IP and len(networks) > 1:
                    logger.info("%s: no public address is free, trying forwarded ports", self._order.label)
                    networks = networks[1:]
                else:
                    raise
            first = False

    def _read(self, reply: Reply) -> Created:
        return read_created(reply, self._order.label)

    def _late(self, begun: float) -> bool:
        return self._wire.clock.monotonic() - begun >= LAST_START

    def _left_over(self, refused: ProviderError) -> Created | None:
        """The machine that was made all the same. Only a refusal inside of a 2xx needs the look."""
        if refused.may_have_happened or refused.status is None or refused.status >= 300:
            return None
        try:
            rows = self._wire.send("find_by_label", listed_rows, wait=WAIT)
        except ProviderError as unclear:
            text = f"refused ({refused.message}), and it cannot be seen whether something was made: {unclear.message}"
            raise self._error(OutcomeUnknown, text) from None
        found = [instance_id_of(row["id"]) for row in rows if row["name"] == self._order.label]
        return Created(found[0], accepted=False, note=refused.message) if found else None

    def _networks_of_host(self, part: Slice, ports: Sequence[int]) -> list[Network]:
        """What the hostnode has free at this moment; ``OfferGone`` when that is not enough (section 4.2)."""
        row = self._wire.send("get_hostnode", read_hostnode, part.place)
        resources = row["available_resources"] if row is not None else {}
        held = resources.get("gpus")
        gpus = [gpu for gpu in held if isinstance(gpu, dict)] if isinstance(held, list) else []
        if not any(gpu.get("v0Name") == part.gpu and hostnode_room(resources, gpu).gpus >= part.count for gpu in gpus):
            raise self._error(OfferGone, f"the hostnode has no {part.count} x {part.gpu} free any more")
        networks = [Network(dedicated=True)] if resources.get("has_public_ip_available") is True else []
        free = _free_ports(resources.get("available_ports"))
        if len(free) >= len(ports):
            networks.append(Network(forwards=tuple(zip(ports, free, strict=False))))
        if not networks:
            raise self._error(OfferGone, "the hostnode has neither a public address nor enough ports free")
        return networks

    def _error(self, kind: type[ProviderError], message: str) -> ProviderError:
        return kind(message, provider=self._wire.provider, operation="create")


def _networks(part: Slice, ports: Sequence[int]) -> list[Network]:
    """What the location offers. It chooses the ports outside by itself, so the wish is only a wish."""
    found = {DEDICATED: Network(dedicated=True), FORWARDED: Network(forwards=tuple((port, port) for port in ports))}
    return [found[letter] for letter in part.networks]


def _free_ports(told: object) -> list[int]:
    ports = [fields.count(port) for port in told] if isinstance(told, list) else []
    return [port for port in dict.fromkeys(ports) if 0 < port <= 65_535]
