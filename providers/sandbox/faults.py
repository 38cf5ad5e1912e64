"""Faults on demand, for tests of what a broker does when the marketplace misbehaves.

``POST /_sandbox/faults {"kind": K, "operation": O, "times": N, ...}`` arms one. It strikes the next
``times`` calls of the operation (default 1; -1: until cleared), after letting ``skip`` pass, and only
those of ``label``, ``instance_id``, ``api_key`` or (TensorDock) ``path`` where given. Operations: any,
create, destroy, list, get, search, update, bid, reboot, recycle, attach, detach, instance_keys, ssh_list,
ssh_add, ssh_update, ssh_delete, logs, execute, templates, template_create, template_update,
template_delete, user, charges, invoices, machines. Where it is left out, the kind's own default (in
brackets) is taken.

The call does not take effect:
  error_5xx [any]             HTML error page; ``status`` 502 (default), 503, 504, 500
  rate_limited [any]          429 in the form of section 1.5 of the Vast.ai contract; ``threshold`` seconds
  auth_error [any]            the key is not known (404 ``auth_error``); ``status`` 404, 401, 403
  success_false [any]         HTTP 200 with ``success: false``; ``message``. With ``contract: true`` on a
                              create, the machine exists (stopped, its disk billed), as after a low bid
  insufficient_credit [create]  400
  offer_gone [create]         ``shape`` "400", "404" or "410" (default: by offer id); the offer leaves the market
  ssh_attach_fail [attach]    ``status`` (default 500) and an error body

The call takes effect, the answer suffers:
  lost_answer [create]        the connection is dropped
  error_after [create]        502 HTML; ``status``
  truncated_json [create]     half of the JSON; with ``mid_stream: true`` the connection breaks in the middle
  malformed [any]             200, valid JSON of a wrong shape (``body`` to choose it)
  slow [any]                  the answer waits ``seconds`` (wall time; default 5) before the effect, with
                              ``after: true`` after it

Listings lie:
  empty_listing [list]        complete-looking and empty
  partial_listing [list]      only the first ``keep`` rows (default 1) and no next page; the total still
                              counts all, unless ``consistent: true``

The machine that a create makes is a bad one (with ``instance_id``: an existing machine turns bad):
  boot_never [create]         loading for ever
  boot_error [create]         ``mode`` "oci" (created, OCI runtime error) or "pull" (loading, pull error); ``message``
  boot_exited [create]        exited instead of running
  listing_lag [create]        not in listings for ``seconds`` (default 5) of sandbox time
  no_ssh [create]             runs, but its SSH port refuses; with ``mode: "hang"`` it connects and stays silent
  ssh_delay [create]          SSH answers ``seconds`` (default 5) of sandbox time after running
  open_door [create]          its SSH server lets in whoever has any key
  no_driver [create]          nvidia-smi is not there (``mode`` "none", default), fails ("half"), or fails until
                              ``sudo reboot`` ("reboot")
  wrong_gpu [create]          nvidia-smi shows other GPUs: ``count``, ``memory_mb``, ``name`` (default: half the memory)

Ends badly:
  refuse_destroy [destroy]    ``mode`` "silent" (default: 200, success, and the machine stays), "error" (500), or
                              "slow" (success; it goes ``seconds`` of sandbox time later, default 5)

On the TensorDock face (its own words: docs/sandbox.md): ``rate_limited`` without ``headers`` if that is false;
``offer_gone`` has the shapes nodes, hostnode, ip, ratio, deploy and stock; ``ssh_attach_fail`` makes a machine on
which the key of its create did not land; ``empty_listing`` and ``partial_listing`` also know the operation search.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

#: kind -> operation that it strikes unless told otherwise
KINDS: Mapping[str, str] = {
    "error_5xx": "any",
    "rate_limited": "any",
    "auth_error": "any",
    "success_false": "any",
    "insufficient_credit": "create",
    "offer_gone": "create",
    "ssh_attach_fail": "attach",
    "lost_answer": "create",
    "error_after": "create",
    "truncated_json": "create",
    "malformed": "any",
    "slow": "any",
    "empty_listing": "list",
    "partial_listing": "list",
    "boot_never": "create",
    "boot_error": "create",
    "boot_exited": "create",
    "listing_lag": "create",
    "no_ssh": "create",
    "ssh_delay": "create",
    "open_door": "create",
    "no_driver": "create",
    "wrong_gpu": "create",
    "refuse_destroy": "destroy",
}
#: Answered instead of the call.
BEFORE = frozenset(
    {"error_5xx", "rate_limited", "auth_error", "success_false", "insufficient_credit", "offer_gone", "ssh_attach_fail"}
)
#: Spoil the answer of a call that was carried out.
AFTER = frozenset({"lost_answer", "error_after", "truncated_json", "malformed"})
#: Stick to a machine.
QUIRKS = frozenset(
    {
        "boot_never",
        "boot_error",
        "boot_exited",
        "listing_lag",
        "no_ssh",
        "ssh_delay",
        "open_door",
        "no_driver",
        "wrong_gpu",
    }
)

_SELECTORS = ("label", "instance_id", "api_key", "path")


@dataclass(slots=True)
class Fault:
    """One armed fault."""

    id: int
    kind: str
    operation: str
    times: int = 1
    skip: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    def suits(self, kinds: Collection[str], operation: str, facts: Mapping[str, Any]) -> bool:
        if self.kind not in kinds or self.operation not in ("any", operation):
            return False
        return all(str(facts.get(name)) == str(self.params[name]) for name in _SELECTORS if name in self.params)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "operation": self.operation,
            "times": self.times,
            "skip": self.skip,
            "hits": self.hits,
            **self.params,
        }


class FaultBook:
    """The armed faults, oldest first, and those that are spent (for the tests that count hits)."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.spent: list[Fault] = []
        self._number = 0

    def arm(self, wanted: Mapping[str, Any]) -> Fault:
        """Add a fault from its JSON. A wrong kind or count is a ``ValueError``."""
        params = dict(wanted)
        kind = params.pop("kind", None)
        if kind not in KINDS:
            raise ValueError(f"unknown fault kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        times, skip = int(params.pop("times", 1)), int(params.pop("skip", 0))
        if times == 0 or times < -1 or skip < 0:
            raise ValueError("times is a positive number, or -1 for ever; skip is not negative")
        self._number += 1
        operation = str(params.pop("operation", None) or KINDS[kind])
        fault = Fault(self._number, kind, operation, times, skip, params)
        self.armed.append(fault)
        return fault

    def take(self, kinds: Collection[str], operation: str, **facts: Any) -> Fault | None:
        """The first armed fault that strikes this call, counted down."""
        for fault in self.armed:
            if not fault.suits(kinds, operation, facts):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            self._strike(fault)
            return fault
        return None

    def take_quirks(self, operation: str, **facts: Any) -> dict[str, dict[str, Any]]:
        """Everything that will be wrong with the machine being made: at most one fault of each kind."""
        found: dict[str, dict[str, Any]] = {}
        for kind in sorted(QUIRKS):
            fault = self.take({kind}, operation, **facts)
            if fault:
                found[kind] = dict(fault.params)
        return found

    def clear(self) -> None:
        self.armed.clear()
        self.spent.clear()

    def _strike(self, fault: Fault) -> None:
        fault.hits += 1
        if fault.times > 0:
            fault.times -= 1
        if fault.times == 0:
            self.armed.remove(fault)
            self.spent.append(fault)
