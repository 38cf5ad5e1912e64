"""One machine of the account: rent it, look at it, destroy it (Vast.ai contract, sections 3, 4.2 and 4.6)."""

from __future__ import annotations

from providers import fields
from providers.base import ALREADY_GONE, Created, Instance, LaunchOrder
from providers.errors import InvalidRequest, NotFound
from providers.vastai.created import read_created
from providers.vastai.instances import read_instance
from providers.vastai.listing import Listings
from providers.vastai.orders import BadOrder, create_body
from providers.vastai.reply import Reply


class Machines(Listings):
    """The life of one machine."""

    def create(self, order: LaunchOrder) -> Created:
        """Rent the offer (section 3). The instance's id is ``new_contract``, not the offer's. A refusal that names a
        contract all the same (a bid too low) is ``Created(accepted=False)``: it exists, is stopped, and its disk
        is billed. Keys are attached afterwards, and sent here as well where that is not sure to work. Raises
        ``OfferGone``, ``InsufficientCredit``, ``InvalidRequest``, ``RateLimited`` (nothing happened) or
        ``OutcomeUnknown`` (look for the label first)."""
        offer_id = self._id("create", order.offer_id)
        try:
            body = create_body(order, with_keys=self._transport.keys_at_create)
        except BadOrder as bad:
            raise self._error(InvalidRequest, "create", str(bad)) from None
        return self._transport.send("create", read_created, offer_id, json=body)

    def get_instance(self, instance_id: str) -> Instance | None:
        """One machine (section 4.2). ``None`` only when the vendor itself says that it has none: ``{"instances":
        null}``, or a 404 in its own words. A bare 404 page proves nothing and is ``MalformedAnswer``."""
        return self._look("get_instance", instance_id)

    def _look(self, operation: str, instance_id: str) -> Instance | None:
        known_id = self._id(operation, instance_id)

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

        return self._transport.send(operation, read, known_id, params={"owner": "me"})

    def destroy(self, instance_id: str) -> str:
        """Destroy a machine and its disk for good (section 4.6). Not having it (any more) is success; the proof is
        :meth:`get_instance`, as the host works on its own time. ``RateLimited`` and ``OutcomeUnknown``: call again."""

        return self._end("destroy", instance_id)

    def _end(self, operation: str, instance_id: str) -> str:
        def read(reply: Reply) -> str:
            if reply.says_no_such_instance():
                return ALREADY_GONE
            body = reply.object()
            return self._transport.safe_text(fields.text(body.get("msg"))) or "accepted"

        return self._transport.send(operation, read, self._id(operation, instance_id), json={})
