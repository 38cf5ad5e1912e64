"""``storage_policy: preserve``: the machine is stopped and its disk kept, at the disk's price, to its own deadline.

A stop is a debt like a destroy: sent again and again, and believed only when the provider shows the machine stopped.
But the GPU costs until then, and no machine lives past its end (I8): a stop that does not come true in time gives way
to the destroy.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import F

from gpubroker.common import clock
from gpubroker.common import providers as configured
from gpubroker.common.errors import ApiError
from providers.base import Instance, KeepsDisks, Phase
from providers.errors import GateClosed, NotSupported, ProviderError
from sessions_app import meter, nudge
from sessions_app.ending import finish_session, owe_destruction
from sessions_app.models import Rental, Session
from sessions_app.states import Debt
from sessions_app.transitions import move_rental, record

log = logging.getLogger(__name__)

#: After this the GPU has cost enough: the machine is destroyed, and its disk with it.
STOP_PATIENCE = timedelta(minutes=15)
#: A machine that still runs this long after the provider took the stop is asked once more.
ASK_AGAIN = timedelta(seconds=30)
LOOK_AGAIN = 2.0
MOST_PAUSE = 30.0
#: Hours that a disk is kept when nobody says how long, and at most.
DEFAULT_HOURS = 24
MOST_HOURS = 720


def park(rental: Rental) -> None:
    """One step towards a stopped machine: send the stop unless it was taken lately, then look."""
    assert rental.stop_requested_at is not None
    if clock.now() - rental.stop_requested_at >= STOP_PATIENCE and not _begin_late(rental):
        _give_up(rental, "the provider did not stop the machine in time; its disk goes with it")
        return
    try:
        provider = configured.get(rental.provider)
        if not isinstance(provider, KeepsDisks):
            _give_up(rental, f"{rental.provider} cannot stop a machine and keep its disk")
            return
        answered = rental.stop_answered_at
        if answered is None or clock.now() - answered >= ASK_AGAIN:
            _taken(rental, provider.stop(rental.instance_id))
        instance = provider.get_instance(rental.instance_id)
    except NotSupported as error:
        _give_up(rental, error.message)
    except GateClosed as error:
        _later(rental, error.retry_after or 0.5)
    except ProviderError as error:
        _refused(rental, error)
    except ApiError as error:
        _later(rental, MOST_PAUSE, error.message)
    else:
        if instance is not None and instance.phase == Phase.STOPPED:
            _preserved(rental, instance)
        else:
            # Unknown to the provider: the sweep finds out whether it is a ghost.
            _later(rental, LOOK_AGAIN, f"the provider says {instance.status or instance.phase}" if instance else "")


def _begin_late(rental: Rental) -> bool:
    """Nobody has asked for the stop yet, as nothing of ours was up: no reason to lose a disk. Its time begins now."""
    now = clock.now()
    never_asked = Rental.objects.filter(id=rental.id, state=Debt.PARKING, stop_attempts=0)
    if not never_asked.update(stop_attempts=1, stop_requested_at=now):
        return False
    rental.stop_attempts, rental.stop_requested_at = 1, now
    return True


def expire(rental: Rental) -> None:
    """The disk's own deadline: from then on the machine is owed like any other."""
    if rental.preserve_until is not None and clock.now() >= rental.preserve_until:
        owe_destruction(rental, {Debt.PRESERVED}, reason="the disk was kept for as long as was asked")
    else:
        Rental.objects.filter(id=rental.id, state=Debt.PRESERVED).update(next_check_at=rental.preserve_until)


def note(rental: Rental, instance: Instance) -> None:
    """The listing shows a preserved machine running again, by whoever's doing: its GPU must not be paid for."""
    if rental.state != Debt.PRESERVED or instance.phase not in (Phase.RUNNING, Phase.BOOTING):
        return
    now = clock.now()
    moved = move_rental(
        rental, {Debt.PRESERVED}, Debt.PARKING, reason=f"it was seen {instance.status or instance.phase} again",
        stop_requested_at=now, stop_answered_at=None, next_check_at=now,
    )  # fmt: skip
    if moved:
        nudge.rental(rental.id)


def drop(session_id: str, actor: str) -> bool:
    """The consumer wants the disk gone as well: a session's parked or preserved machine is owed from now on."""
    with transaction.atomic():
        Session.objects.select_for_update(no_key=True).filter(id=session_id).first()
        kept = Rental.objects.filter(session_id=session_id, state__in=[Debt.PARKING, Debt.PRESERVED]).first()
        return kept is not None and owe_destruction(
            kept, {Debt.PARKING, Debt.PRESERVED}, reason="the consumer gave the disk up", actor=actor
        )


def _taken(rental: Rental, answer: str) -> None:
    now = clock.now()
    with transaction.atomic():
        Rental.objects.filter(id=rental.id, state=Debt.PARKING).update(
            stop_answered_at=now, stop_attempts=F("stop_attempts") + 1, last_error=""
        )
        record(
            "stop_accepted", session_id=rental.session_id, rental_id=rental.id, reason=answer,
            details={"instance_id": rental.instance_id},
        )  # fmt: skip
    rental.stop_answered_at = now


def _refused(rental: Rental, error: ProviderError) -> None:
    attempts = rental.stop_attempts + 1
    pause = max(error.retry_after or 0.0, min(0.5 * 2 ** min(attempts, 10), MOST_PAUSE))
    with transaction.atomic():
        Rental.objects.filter(id=rental.id, state=Debt.PARKING).update(
            stop_attempts=attempts, last_error=str(error)[:300], next_check_at=clock.now() + timedelta(seconds=pause)
        )
        record(
            "stop_refused", session_id=rental.session_id, rental_id=rental.id, reason=str(error),
            details={"instance_id": rental.instance_id, "again_in_seconds": round(pause, 1)},
        )  # fmt: skip
    log.error("stop of %s refused, again in %.0f s: %s", rental.label, pause, error)


def _later(rental: Rental, seconds: float, error: str = "") -> None:
    Rental.objects.filter(id=rental.id, state=Debt.PARKING).update(
        next_check_at=clock.now() + timedelta(seconds=seconds), last_error=error[:300]
    )


def _give_up(rental: Rental, why: str) -> None:
    if owe_destruction(rental, {Debt.PARKING}, reason=why):
        log.error("disk of %s is not kept: %s", rental.label, why)


def _preserved(rental: Rental, instance: Instance) -> None:
    """The receipt: the provider's own word that the machine is stopped, and until when its disk is kept."""
    now = clock.now()
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(id=rental.session_id)
        until = rental.preserve_until or now + timedelta(hours=session.preserve_hours or DEFAULT_HOURS)
        proof = {
            "call": f"get instance {rental.instance_id}",
            "answer": instance.status or Phase.STOPPED.value,
            "at": now.isoformat(),
            "stop_accepted_at": rental.stop_answered_at.isoformat() if rental.stop_answered_at else None,
        }
        moved = move_rental(
            rental, {Debt.PARKING}, Debt.PRESERVED, reason=f"stopped; its disk is kept until {clock.iso(until)}",
            details={"proof": proof, "preserve_until": clock.iso(until)},
            preserved_at=now, preserve_until=until, phase=instance.phase, next_check_at=until,
            broker_key_sealed="", last_error="",
        )  # fmt: skip
        if not moved:
            return
        meter.stop_gpu(rental, rental.stop_answered_at or now)
        meter.keep_disk(rental, rental.stop_answered_at or now)
        finish_session(session.id)
    log.info("machine %s is stopped, its disk kept until %s: %s", rental.instance_id, clock.iso(until), rental.label)
