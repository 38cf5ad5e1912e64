"""What consumers do to sessions: create, done, delete. One transaction each; the workers do the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import IntegrityError, transaction

from billing import services as billing
from gpubroker.common import clock, crypto, idempotency, ids, sshkeys
from gpubroker.common.errors import ApiError
from gpubroker.common.models import IdempotencyRecord
from gpubroker.common.principal import OPEN, Principal
from sessions_app import attempts, heartbeat, preserve, provider_credit, session_budget
from sessions_app.ending import end_session
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Session
from sessions_app.planning import Plan, Wish, plan
from sessions_app.states import ENDABLE, FINAL, LIVE, EndReason, Status
from sessions_app.transitions import record


@dataclass(frozen=True, slots=True)
class NewSession:
    session: Session
    #: Empty when the consumer brought its own key. Shown once, never stored in clear.
    private_key: str = field(default="", repr=False)
    #: The request's ``Idempotency-Key``, when it came with one.
    record: IdempotencyRecord | None = None


def create_session(
    wish: Wish, actor: str, key: idempotency.Asked | None = None, lease: timedelta = idempotency.LEASE
) -> NewSession:
    """Write down session, first rental, event and the request's key in one transaction; the create call follows from
    the worker.

    Refused, with nothing written: unknown offer or template (404), a field that does not fit the offer (400), the same
    consumer's active session on this offer (409), a reservation beyond the hard maximum (400), what the consumer's hard
    budget does not hold (402), a provider in maintenance or whose account cannot pay for it (503).
    """
    planned = plan(wish)
    _refuse_second(wish)
    session_budget.check_new(wish, planned)
    provider_credit.refuse_if_short(wish, planned)
    public_key, private_key = wish.ssh_public_key, ""
    session_id = ids.new_session_id()
    if not public_key:
        pair = sshkeys.generate(wish.ssh_key_type, comment=session_id)
        public_key, private_key = pair.public, pair.private
    if wish.launch_mode == ENTRYPOINT:
        private_key = ""  # there is no SSH server that would take it
    try:
        with transaction.atomic():
            kept = idempotency.begin(key, lease) if key is not None else None
            session = _write_down(session_id, wish, planned, public_key, actor)
            attempts.write_down(session, planned, 1)
            session_budget.reserve(session)
            if kept is not None:
                idempotency.bind(kept, session.id, private_key)
    except IntegrityError:
        _refuse_second(wish)
        raise
    return NewSession(session, private_key, kept)


def _refuse_second(wish: Wish) -> None:
    first = Session.objects.filter(
        consumer__name=wish.consumer_id, offer_id=wish.offer_id, status__in=LIVE
    ).values_list("id", flat=True).first()  # fmt: skip
    if first is not None:
        raise ApiError(
            409, f"{wish.consumer_id} already has an active session on offer {wish.offer_id}: {first}",
            session_id=first, offer_id=wish.offer_id,
        )  # fmt: skip


def _write_down(session_id: str, wish: Wish, planned: Plan, public_key: str, actor: str) -> Session:
    now, offer = clock.now(), planned.offer
    token = heartbeat.new_token()
    expires_at = now + timedelta(hours=wish.reservation_hours)
    session = Session.objects.create(
        id=session_id,
        consumer=billing.ensure_consumer(wish.consumer_id),
        offer_id=offer.id,
        provider=offer.provider,
        gpu_type=offer.gpu_type,
        gpu_count=offer.gpu_count,
        vram_mb=offer.vram_mb,
        price_per_hour=planned.price_per_hour,
        pricing=wish.pricing,
        bid_price=planned.bid_price,
        storage_price_per_gb_month=offer.storage_price_per_gb_month,
        workload_type=wish.workload_type,
        reservation_hours=wish.reservation_hours,
        idle_threshold_minutes=wish.idle_threshold_minutes,
        storage_policy=wish.storage_policy,
        preserve_hours=_preserve_hours(wish),
        launch_mode=wish.launch_mode,
        docker_image=planned.docker_image,
        template_hash_id=wish.template_hash_id,
        launch_options=planned.launch_options,
        disk_gb=planned.disk_gb,
        auto_retry=wish.auto_retry,
        max_retries=wish.max_retries,
        retry_scope=wish.retry_scope,
        max_price=wish.max_price,
        ssh_public_key=public_key,
        agent_token_hash=heartbeat.hashed(token),
        agent_token_sealed=crypto.seal(token),
        created_at=now,
        expires_at=expires_at,
        hard_max_at=now + timedelta(hours=settings.HARD_MAX_HOURS),
        next_check_at=expires_at,
    )
    record(
        "session", session_id=session.id, to_state=Status.PENDING, reason="created",
        actor=actor,
        details={"offer_id": offer.id, "price_per_hour": str(planned.price_per_hour), "pricing": wish.pricing},
    )  # fmt: skip
    return session


def _preserve_hours(wish: Wish) -> int | None:
    return (wish.preserve_hours or preserve.DEFAULT_HOURS) if wish.storage_policy == "preserve" else None


def found(session_id: str, principal: Principal = OPEN) -> Session:
    """The session; one that the principal may not see is as unknown as one that never was."""
    session = Session.objects.select_related("consumer").filter(id=session_id).first()
    if session is None or not principal.may_see(session.consumer.name):
        raise ApiError(404, f"session {session_id} not found", session_id=session_id)
    return session


def done(session_id: str, principal: Principal = OPEN) -> None:
    """The consumer's work is complete. Again while stopping: the same answer. 409 once it is over."""
    session = found(session_id, principal)
    if session.status in FINAL:
        raise ApiError(409, f"session {session_id} is already {session.status}", session_id=session_id)
    end_session(session_id, EndReason.DONE, actor=principal.actor)


def destroy(session_id: str, principal: Principal = OPEN) -> None:
    """Force the end, and that of a disk that is kept; on a session that is ending or over it changes nothing else."""
    if found(session_id, principal).status in ENDABLE:
        # Not EndReason.STAFF, which keeps a disk that is to be preserved: whoever deletes wants nothing kept.
        by_staff = "deleted by staff" if principal.actor.startswith("staff:") else ""
        end_session(session_id, EndReason.DELETED, actor=principal.actor, message=by_staff)
    preserve.drop(session_id, principal.actor)
