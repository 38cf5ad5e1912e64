"""Another consumer key for a running machine, for whoever lost the first or must replace it.

The provider is asked in the request's own thread, outside any transaction, each call with the HTTP layer's limits and
all of them within the request's wait budget: a rekey has no meaning to anybody but the caller who waits for it, and
one that breaks off half-way leaves a machine that the old key still opens. Order: attach the new key, see with our own
key that the door still opens (and, where we made the new key, that it opens too), write it down if nobody was
quicker, and only then take the old one off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from django.db import transaction

from gpubroker.common import clock, crypto, sshkeys
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError, BadField
from gpubroker.common.principal import OPEN, Principal
from providers.base import RemovesKeys
from providers.errors import GateClosed, InvalidRequest, NotSupported, ProviderError, RateLimited
from sessions_app import verify
from sessions_app.launch_modes import ENTRYPOINT
from sessions_app.models import Rental, Session
from sessions_app.services import found
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_AGAIN_SECONDS = 0.5
#: Asks nothing of the GPUs: they were proved when the machine came up.
NO_GPUS = verify.Promise(gpu_count=0, vram_mb=0)


@dataclass(frozen=True, slots=True)
class Rekeyed:
    session_id: str
    fingerprint: str
    #: Whether a login with the new key was seen to work; only tried where we made it.
    verified: bool
    old_key_removed: bool
    private_key: str = field(default="", repr=False)


def rekey(session_id: str, public_key: str, key_type: str, budget: float, principal: Principal = OPEN) -> Rekeyed:
    """Let the machine accept this key, or a new pair's, in place of the consumer's present one. 409 unless running."""
    session, rental = _running(session_id, principal)
    private_key, until = "", time.monotonic() + budget
    if not public_key:
        pair = sshkeys.generate(key_type, comment=session_id)
        public_key, private_key = pair.public, pair.private
    provider = configured.get(rental.provider)
    if not provider.capabilities.attach_ssh_key:
        raise ApiError(409, f"{rental.provider} cannot change the keys of a machine", session_id=session_id)
    _ask(lambda: provider.attach_ssh_key(rental.instance_id, public_key), until)
    _see_the_door_open(session, rental, public_key, until)
    verified = bool(private_key) and _opens(session, rental, private_key, until)
    old = session.ssh_public_key
    if not _write_down(session, rental, public_key, principal.actor):
        if not _is_the_sessions(session, public_key):
            _remove(rental, public_key, until)
        raise ApiError(409, f"session {session_id} ended or got another key meanwhile", session_id=session_id)
    removed = _body(old) != _body(public_key) and _remove(rental, old, until)
    return Rekeyed(session_id, verify.fingerprint(public_key), verified, removed, private_key)


def _running(session_id: str, principal: Principal) -> tuple[Session, Rental]:
    session = found(session_id, principal)
    rental = session.rentals.filter(state=Debt.LIVE).first()
    if session.status != Status.RUNNING or rental is None:
        raise ApiError(
            409, f"session {session_id} is {session.status}; only a running one can be rekeyed",
            session_id=session_id, status=session.status,
        )  # fmt: skip
    if session.paused_at is not None:
        raise ApiError(409, f"session {session_id} is paused; its key can be changed when it runs again",
                       session_id=session_id, status=session.status)  # fmt: skip
    if session.launch_mode == ENTRYPOINT:
        raise ApiError(
            409, f"session {session_id} was launched by its entrypoint and has no SSH", session_id=session_id
        )
    return session, rental


def _body(public_key: str) -> list[str]:
    return public_key.split()[:2]


def _ask(call: Callable[[], T], until: float) -> T:
    """The provider's answer; waits for a slot of its gate as long as the budget lasts."""
    while True:
        try:
            return call()
        except (GateClosed, RateLimited) as error:
            pause = error.retry_after or LOOK_AGAIN_SECONDS
            if time.monotonic() + pause >= until:
                raise _refusal(error) from None
            clock.pause(pause)
        except ProviderError as error:
            raise _refusal(error) from None


def _refusal(error: ProviderError) -> ApiError:
    if isinstance(error, InvalidRequest):
        return BadField("ssh_public_key", f"the provider refuses this key: {error.message}")
    again = error.retryable
    headers = {"Retry-After": str(int(error.retry_after or 5) + 1)} if again else {}
    return ApiError(
        503, f"the provider did not take the key: {error.message}", error_type=error.kind, retry_suggested=again,
        headers=headers,
    )  # fmt: skip


def _endpoint(session: Session) -> verify.Endpoint:
    return verify.Endpoint(session.ssh_host, session.ssh_port or 0, session.ssh_user)


def _see_the_door_open(session: Session, rental: Rental, public_key: str, until: float) -> None:
    """503 when it stays shut; the new key, which is nobody's then, is taken off again."""
    if not _opens(session, rental, crypto.unseal(rental.broker_key_sealed), until):
        if not _is_the_sessions(session, public_key):
            _remove(rental, public_key, until)
        raise ApiError(
            503, f"session {session.id} does not answer on SSH now; its key was not changed", session_id=session.id,
            retry_suggested=True, headers={"Retry-After": "5"},
        )  # fmt: skip


def _opens(session: Session, rental: Rental, private_key: str, until: float) -> bool:
    """Whether a login works, tried at least once and until the budget is used up: keys arrive some seconds late."""
    while True:
        try:
            verify.verify([_endpoint(session)], private_key, NO_GPUS, rental.host_key)
            return True
        except verify.NotYet as error:
            log.info("session %s: %s", session.id, error)
        except verify.WrongMachine as error:
            raise ApiError(503, f"session {session.id}: {error}", session_id=session.id) from None
        if time.monotonic() + LOOK_AGAIN_SECONDS >= until:
            return False
        clock.pause(LOOK_AGAIN_SECONDS)


def _write_down(session: Session, rental: Rental, public_key: str, actor: str) -> bool:
    """Only while it runs and still has the key that we saw."""
    with transaction.atomic():
        same = Session.objects.select_for_update(no_key=True).filter(
            id=session.id, status=Status.RUNNING, ssh_public_key=session.ssh_public_key
        )  # fmt: skip
        if not same.exists():
            return False
        Session.objects.filter(id=session.id).update(ssh_public_key=public_key)
        record(
            "rekeyed", session_id=session.id, rental_id=rental.id, reason="another SSH key", actor=actor,
            details={"before": verify.fingerprint(session.ssh_public_key), "now": verify.fingerprint(public_key)},
        )  # fmt: skip
    return True


def _is_the_sessions(session: Session, public_key: str) -> bool:
    """Whoever was quicker may have brought the same key."""
    session.refresh_from_db(fields=["ssh_public_key"])
    return _body(session.ssh_public_key) == _body(public_key)


def _remove(rental: Rental, public_key: str, until: float) -> bool:
    """The new key works whether or not this succeeds; the answer says which."""
    provider = configured.get(rental.provider)
    if not isinstance(provider, RemovesKeys) or _body(public_key) == _body(rental.broker_public_key):
        return False  # ours stays, even if somebody found it on the machine and called it theirs
    try:
        return _ask(lambda: provider.remove_ssh_key(rental.instance_id, public_key), until)
    except (ApiError, NotSupported) as error:
        log.warning("the old key of %s stays on its machine: %s", rental.label, error)
        return False
