"""SSH keys of the account (Vast.ai contract, section 4.7)."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence

from providers import fields
from providers.errors import NotFound
from providers.vastai.caller import Caller
from providers.vastai.records import SSHKey
from providers.vastai.reply import Reply


class Keys(Caller):
    """Keys that every machine made from now on accepts; those of one machine are in :mod:`providers.vastai.actions`."""

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
