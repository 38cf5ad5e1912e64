"""``Idempotency-Key``: the same request again gets the same answer, whatever happened in between.

The record of a key is committed in the transaction of what the request changes, so a crash leaves both or neither.
A refused request changes nothing and keeps no record: sent again, it is tried again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from rest_framework.request import Request
from rest_framework.response import Response

from gpubroker.common import clock, crypto, errors, principal
from gpubroker.common.api import wait_budget, wait_until
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.models import IdempotencyRecord
from gpubroker.common.renderers import JSONRenderer

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
#: How long a secret that was made for a request and is shown once, such as a private key, is kept, sealed.
SECRET_KEPT = timedelta(minutes=10)
#: A running request whose worker died may be taken over after this, on top of what it may wait.
LEASE = timedelta(seconds=30)
#: What such secrets are called in a body, and the ``note`` that stands in their place afterwards.
PRIVATE_KEY, API_KEY, WEBHOOK_SECRET = "ssh_private_key", "api_key", "webhook_secret"
GONE = {
    PRIVATE_KEY: "The private key was returned once and is no longer kept; use rekey for a new one.",
    API_KEY: "The API key was returned once and is no longer kept; rotate it for a new one.",
    WEBHOOK_SECRET: "The webhook's secret was returned once and is no longer kept; rotate it for a new one.",
}
#: Secrets must not rest in any cache on their way.
NO_STORE = {"Cache-Control": "no-store"}
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with. ``secret`` goes into the body under ``secret_name``, a name of :data:`GONE`;
    it is kept apart and shortly."""

    status: int
    body: dict[str, Any]
    secret: str = field(default="", repr=False)
    secret_name: str = PRIVATE_KEY

    @classmethod
    def refusal(cls, error: ApiError) -> Answer:
        return cls(error.status, {"error": error.message, **error.extra})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that carries a key: whose key, which, and what for."""

    scope: str
    key: str
    fingerprint: str


class Taken(Exception):
    """Another request with this key was quicker."""


def asked(request: Request, scope: str = "") -> Asked | None:
    """``None`` without the header; 400 for a key that is none. ``scope``: whose key, when it is not the principal's."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise BadField(HEADER, "must be 1 to 255 printable ASCII characters")
    body = json.dumps(request.data, sort_keys=True)
    text = f"{request.method} {request.path.rstrip('/')}\n{body}"
    return Asked(scope or principal.of(request).actor, key, hashlib.sha256(text.encode()).hexdigest())


def earlier(wanted: Asked | None) -> IdempotencyRecord | None:
    """The record of this very request; 409 when its key was used for another one."""
    if wanted is None:
        return None
    record = IdempotencyRecord.objects.filter(scope=wanted.scope, key=wanted.key).first()
    if record is None:
        return None
    if record.expires_at <= clock.now():
        IdempotencyRecord.objects.filter(id=record.id, expires_at=record.expires_at).delete()
        return None
    if record.fingerprint != wanted.fingerprint:
        raise ApiError(
            409, f"this {HEADER} was already used for another request", error_type="idempotency_key_reused"
        )  # fmt: skip
    return record


def begin(wanted: Asked, lease: timedelta = LEASE) -> IdempotencyRecord:
    """Take the key, in the transaction of what it is for. Raises :class:`Taken`; waits for whoever is taking it."""
    now = clock.now()
    try:
        with transaction.atomic():
            return IdempotencyRecord.objects.create(
                scope=wanted.scope, key=wanted.key, fingerprint=wanted.fingerprint,
                created_at=now, expires_at=now + KEPT, lease_until=now + lease,
            )  # fmt: skip
    except IntegrityError:
        raise Taken from None


def bind(record: IdempotencyRecord, subject: str, secret: str = "", secret_name: str = PRIVATE_KEY) -> None:
    """From now on an answer can be made from ``subject``, an id, even if nobody lives to keep one."""
    changes = {"subject": subject, **_sealed(secret, secret_name)}
    IdempotencyRecord.objects.filter(id=record.id).update(**changes)
    record.secret_name = secret_name if secret else ""


def _sealed(secret: str, name: str) -> dict[str, Any]:
    if not secret:
        return {}
    return {"secret_name": name, "secret_sealed": crypto.seal(secret), "secret_until": clock.now() + SECRET_KEPT}


