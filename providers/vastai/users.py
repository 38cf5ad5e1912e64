"""The account's user (Vast.ai contract, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers import fields
from providers.base import Balance
from providers.errors import InvalidRequest
from providers.vastai.caller import Caller, read_note
from providers.vastai.records import User
from providers.vastai.reply import Reply


class Users(Caller):
    """Who we are, and what we can spend."""

    def balance(self) -> Balance:
        """What can still be spent: ``credit``, in dollars, below zero when in debt. (``balance`` is another
        figure, 0 for prepaid accounts.) Section 5.2. Needs the key's permission ``user_read``."""

        def read(reply: Reply) -> Balance:
            credit = fields.exact(reply.object().get("credit"))
            if credit is None:
                raise reply.malformed("no number under 'credit'")
            return Balance(credit)

        return self._transport.send("balance", read)

    def current_user(self, *, wait: float = 0.0) -> User:
        """The user whose key this is. Of what the vendor tells, the secrets among it are not kept."""
        return self._transport.send("current_user", _read_user, wait=wait)

    def user(self, user_id: str) -> User:
        """Another user, through the gateway only: ``NotSupported`` on Vast.ai's own API."""
        return self._transport.send("user", _read_user, self._id("user", user_id))

    def update_current_user(self, changes: Mapping[str, Any]) -> str:
        """Write some of the user's own fields, in the vendor's names."""
        if not changes:
            raise self._error(InvalidRequest, "update_current_user", "nothing to change")
        return self._transport.send("update_current_user", read_note, json=dict(changes))


def _read_user(reply: Reply) -> User:
    body = reply.object()
    user_id = fields.identifier(body.get("id"))
    if not user_id:
        raise reply.malformed("no number under 'id'")
    return User(
        user_id=user_id,
        username=fields.text(body.get("username"), 200),
        email=fields.text(body.get("email"), 300),
        credit=fields.exact(body.get("credit")),
        balance=fields.exact(body.get("balance")),
    )
