"""Create over HTTP: the first half is one transaction, the second waits for the provider's verdict and can be repeated
by whoever asks again with the same ``Idempotency-Key``, even after a crash in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from gpubroker.common import clock, idempotency
from gpubroker.common.api import wait_budget, wait_until
from gpubroker.common.errors import ApiError
from gpubroker.common.idempotency import Answer
from gpubroker.common.models import IdempotencyRecord
from offers import snapshot
from sessions_app import provider_credit, selectors, services
from sessions_app.models import Session
from sessions_app.planning import Wish
from sessions_app.shown import shown
from sessions_app.states import FAILURES, EndReason

#: Launch failures as (HTTP status, may the same request succeed later).
LAUNCH_FAILURES: dict[str, tuple[int, bool]] = {
    EndReason.REFUSED: (400, False),
    EndReason.NO_CREDIT: (503, False),
    EndReason.PROVIDER_AUTH: (503, False),
    EndReason.PROVIDER_UNAVAILABLE: (503, True),
    EndReason.CREATE_LOST: (503, True),
    EndReason.OUTBID: (503, True),
}

#: Where the answer's ``error_type`` is another word than the end reason: the same as where we refuse ourselves.
ERROR_TYPES: dict[str, str] = {EndReason.NO_CREDIT: provider_credit.ERROR_TYPE}


def create(request: Request, wish: Wish, actor: str) -> Response:
    """Write the session down, or find the one that this key made, and answer with the provider's verdict."""
    wanted = idempotency.asked(request)
    budget = wait_budget(request, settings.CREATE_WAIT_SECONDS)
    record = idempotency.earlier(wanted)
    if record is None:
        lease = idempotency.LEASE + timedelta(seconds=budget)
        try:
            new = services.create_session(wish, actor, wanted, lease)
        except (idempotency.Taken, ApiError):
            # A twin of this request may have been quicker between our look and our try.
            record = idempotency.earlier(wanted)
            if record is None:
                raise
        else:
            return _respond(request, _first(new, budget), replayed=False)
    return _respond(request, _again(record, budget), replayed=True)


def _first(new: services.NewSession, budget: float) -> Answer:
    session = wait_until(lambda: selectors.left_pending(new.session.id), budget) or services.found(new.session.id)
    answer = answer_of(session, new.private_key)
    return idempotency.keep(new.record, answer) if new.record is not None else answer


def _again(record: IdempotencyRecord, budget: float) -> Answer:
    """The answer that is kept, or one made from the session when its maker is late or dead."""

    def known() -> Answer | None:
        session = selectors.left_pending(record.subject)
        return idempotency.kept(record.id) or (_made_again(record, session) if session else None)

    answer = wait_until(known, budget)
    if answer is not None:
        return answer
    if record.lease_until > clock.now():
        raise idempotency.still_running(record.lease_until)
    return _made_again(record, services.found(record.subject))


def _made_again(record: IdempotencyRecord, session: Session) -> Answer:
    return idempotency.keep(record, idempotency.with_secret(record, answer_of(session)))


def answer_of(session: Session, private_key: str = "") -> Answer:
    """201 with the session, or the refusal when it never came to run."""
    if session.end_reason in FAILURES and session.running_at is None:
        return Answer.refusal(launch_refusal(session))
    return Answer(201, {"session": shown(session)}, private_key)


def launch_refusal(session: Session) -> ApiError:
    """The create failed for good: the seed's stale-inventory body, or what else the provider said."""
    if session.end_reason == EndReason.OFFER_GONE:
        snapshot.forget()
        return ApiError(
            503, "offer unavailable due to stale inventory", error_type="stale_inventory",
            offer_id=session.offer_id, provider=session.provider, retry_suggested=True,
            message="The selected offer is no longer available. Please refresh inventory and select a different offer.",
            session_id=session.id,
        )  # fmt: skip
    status, again = LAUNCH_FAILURES.get(session.end_reason, (503, True))
    return ApiError(
        status, f"the session could not be launched: {EndReason(session.end_reason).label}: {session.end_message}",
        error_type=ERROR_TYPES.get(session.end_reason, session.end_reason), offer_id=session.offer_id,
        provider=session.provider, retry_suggested=again, session_id=session.id,
    )  # fmt: skip


def _respond(request: Request, answer: Answer, *, replayed: bool) -> Response:
    response = idempotency.respond(request, answer, replayed=replayed)
    body: dict[str, Any] = answer.body
    if answer.status == 201:
        response.headers["Location"] = f"/api/v1/sessions/{body['session']['id']}"
    return response
