"""What is written here: consumers, their keys, and the meter.

The meter's segments are opened when the provider begins to bill and closed at the proof that it stopped.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest

from billing import keys, metering
from billing.models import SCOPE_LISTS, ApiKey, Consumer, MeterSegment
from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.names import REASON, is_plain
from gpubroker.common.principal import READ, SCOPES, SPEND, STAFF

log = logging.getLogger(__name__)

DEFAULT_SCOPES = (READ, SPEND)
#: How long a rotated key works beside its successor, unless said otherwise.
GRACE = timedelta(hours=24)
LONGEST_LIFE_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Account:
    """On whose account a rental's segments go."""

    rental_id: uuid.UUID
    session_id: str
    consumer_id: int | None
    provider: str
    gpu_type: str


def ensure_consumer(name: str) -> Consumer:
    consumer, _ = Consumer.objects.get_or_create(name=name, defaults={"created_at": clock.now()})
    return consumer


def new_consumer(name: str) -> Consumer:
    """409 when there is one of that name."""
    consumer, made = Consumer.objects.get_or_create(name=name, defaults={"created_at": clock.now()})
    if not made:
        raise ApiError(409, f"there is a consumer {name} already", consumer_id=name)
    return consumer


@dataclass(frozen=True, slots=True)
class MadeKey:
    key: ApiKey
    #: The whole key: shown once, stored nowhere.
    secret: str = field(repr=False)


def scope_list(scopes: Iterable[str]) -> str:
    """As a key stores them; 400 for an unknown one and for none. Staff implies the others."""
    given = set(scopes)
    unknown = sorted(given - set(SCOPES))
    if unknown:
        raise BadField("scopes", f"{unknown[0]!r} is not one of {', '.join(SCOPES)}")
    listed = STAFF if STAFF in given else ",".join(scope for scope in DEFAULT_SCOPES if scope in given)
    if listed not in SCOPE_LISTS:
        raise BadField("scopes", f"at least one of {', '.join(SCOPES)} is needed")
    return listed


def make_key(
    consumer: str | None,
    *,
    by: str,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    name: str = "",
    expires_in: timedelta | None = None,
) -> MadeKey:
    """A key for the consumer of that name, who is made if need be, or a staff key for nobody.

    400 when the scopes and the consumer do not go together, and for names with characters that cannot be seen.
    """
    listed = scope_list(scopes)
    for field_name, text in (("consumer_id", consumer or ""), ("name", name)):
        if not is_plain(text):
            raise BadField(field_name, REASON)
    if listed == STAFF and consumer:
        raise BadField("consumer_id", "a staff key belongs to no consumer")
    if listed != STAFF and not consumer:
        raise BadField("consumer_id", "a key without the scope staff belongs to a consumer; name one")
    now = clock.now()
    with transaction.atomic():
        owner = ensure_consumer(consumer) if consumer else None
        return _write_key(
            ApiKey(
                consumer=owner, scopes=listed, name=name, created_by=by, created_at=now,
                expires_at=now + expires_in if expires_in is not None else None,
            )
        )  # fmt: skip


def _write_key(key: ApiKey) -> MadeKey:
    new = keys.generate()
    key.prefix, key.digest = new.prefix, keys.digest(new.secret)
    key.save(force_insert=True)
    log.info("API key %s made by %s for %s", key.prefix, key.created_by, key.consumer or "staff")
    return MadeKey(key, new.secret)


def found_key(prefix: str) -> ApiKey:
    key = ApiKey.objects.select_related("consumer").filter(prefix=prefix).first()
    if key is None:
        raise ApiError(404, f"key {prefix} not found", prefix=prefix)
    return key


def revoke_key(prefix: str, *, by: str) -> ApiKey:
    """It works no more: at once in this process, within ``keys.CACHE_SECONDS`` in the others. Again: no change."""
    found_key(prefix)
    if ApiKey.objects.filter(prefix=prefix, revoked_at__isnull=True).update(revoked_at=clock.now()):
        log.info("API key %s revoked by %s", prefix, by)
    keys.keyring.forget(prefix)
    return found_key(prefix)


def rotate_key(prefix: str, *, by: str, grace: timedelta = GRACE) -> MadeKey:
    """A new key with the old one's consumer, scopes, name and length of life; the old one works for ``grace`` more.

    With no grace it is revoked at once. 409 when it works no more or was replaced before.
    """
    with transaction.atomic():
        old = ApiKey.objects.select_for_update(of=("self",)).filter(pk=found_key(prefix).pk).get()
        now = clock.now()
        if (state := old.state(now)) != "active":
            raise ApiError(409, f"key {prefix} is {state}; make a new one", prefix=prefix)
        if (successor := old.successors.first()) is not None:
            raise ApiError(409, f"key {prefix} was replaced by {successor.prefix} already", prefix=prefix)
        life = old.expires_at - old.created_at if old.expires_at is not None else None
        made = _write_key(
            ApiKey(
                consumer=old.consumer, scopes=old.scopes, name=old.name, created_by=by, created_at=now,
                expires_at=now + life if life is not None else None, rotated_from=old,
            )
        )  # fmt: skip
        if grace > timedelta(0):
            old.expires_at = min(now + grace, old.expires_at or now + grace)
            old.save(update_fields=["expires_at"])
        else:
            revoke_key(prefix, by=by)
    # Once more when it is committed, which a caller's own transaction may put off: until then others read the old row.
    transaction.on_commit(lambda: keys.keyring.forget(prefix))
    return made


