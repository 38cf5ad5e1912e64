"""A session whose hard budget does not hold it to its end: it ends earlier, with a warning first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from billing import budget_room as rooms
from billing import budgets
from billing.budget_parts import ZERO
from gpubroker.common import clock
from sessions_app import warning, worst_case
from sessions_app.ending import end_session
from sessions_app.models import Rental, Session
from sessions_app.session_budget import open_rental
from sessions_app.states import ENDABLE, EndReason, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)

#: The least between the warning and the end.
GRACE = timedelta(minutes=5)
MESSAGE = "the consumer's budget is used up"


def trim(session_id: str) -> bool:
    """Give its margin up. Never moves its end, and so says ``False``."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status in ENDABLE:
            budgets.reserve(worst_case.claim(session, open_rental(session), clock.now()), force=True, share=ZERO)
    return False


def squeeze(session_id: str) -> bool:
    """Make a session fit into what its hard budget has left for it. Whether its end had to be moved.

    At the least it has :data:`GRACE` left, where it runs; then a disk that was to be kept is not kept either.
    """
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=session_id)
        if session.status not in ENDABLE or not budgets.lock([session.consumer_id]):
            return False
        head, rental, now = rooms.headroom(session.consumer_id, session.id), open_rental(session), clock.now()
        if head is None or not head.budget.hard:
            return False
        end, keep = _affordable(session, rental, head, now)
        moved = end < warning.end_of(session)
        if moved and end <= now + GRACE and session.status != Status.RUNNING:
            end_session(session.id, EndReason.BUDGET, message=MESSAGE)  # there is nothing to save
            session.refresh_from_db()
        elif moved:
            _cut(session, end, keep, now)
        budgets.reserve(worst_case.claim(session, open_rental(session), now), force=True, share=ZERO)
    return moved


def _affordable(
    session: Session, rental: Rental | None, head: rooms.Headroom, now: datetime
) -> tuple[datetime, bool]:  # fmt: skip
    """The latest end that the money reaches to, and whether it reaches for keeping the disk."""
    whole, least = warning.end_of(session), now + GRACE

    def reaches(end: datetime) -> bool:
        return head.fits(worst_case.of_session(session, rental, now, end=end), ZERO)

    if whole <= least or reaches(whole):
        return whole, True
    if not reaches(least):
        return least, False
    return _latest(least, whole, reaches), True


def _latest(good: datetime, bad: datetime, reaches: Callable[[datetime], bool]) -> datetime:
    """To the second, between one that is reached and one that is not."""
    low, high = 0, int((bad - good).total_seconds())
    while low < high:
        middle = (low + high + 1) // 2
        if reaches(good + timedelta(seconds=middle)):
            low = middle
        else:
            high = middle - 1
    return good + timedelta(seconds=low)


def _cut(session: Session, end: datetime, keep: bool, now: datetime) -> None:
    """It ends then, and the warnings of the new end are due anew."""
    before = warning.end_of(session)
    session.expires_at, session.warned_minutes, session.budget_cut_at = end, None, now
    changes: dict[str, Any] = {"expires_at": end, "warned_minutes": None, "budget_cut_at": now}
    drops_disk = session.storage_policy == "preserve" and not keep
    if drops_disk:
        session.storage_policy = changes["storage_policy"] = "destroy"
    if session.status != Status.PROVISIONING:
        changes["next_check_at"] = warning.next_check(session, now)
    Session.objects.filter(id=session.id).update(**changes)
    disk = "; its disk will not be kept" if drops_disk else ""
    record(
        "budget_cut", session_id=session.id, reason=f"{MESSAGE}: ends at {clock.iso(end)}{disk}",
        details={"before": clock.iso(before), "expires_at": clock.iso(end), "disk_kept": not drops_disk
                 and session.storage_policy == "preserve"},
    )  # fmt: skip
    log.warning("session %s is cut short to %s: %s", session.id, clock.iso(end), MESSAGE)
