"""What single answers hold: places, one machine, the outcome of a change. Rows are read elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from providers import fields
from providers.base import ALREADY_GONE, Created, Instance
from providers.errors import InvalidRequest, NotFound, OutcomeUnknown
from providers.tensordock.instances import detail_of, flat, instance_id_of, read_instance
from providers.tensordock.reply import Reply

#: Refusals of a start or stop that say that it is so already (section 6.3).
_NO_CHANGE = re.compile(r"already (?:running|started|stopped)|must be stopped", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Look:
    """A direct look at one machine. Without ``proved`` the answer was a 404 that does not speak of the machine."""

    instance: Instance | None
    proved: bool = True


def read_places(reply: Reply, key: str) -> list[Any]:
    """``data.locations`` or ``data.hostnodes``; an empty list is a valid answer (section 4.2), every other shape
    none."""
    data = reply.object().get("data")
    rows = data.get(key) if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise reply.malformed(f"no list under 'data.{key}'")
    return rows


def read_hostnode(reply: Reply) -> dict[str, Any] | None:
    """One hostnode (section 4.2); ``None`` when there is none of this id (any more)."""
    refusal = reply.refusal()
    if isinstance(refusal, NotFound):
        return None
    data = reply.object().get("data")
    if not isinstance(data, dict) or not isinstance(data.get("available_resources"), dict):
        raise reply.malformed("no hostnode under 'data'")
    return data


def read_look(reply: Reply, known_id: str) -> Look:
    """The detail of the machine ``known_id``, or that the vendor has none."""
    refusal = reply.refusal()
    if isinstance(refusal, NotFound):
        return Look(None, proved=reply.says_no_such_instance())
    detail = detail_of(reply.object())
    if instance_id_of(detail.get("id")) != known_id:
        raise reply.malformed("the answer is not about this instance")
    return Look(read_instance(detail))


def read_created(reply: Reply, label: str) -> Created:
    """The new machine's id. A 2xx without one may still have made a machine (section 5). One that says both that it
    failed and which machine it made, or that the machine has another name than ours (rule I1), leaves it to be
    destroyed."""
    body = reply.json if isinstance(reply.json, dict) else {}
    data = body.get("data")
    row = flat(data) if isinstance(data, dict) else body
    instance_id = instance_id_of(row.get("id")) if reply.answer.ok else ""
    refusal = reply.refusal()
    if not instance_id:
        raise refusal or reply.error(OutcomeUnknown, "accepted without an id")
    if refusal is not None:
        return Created(instance_id, accepted=False, note=reply.note)
    if row.get("name", label) != label:
        return Created(instance_id, accepted=False, note="the provider gave the machine another name")
    return Created(instance_id)


def read_destroyed(reply: Reply) -> str:
    """Any 2xx without an error inside, with or without a body (section 6.4)."""
    if reply.says_no_such_instance():
        return ALREADY_GONE
    if refusal := reply.refusal():
        raise refusal
    attributes = flat(reply.json.get("data")) if isinstance(reply.json, dict) else {}
    return reply.safe_text(fields.text(attributes.get("message"))) or "accepted"


def read_power(reply: Reply) -> str:
    """The state that a start or stop leads to. What is so already is success."""
    refusal = reply.refusal()
    if isinstance(refusal, InvalidRequest) and (reply.status == 409 or _NO_CHANGE.search(reply.said)):
        return reply.note
    data = reply.object().get("data")
    return reply.safe_text(fields.text(flat(data).get("status"))) or "accepted"
