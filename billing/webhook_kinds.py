"""What webhooks tell of. The table stands in docs/webhooks.md as well; a test compares them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

SESSION_CREATED: Final = "session.created"
SESSION_RUNNING: Final = "session.running"
SESSION_PAUSED: Final = "session.paused"
SESSION_RESUMED: Final = "session.resumed"
SESSION_STOPPING: Final = "session.stopping"
SESSION_STOPPED: Final = "session.stopped"
SESSION_FAILED: Final = "session.failed"
SESSION_ENDING_SOON: Final = "session.ending_soon"
SESSION_IDLE_WARNING: Final = "session.idle_warning"
SESSION_ATTEMPT_FAILED: Final = "session.attempt_failed"
SESSION_EXTENDED: Final = "session.extended"
BUDGET_THRESHOLD: Final = "budget.threshold"
BUDGET_EXHAUSTED: Final = "budget.exhausted"
ORPHAN_SEEN: Final = "orphan.seen"
DESTROY_UNPROVED: Final = "destroy.unproved"
SWEEP_HELD: Final = "sweep.held"
PROVIDER_FAILING: Final = "provider.failing"
PROVIDER_RECOVERED: Final = "provider.recovered"
PROVIDER_CREDIT_LOW: Final = "provider.credit_low"
PING: Final = "ping"

#: kind -> what it tells.
KINDS: Final[dict[str, str]] = {
    SESSION_CREATED: "A session was asked for and accepted; no machine yet.",
    SESSION_RUNNING: "SSH answered, and the promised GPUs were seen.",
    SESSION_PAUSED: "An interruptible session's machine was stopped for a higher bid; its disk is kept.",
    SESSION_RESUMED: "A paused session's machine runs again, and SSH answered.",
    SESSION_STOPPING: "A session's end began; the data says why.",
    SESSION_STOPPED: "A session ended, and its machine is proved gone.",
    SESSION_FAILED: "A session ended without ever running; nothing is owed for it.",
    SESSION_ENDING_SOON: "A session ends in 15 or in 5 minutes.",
    SESSION_IDLE_WARNING: "A session's GPUs are idle; it ends when they stay so.",
    SESSION_ATTEMPT_FAILED: "A machine could not be had or never answered; the data says whether another one is tried.",
    SESSION_EXTENDED: "A session's end was moved.",
    BUDGET_THRESHOLD: "Spending passed one of the budget's warning thresholds.",
    BUDGET_EXHAUSTED: "The budget is used up.",
    ORPHAN_SEEN: "A machine with our label that no open rental knows. Staff only.",
    DESTROY_UNPROVED: "A machine that should be gone is not proved gone, and may cost. Staff only.",
    SWEEP_HELD: "A sweep would have ended too much and asks a person. Staff only.",
    PROVIDER_FAILING: "A provider fails, and calls to it are held back. Staff only.",
    PROVIDER_RECOVERED: "A provider that failed answers again. Staff only.",
    PROVIDER_CREDIT_LOW: "A provider account's credit runs low. Staff only.",
    PING: "A test that somebody asked for; sent whatever the endpoint subscribes to.",
}
#: A whole group may be subscribed to: ``session.*``.
GROUPS: Final = tuple(dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in KINDS if "." in kind))
SUBSCRIBABLE: Final = (*(kind for kind in KINDS if kind != PING), *GROUPS)


def wanted(subscribed: Collection[str], kind: str) -> bool:
    """Whether an endpoint with these subscriptions (none: all) is told of ``kind``."""
    return not subscribed or kind in subscribed or f"{kind.partition('.')[0]}.*" in subscribed
