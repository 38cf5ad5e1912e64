"""Vast.ai as a :class:`providers.base.Provider`.

Every method raises only :class:`providers.errors.ProviderError`. None retries, and none sleeps for a slot of the
gate except before the further pages of a listing. Sections named are those of the Vast.ai contract. The parts are
told apart by what they are about: market (offers), machines, listing, bids, actions, keys, templates, users,
statements (money), hosting.
"""

from __future__ import annotations

from providers.base import Capabilities
from providers.vastai.actions import Actions
from providers.vastai.bids import Bids
from providers.vastai.hosting import Hosting
from providers.vastai.keys import Keys
from providers.vastai.market import Market
from providers.vastai.native_only import NativeOnly
from providers.vastai.statements import Statements
from providers.vastai.templates import Templates

LABEL_LENGTH = 60


class AnyVastAI(Market, Bids, Actions, Keys, Templates, Statements, Hosting):
    """One Vast.ai account over any transport. Thread-safe; keeps no state between calls. What a transport cannot carry
    raises ``NotSupported``, whose message names the operation."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport!r})"

    @property
    def capabilities(self) -> Capabilities:
        can = self._transport.supports
        return Capabilities(
            templates=can("list_templates"),
            interruptible=can("set_bid"),
            preserve_disk=can("set_state"),
            attach_ssh_key=can("attach_ssh_key"),
            custom_image=True,
            entrypoint=True,
            label_length=LABEL_LENGTH,
            reboot=can("reboot"),
            logs=can("request_logs"),
            price_includes=("gpu", "vcpu", "ram"),
        )


class VastAI(AnyVastAI, NativeOnly):
    """Over Vast.ai's own API."""


class VastAIByGateway(AnyVastAI):
    """Over the LowCodeAPI gateway: machines are destroyed one by one, and keep the keys that they were given."""