@dataclass(frozen=True, slots=True)
class Rate:
    """From ``at`` on, ``kind`` of this rental costs ``per_hour`` dollars."""

    account: Account
    kind: str
    per_hour: Decimal
    at: datetime


def set_rate(account: Account, kind: str, rate_per_hour: Decimal, at: datetime) -> None:
    """From ``at`` on, this rental costs ``rate_per_hour`` for ``kind``. The same rate again changes nothing."""
    set_rates([Rate(account, kind, rate_per_hour, at)])


def set_rates(rates: Sequence[Rate]) -> None:
    """:func:`set_rate` for many in one transaction, at most one of a kind for each rental."""
    with transaction.atomic():
        still_open = MeterSegment.objects.filter(
            rental_id__in={rate.account.rental_id for rate in rates}, ended_at__isnull=True
        )
        locked = still_open.select_for_update(no_key=True).order_by("id")
        running = {(segment.rental_id, segment.kind): segment for segment in locked}
        rentals = {rate.account.rental_id for rate in rates}
        failed, ended = _so_far(rentals)
        opened, now = [], clock.now()
        for rate in rates:
            account, per_hour = rate.account, rate.per_hour.quantize(metering.RATE_PLACES)
            before = running.get((account.rental_id, rate.kind))
            if before is not None and before.rate_per_hour == per_hour:
                continue
            if before is not None:
                before.ended_at, before.book_at = max(rate.at, before.started_at), now
                before.save(update_fields=["ended_at", "book_at"])
                ended[account.rental_id, rate.kind] = before.ended_at
            opened.append(
                MeterSegment(
                    rental_id=account.rental_id,
                    session_id=account.session_id,
                    consumer_id=account.consumer_id,
                    provider=account.provider,
                    gpu_type=account.gpu_type,
                    kind=rate.kind,
                    rate_per_hour=per_hour,
                    # Told late, it would cost once more what is metered up to then.
                    started_at=max(rate.at, ended.get((account.rental_id, rate.kind), rate.at)),
                    failed_attempt=account.rental_id in failed,
                    preserved=before is not None and before.preserved,
                    book_at=now,
                )
            )
        # A second worker may have opened one in the same instant: the constraint keeps one.
        MeterSegment.objects.bulk_create(opened, batch_size=500, ignore_conflicts=True)
        metering.changed({segment.consumer_id for segment in opened})


def _so_far(rentals: Collection[uuid.UUID]) -> tuple[set[uuid.UUID], dict[tuple[uuid.UUID, str], datetime]]:
    """The rentals that are marked as failed attempts, and the last moment up to which each kind is metered already."""
    failed: set[uuid.UUID] = set()
    ended: dict[tuple[uuid.UUID, str], datetime] = {}
    known = MeterSegment.objects.filter(rental_id__in=rentals)
    for rental_id, kind, ended_at, failed_attempt in known.values_list(
        "rental_id", "kind", "ended_at", "failed_attempt"
    ):
        if failed_attempt:
            failed.add(rental_id)
        if ended_at is not None:
            ended[rental_id, kind] = max(ended_at, ended.get((rental_id, kind), ended_at))
    return failed, ended


def backdate(beginnings: Mapping[uuid.UUID, datetime], kind: str) -> None:
    """Each rental's first segment of ``kind`` began then: no later than it ended, if it did."""
    first: dict[uuid.UUID, MeterSegment] = {}
    for segment in MeterSegment.objects.filter(rental_id__in=beginnings, kind=kind).order_by("started_at", "id"):
        first.setdefault(segment.rental_id, segment)
    moved: set[int | None] = set()
    for rental_id, segment in first.items():
        began = min(beginnings[rental_id], segment.ended_at or beginnings[rental_id])
        if began != segment.started_at:
            segment.started_at, segment.book_at = began, clock.now()
            segment.save(update_fields=["started_at", "book_at"])
            moved.add(segment.consumer_id)
    metering.changed(moved)


def stop_kind(rental_id: uuid.UUID, kind: str, at: datetime) -> None:
    """``kind`` costs nothing from ``at`` on, e.g. the GPU of a stopped machine."""
    open_segments = MeterSegment.objects.filter(rental_id=rental_id, kind=kind, ended_at__isnull=True)
    with transaction.atomic():
        if open_segments.update(ended_at=Greatest(F("started_at"), at), book_at=clock.now()):
            metering.changed_of(rental_id)


def settle(rental_id: uuid.UUID, at: datetime) -> None:
    """The rental is proved gone since ``at``: nothing costs beyond it, and what was counted beyond is given back.
    What its traffic cost stays: it was billed by volume."""
    now = clock.now()
    with transaction.atomic():
        segments = MeterSegment.objects.filter(rental_id=rental_id).exclude(kind=MeterSegment.Kind.BANDWIDTH)
        segments.filter(ended_at__isnull=True).update(ended_at=Greatest(F("started_at"), at), book_at=now)
        segments.filter(ended_at__gt=at, started_at__lte=at).update(ended_at=at, book_at=now)
        beyond = segments.filter(started_at__gt=at, ended_at__gt=F("started_at"))
        beyond.update(ended_at=F("started_at"), book_at=now)
        metering.changed_of(rental_id)
