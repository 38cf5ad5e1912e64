"""The states of sessions and rentals, and the only moves between them. Tests walk these tables."""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    """What a consumer sees of a session."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


#: A session in one of these may have, or may get, a machine.
LIVE = frozenset({Status.PENDING, Status.PROVISIONING, Status.RUNNING, Status.STOPPING})
#: ... and may still be ended by somebody.
ENDABLE = frozenset({Status.PENDING, Status.PROVISIONING, Status.RUNNING})
FINAL = frozenset({Status.STOPPED, Status.FAILED})

#: ``pending | provisioning -> failed`` only when nothing is owed: an open rental goes through ``stopping`` first.
SESSION_MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROVISIONING, Status.STOPPING, Status.FAILED}),
    # Back to pending: this attempt failed, and the session goes on with another offer (``auto_retry``).
    Status.PROVISIONING: frozenset({Status.RUNNING, Status.PENDING, Status.STOPPING, Status.FAILED}),
    Status.RUNNING: frozenset({Status.STOPPING}),
    Status.STOPPING: frozenset({Status.STOPPED, Status.FAILED}),
    Status.STOPPED: frozenset(),
    Status.FAILED: frozenset(),
}


class EndReason(models.TextChoices):
    """Why a session ended; a field of its own beside the status."""

    DONE = "done", "done: the consumer said so"
    DELETED = "deleted", "deleted by the consumer"
    EXPIRED = "expired", "reservation used up"
    HARD_MAX = "hard_max", "hard maximum reached"
    IDLE = "idle", "idle for too long"
    BUDGET = "budget", "the consumer's budget is used up"
    STAFF = "staff", "ended by staff"
    OFFER_GONE = "offer_gone", "the offer was gone"
    REFUSED = "refused", "the provider refused the launch"
    NO_CREDIT = "no_credit", "no credit at the provider"
    PROVIDER_AUTH = "provider_auth", "the provider refuses our key"
    PROVIDER_UNAVAILABLE = "provider_unavailable", "the provider could not be reached"
    CREATE_LOST = "create_lost", "the create's answer was lost and no machine was found"
    OUTBID = "outbid", "others bid more, and the machine never ran"
    BOOT_FAILED = "boot_failed", "the machine failed to start"
    BOOT_TIMEOUT = "boot_timeout", "SSH did not answer in time"
    WRONG_MACHINE = "wrong_machine", "the machine is not what was offered"
    PRICE = "price", "the provider's price was above max_price"
    PROVIDER_LOST = "provider_lost", "the provider lost the machine"


#: Ends that finish as ``failed``; all others finish as ``stopped``.
FAILURES = frozenset(
    {
        EndReason.OFFER_GONE,
        EndReason.REFUSED,
        EndReason.NO_CREDIT,
        EndReason.PROVIDER_AUTH,
        EndReason.PROVIDER_UNAVAILABLE,
        EndReason.CREATE_LOST,
        EndReason.OUTBID,
        EndReason.BOOT_FAILED,
        EndReason.BOOT_TIMEOUT,
        EndReason.WRONG_MACHINE,
        EndReason.PRICE,
        EndReason.PROVIDER_LOST,
    }
)


#: Failures of one machine or offer, after which another may do better (``auto_retry``).
RETRYABLE = frozenset(
    {
        EndReason.OFFER_GONE,
        EndReason.REFUSED,
        EndReason.CREATE_LOST,
        EndReason.OUTBID,
        EndReason.BOOT_FAILED,
        EndReason.BOOT_TIMEOUT,
        EndReason.WRONG_MACHINE,
        EndReason.PRICE,
        EndReason.PROVIDER_LOST,
        EndReason.PROVIDER_UNAVAILABLE,
    }
)
#: Ends after which ``storage_policy: preserve`` keeps the disk: those of a session that had its machine.
#: A delete is "force destroy": it takes the disk with it.
PRESERVING = frozenset(
    {EndReason.DONE, EndReason.EXPIRED, EndReason.HARD_MAX, EndReason.IDLE, EndReason.BUDGET, EndReason.STAFF}
)


class Debt(models.TextChoices):
    """What is known of a rental: may the provider be billing us, and what do we owe?"""

    INTENDED = "intended", "written down, not yet asked for"
    CREATING = "creating", "the create call is out"
    UNKNOWN = "unknown", "the create's answer was lost"
    LIVE = "live", "the machine exists"
    PARKING = "parking", "to be stopped and proved stopped, its disk kept"
    PRESERVED = "preserved", "stopped; its disk is kept and billed until its own deadline"
    DESTROYING = "destroying", "owed to the provider: to be destroyed and proved gone"
    CLOSED = "closed", "proved: nothing is billed"


OPEN = frozenset(set(Debt) - {Debt.CLOSED})
#: The provider gave us a machine, so we know its id.
HAS_MACHINE = frozenset({Debt.LIVE, Debt.PARKING, Debt.PRESERVED, Debt.DESTROYING})
#: What keeps a session from being over: a preserved disk outlives it.
UNSETTLED = OPEN - {Debt.PRESERVED}

#: There is no way out of ``destroying`` but a proof.
RENTAL_MOVES: dict[Debt, frozenset[Debt]] = {
    Debt.INTENDED: frozenset({Debt.CREATING, Debt.CLOSED}),
    Debt.CREATING: frozenset({Debt.INTENDED, Debt.UNKNOWN, Debt.LIVE, Debt.DESTROYING, Debt.CLOSED}),
    Debt.UNKNOWN: frozenset({Debt.LIVE, Debt.DESTROYING, Debt.CLOSED}),
    Debt.LIVE: frozenset({Debt.PARKING, Debt.DESTROYING, Debt.CLOSED}),
    Debt.PARKING: frozenset({Debt.PRESERVED, Debt.DESTROYING, Debt.CLOSED}),
    # Back to parking: it was seen running again.
    Debt.PRESERVED: frozenset({Debt.PARKING, Debt.DESTROYING, Debt.CLOSED}),
    Debt.DESTROYING: frozenset({Debt.CLOSED}),
    Debt.CLOSED: frozenset(),
}
