"""What consumers do to sessions: create, done, delete. One transaction each; the workers do the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from billing import services as billing
from gpubroker.common import clock, crypto, ids, sshkeys
from gpubroker.common import providers as configured
from gpubroker.common.deployment import deployment_id
from gpubroker.common.errors import ApiError, BadField
from offers import selectors as offers
from offers.models import Offer
from providers.labels import make_label
from sessions_app import nudge
from sessions_app.ending import end_session
from sessions_app.models import Rental, Session
from sessions_app.states import ENDABLE, FINAL, LIVE, EndReason, Status
from sessions_app.transitions import record

DEFAULT_DISK_GB = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """A validated create request."""

    consumer_id: str
    offer_id: str
    workload_type: str
    reservation_hours: int
    idle_threshold_minutes: int = 0
    storage_policy: str = "destroy"
    launch_mode: str = "ssh"
    docker_image: str = ""
    template_hash_id: str = ""
    disk_gb: int | None = None
    ssh_public_key: str = ""
    ssh_key_type: str = "rsa"
    launch_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewSession:
    session: Session
    #: Empty when the consumer brought its own key. Shown once, never stored.
    private_key: str = field(default="", repr=False)


def create_session(wish: Wish) -> NewSession:
    """Write down session, first rental and event in one transaction; the create call follows from the worker.

    Refused, with nothing written: unknown offer (404), a field that does not fit the offer (400), the same
    consumer's active session on this offer (409), a reservation beyond the hard maximum (400).
    """
    offer = offers.one(wish.offer_id)
    if offer is None:
        raise ApiError(404, f"offer {wish.offer_id} not found", offer_id=wish.offer_id)
    configured.get(offer.provider)
    disk_gb = _checked(wish, offer)
    _refuse_second(wish)
    public_key, private_key = wish.ssh_public_key, ""
    session_id = ids.new_session_id()
    if not public_key:
        pair = sshkeys.generate(wish.ssh_key_type, comment=session_id)
        public_key, private_key = pair.public, pair.private
    try:
        with transaction.atomic():
            session = _write_down(session_id, wish, offer, disk_gb, public_key)
            rental = _first_rental(session, offer)
            nudge.rental(rental.id)
    except IntegrityError:
        _refuse_second(wish)
        raise
    return NewSession(session, private_key)


def _checked(wish: Wish, offer: Offer) -> int:
    """The disk to ask for; raises for what this offer or this broker cannot do."""
    if wish.reservation_hours > settings.HARD_MAX_HOURS:
        raise BadField("reservation_hours", f"at most {settings.HARD_MAX_HOURS} here, got {wish.reservation_hours}")
    if wish.storage_policy == "preserve":
        raise BadField("storage_policy", "preserve is not available on this broker yet; use destroy")
    if wish.launch_mode == "entrypoint":
        raise BadField("launch_mode", "entrypoint is not available on this broker yet; use ssh")
    most = int(offer.disk_gb) if offer.disk_gb is not None else None
    if wish.disk_gb is None:
        return DEFAULT_DISK_GB if most is None else min(DEFAULT_DISK_GB, most)
    if most is not None and wish.disk_gb > most:
        raise BadField("disk_gb", f"this offer has at most {most} GB, got {wish.disk_gb}")
    return wish.disk_gb


def _refuse_second(wish: Wish) -> None:
    first = Session.objects.filter(
        consumer__name=wish.consumer_id, offer_id=wish.offer_id, status__in=LIVE
    ).values_list("id", flat=True).first()  # fmt: skip
    if first is not None:
        raise ApiError(
            409, f"{wish.consumer_id} already has an active session on offer {wish.offer_id}: {first}",
            session_id=first, offer_id=wish.offer_id,
        )  # fmt: skip


def _write_down(session_id: str, wish: Wish, offer: Offer, disk_gb: int, public_key: str) -> Session:
    now = clock.now()
    expires_at = now + timedelta(hours=wish.reservation_hours)
    session = Session.objects.create(
        id=session_id,
        consumer=billing.ensure_consumer(wish.consumer_id),
        offer_id=offer.id,
        provider=offer.provider,
        gpu_type=offer.gpu_type,
        gpu_count=offer.gpu_count,
        vram_mb=offer.vram_mb,
        price_per_hour=offer.price_per_hour,
        storage_price_per_gb_month=offer.storage_price_per_gb_month,
        workload_type=wish.workload_type,
        reservation_hours=wish.reservation_hours,
        idle_threshold_minutes=wish.idle_threshold_minutes,
        storage_policy=wish.storage_policy,
        launch_mode=wish.launch_mode,
        docker_image=wish.docker_image,
        template_hash_id=wish.template_hash_id,
        launch_options=wish.launch_options,
        disk_gb=disk_gb,
        ssh_public_key=public_key,
        created_at=now,
        expires_at=expires_at,
        hard_max_at=now + timedelta(hours=settings.HARD_MAX_HOURS),
        next_check_at=expires_at,
    )
    record(
        "session", session_id=session.id, to_state=Status.PENDING, reason="created",
        actor=f"consumer:{wish.consumer_id}",
        details={"offer_id": offer.id, "price_per_hour": str(offer.price_per_hour)},
    )  # fmt: skip
    return session


def _first_rental(session: Session, offer: Offer) -> Rental:
    key = sshkeys.generate("ed25519", comment=f"gpubroker-{session.id}")
    now = clock.now()
    return Rental.objects.create(
        session=session,
        provider=session.provider,
        label=make_label(deployment_id(), session.id, 1),
        attempt=1,
        offer_provider_id=offer.provider_id,
        machine_id=offer.machine_id,
        created_at=now,
        broker_key_sealed=crypto.seal(key.private),
        broker_public_key=key.public,
        # The nudge starts it at once; this finds it if the nudge is lost.
        next_check_at=now + timedelta(seconds=3),
    )


def found(session_id: str) -> Session:
    session = Session.objects.select_related("consumer").filter(id=session_id).first()
    if session is None:
        raise ApiError(404, f"session {session_id} not found", session_id=session_id)
    return session


def done(session_id: str, actor: str) -> None:
    """The consumer's work is complete. Again while stopping: the same answer. 409 once it is over."""
    session = found(session_id)
    if session.status in FINAL:
        raise ApiError(409, f"session {session_id} is already {session.status}", session_id=session_id)
    end_session(session_id, EndReason.DONE, actor=actor)


def destroy(session_id: str, actor: str) -> None:
    """Force the end; on a session that is ending or over it changes nothing."""
    if found(session_id).status in ENDABLE:
        end_session(session_id, EndReason.DELETED, actor=actor)
