"""Which events are told to webhooks: one table, applied where events are written, in their own transaction."""

from __future__ import annotations

from collections.abc import Sequence

from billing import outbox, webhook_kinds
from billing.outbox import Notice
from gpubroker.common import clock
from sessions_app.models import Event, Session
from sessions_app.states import Status

#: By the status that a session moved to.
MOVES: dict[str, str] = {
    Status.RUNNING: webhook_kinds.SESSION_RUNNING,
    Status.STOPPING: webhook_kinds.SESSION_STOPPING,
    Status.STOPPED: webhook_kinds.SESSION_STOPPED,
    Status.FAILED: webhook_kinds.SESSION_FAILED,
}
#: By the event's kind.
KINDS: dict[str, str] = {
    "ending_soon": webhook_kinds.SESSION_ENDING_SOON,
    "idle_warning": webhook_kinds.SESSION_IDLE_WARNING,
    "attempt_failed": webhook_kinds.SESSION_ATTEMPT_FAILED,
    "paused": webhook_kinds.SESSION_PAUSED,
    "resumed": webhook_kinds.SESSION_RESUMED,
    "extended": webhook_kinds.SESSION_EXTENDED,
    "hard_max_override": webhook_kinds.SESSION_EXTENDED,
    "budget_cut": webhook_kinds.SESSION_EXTENDED,
    "orphan_seen": webhook_kinds.ORPHAN_SEEN,
    "destroy_unproved": webhook_kinds.DESTROY_UNPROVED,
    "sweep_held": webhook_kinds.SWEEP_HELD,
    "provider_failing": webhook_kinds.PROVIDER_FAILING,
    "provider_recovered": webhook_kinds.PROVIDER_RECOVERED,
}
#: Told to staff's endpoints only, also where a session is concerned.
FOR_STAFF = frozenset(
    {
        webhook_kinds.ORPHAN_SEEN,
        webhook_kinds.DESTROY_UNPROVED,
        webhook_kinds.SWEEP_HELD,
        webhook_kinds.PROVIDER_FAILING,
        webhook_kinds.PROVIDER_RECOVERED,
    }
)


def kind_of(event: Event) -> str | None:
    """The webhook kind of an event; ``None``: it is told to nobody."""
    if event.kind != "session":
        return KINDS.get(event.kind)
    if event.to_state == Status.PENDING and not event.from_state:
        return webhook_kinds.SESSION_CREATED
    return MOVES.get(event.to_state)


def told(events: Sequence[Event]) -> None:
    """Write what webhooks are to tell of these events, inside their transaction. One query when nobody listens."""
    telling = [(event, kind) for event in events if (kind := kind_of(event)) is not None]
    if not telling or not outbox.somebody_listens():
        return
    ids = {event.session_id for event, kind in telling if event.session_id and kind not in FOR_STAFF}
    consumers = dict(Session.objects.filter(id__in=ids).values_list("id", "consumer_id"))
    outbox.emit_all(
        Notice(
            kind,
            consumers.get(event.session_id or ""),
            subject=event.session_id or str(event.details.get("provider", "")),
            data={
                "session_id": event.session_id,
                "at": clock.iso(event.at),
                "from": event.from_state,
                "to": event.to_state,
                "reason": event.reason,
                "actor": event.actor,
                "details": event.details,
            },
        )
        for event, kind in telling
    )