def keep(record: IdempotencyRecord, answer: Answer) -> Answer:
    """Keep the answer unless one is kept already; the one that counts from now on."""
    changes: dict[str, Any] = {
        "status_code": answer.status,
        "answer_sealed": crypto.seal(JSONRenderer().render(answer.body).decode()),
    }
    if not record.secret_name:
        changes |= _sealed(answer.secret, answer.secret_name)
    if IdempotencyRecord.objects.filter(id=record.id, status_code__isnull=True).update(**changes):
        return answer
    return kept(record.id) or answer


def kept(record_id: int) -> Answer | None:
    """The answer that is kept, with the secret as long as that is kept too."""
    record = IdempotencyRecord.objects.filter(id=record_id, status_code__isnull=False).first()
    if record is None or record.status_code is None:
        return None
    body: dict[str, Any] = json.loads(crypto.unseal(record.answer_sealed), parse_float=Decimal)
    return with_secret(record, Answer(record.status_code, body))


def with_secret(record: IdempotencyRecord, answer: Answer) -> Answer:
    """The answer of a replay: with the secret inside its window, afterwards with a note."""
    if not record.secret_name or answer.status >= 400:
        return answer
    if record.secret_sealed and record.secret_until is not None and clock.now() < record.secret_until:
        return Answer(answer.status, answer.body, crypto.unseal(record.secret_sealed), record.secret_name)
    return Answer(answer.status, {**answer.body, "note": GONE[record.secret_name]})


def drop(record: IdempotencyRecord) -> None:
    """The request was refused and changed nothing: its key is free again."""
    IdempotencyRecord.objects.filter(id=record.id, status_code__isnull=True).delete()


def take_over(record: IdempotencyRecord, lease: timedelta = LEASE) -> bool:
    """Whoever answered this request is dead: go on in its place. ``False``: it lives, or somebody was quicker."""
    now = clock.now()
    if record.lease_until > now:
        return False
    mine = IdempotencyRecord.objects.filter(
        id=record.id, lease_until=record.lease_until, status_code__isnull=True
    ).update(lease_until=now + lease)  # fmt: skip
    record.lease_until = now + lease
    return bool(mine)


def still_running(until: datetime) -> ApiError:
    left = max(1, int((until - clock.now()).total_seconds()) + 1)
    return ApiError(
        409, "the first request with this key is still being answered; ask again",
        error_type="idempotency_in_progress", headers={"Retry-After": str(min(left, 5))},
    )  # fmt: skip


def respond(request: Request, answer: Answer, *, replayed: bool = False) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    body = dict(answer.body)
    if answer.status >= 400:
        message = body.pop("error", "refused")
        return Response(errors.body(message, request, **body), status=answer.status, headers=headers)
    if answer.secret:
        body[answer.secret_name] = answer.secret
        headers |= NO_STORE
    return Response(body, status=answer.status, headers=headers)


def once(request: Request, act: Callable[[], Answer], scope: str = "") -> Response:
    """For what is done in one transaction: the act and the record of its answer are committed together."""
    wanted = asked(request, scope)
    if wanted is None:
        return respond(request, act())
    record = earlier(wanted)
    if record is None:
        try:
            with transaction.atomic():
                answer = keep(begin(wanted), act())
        except Taken:
            record = earlier(wanted)
        else:
            return respond(request, answer)
    return replay(request, record)


def claimed(request: Request, act: Callable[[], Answer], lease: timedelta) -> Response:
    """For what asks a provider: the key is taken first, by one request only, and given back when that is refused.
    Should its worker die, the next one with the same key goes on after ``lease``: ``act`` must bear being repeated."""
    wanted = asked(request)
    if wanted is None:
        return respond(request, act())
    record = earlier(wanted)
    if record is None:
        try:
            record = begin(wanted, lease)
        except Taken:
            return replay(request, earlier(wanted))
    elif record.status_code is not None or not take_over(record, lease):
        return replay(request, record)
    try:
        answer = act()
    except Exception:
        drop(record)
        raise
    return respond(request, keep(record, answer))


def replay(request: Request, record: IdempotencyRecord | None) -> Response:
    """Wait for the answer of the request that has the key."""
    if record is None:
        raise still_running(clock.now())
    record_id = record.id
    answer = wait_until(lambda: kept(record_id), wait_budget(request, settings.CREATE_WAIT_SECONDS))
    if answer is None:
        raise still_running(record.lease_until)
    return respond(request, answer, replayed=True)


def purge() -> None:
    """Erase what has been kept long enough: secrets first, whole records after a day."""
    now = clock.now()
    IdempotencyRecord.objects.filter(secret_until__lte=now).update(secret_sealed="", secret_until=None)
    IdempotencyRecord.objects.filter(expires_at__lte=now).delete()
