"""The answer to a create (Vast.ai contract, section 3.2)."""

from __future__ import annotations

from providers import fields
from providers.base import Created
from providers.errors import OutcomeUnknown
from providers.vastai.reply import Reply


def read_created(reply: Reply) -> Created:
    """The contract, also where it comes with a refusal; raises where there is none, or none that can be read."""
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
