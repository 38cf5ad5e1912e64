"""Whose a machine on a provider account is: a session's of ours, an orphan, another deployment's, or nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpubroker.common.deployment import deployment_id
from providers.labels import parse_label
from sessions_app.models import Rental
from sessions_app.states import OPEN


@dataclass(frozen=True, slots=True)
class Owners:
    """What the books know of one provider's machines, by the provider's id and by label."""

    by_machine: dict[str, Rental]
    by_label: dict[str, Rental]

    def of(self, instance_id: str, label: str) -> dict[str, Any]:
        """``kind`` is session, orphan (our label, and no session that it belongs to), deployment (another one's
        label) or unknown (no label of any GPU broker)."""
        rental = self.by_machine.get(instance_id) or self.by_label.get(label)
        if rental is not None and rental.session is not None:
            return _owner("session", rental.session_id, rental.session.consumer.name)
        read = parse_label(label)
        if rental is not None or (read is not None and read.deployment == deployment_id()):
            return _owner("orphan", read.session_id if read is not None else None)
        return _owner("deployment", deployment=read.deployment) if read is not None else _owner("unknown")


def _owner(
    kind: str, session_id: str | None = None, consumer_id: str | None = None, deployment: str | None = None
) -> dict[str, Any]:
    return {"kind": kind, "session_id": session_id, "consumer_id": consumer_id, "deployment": deployment}


def now_at(provider: str) -> Owners:
    """For machines that exist: only an open rental owns one."""
    return _read(Rental.objects.filter(provider=provider, state__in=OPEN))


def ever_at(provider: str, instance_ids: Iterable[str]) -> Owners:
    """For bills: whoever had the machine when it was there."""
    return _read(Rental.objects.filter(provider=provider, instance_id__in=set(instance_ids) - {""}))


def _read(rentals: Any) -> Owners:
    rows = list(rentals.select_related("session__consumer").order_by("created_at"))
    return Owners({row.instance_id: row for row in rows if row.instance_id}, {row.label: row for row in rows})
