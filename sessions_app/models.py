"""Sessions (what a consumer asked for), rentals (what a provider may bill us for), events (what happened)."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models

from billing.models import Consumer
from gpubroker.common import ids
from sessions_app.states import HAS_MACHINE, LIVE, OPEN, Debt, EndReason, Status
from sessions_app.usage_models import UsageHour as UsageHour
from sessions_app.watch_models import ProviderWatch as ProviderWatch
from sessions_app.watch_models import SeenOrphan as SeenOrphan
from sessions_app.watch_models import UnknownMachine as UnknownMachine


class RetryScope(models.TextChoices):
    """How alike the next offer must be after a failed attempt."""

    SAME_GPU = "same_gpu", "the same GPU type and count"
    SAME_VRAM = "same_vram", "at least the same memory per GPU, and as many GPUs"
    ANY = "any", "any GPU"


class Pricing(models.TextChoices):
    """How the GPU is paid for."""

    ON_DEMAND = "on_demand", "at the offer's price"
    INTERRUPTIBLE = "interruptible", "at our bid; whoever bids more has the machine stopped"


class Door(models.TextChoices):
    """What our last look at a running machine found at its SSH door."""

    OPEN = "open", "our key opens it"
    DOUBTED = "doubted", "it did not answer once"
    SILENT = "silent", "it does not answer"
    LOCKED = "locked", "our key is refused"
    CHANGED = "changed", "another host key answers"


class Session(models.Model):
    """Hours of a GPU. ``status`` is written by :func:`sessions_app.transitions.transition` and nothing else."""

    id = models.CharField(max_length=32, primary_key=True, default=ids.new_session_id, editable=False)
    consumer = models.ForeignKey(Consumer, on_delete=models.PROTECT, related_name="sessions")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    end_reason = models.CharField(max_length=32, choices=EndReason.choices, blank=True)
    end_message = models.CharField(max_length=300, blank=True)

    offer_id = models.CharField(max_length=128)
    provider = models.CharField(max_length=32)
    gpu_type = models.CharField(max_length=64)
    gpu_count = models.PositiveSmallIntegerField()
    vram_mb = models.PositiveIntegerField()
    #: Of the offer when it was asked for, or the bid; dollars per hour without disk.
    price_per_hour = models.DecimalField(max_digits=12, decimal_places=6)
    storage_price_per_gb_month = models.DecimalField(max_digits=12, decimal_places=6)
    pricing = models.CharField(max_length=16, choices=Pricing.choices, default=Pricing.ON_DEMAND)
    #: Dollars per hour, as the provider last took it; null unless ``pricing`` is interruptible.
    bid_price = models.DecimalField(max_digits=12, decimal_places=6, null=True)

    workload_type = models.CharField(max_length=32)
    reservation_hours = models.PositiveSmallIntegerField()
    idle_threshold_minutes = models.PositiveIntegerField(default=0)
    storage_policy = models.CharField(max_length=16, default="destroy")
    launch_mode = models.CharField(max_length=16, default="ssh")
    docker_image = models.CharField(max_length=512, blank=True)
    template_hash_id = models.CharField(max_length=64, blank=True)
    disk_gb = models.PositiveIntegerField()
    #: ``exposed_ports``, ``on_start_cmd``, ``model_id``, ``quantization``: as asked, where given.
    launch_options = models.JSONField(default=dict)
    #: The consumer's public key; the private half is never stored.
    ssh_public_key = models.TextField()
    #: SHA-256 of the token in the machine's environment; empty once the session is over.
    agent_token_hash = models.CharField(max_length=64, blank=True)
    #: The token itself, sealed, for as long as a launch may still have to send it.
    agent_token_sealed = models.TextField(blank=True)

    ssh_host = models.CharField(max_length=255, blank=True)
    ssh_port = models.PositiveIntegerField(null=True)
    ssh_user = models.CharField(max_length=64, blank=True)
    #: Where the first exposed port answers from outside; empty until the provider's port map shows it.
    api_endpoint = models.CharField(max_length=300, blank=True)

    #: Another offer when an attempt fails: how often, how alike, and for how much at most (dollars per hour).
    auto_retry = models.BooleanField(default=False)
    max_retries = models.PositiveSmallIntegerField(default=0)
    retry_scope = models.CharField(max_length=16, choices=RetryScope.choices, default=RetryScope.SAME_GPU)
    max_price = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    #: Hours for which a preserved disk is kept; null unless ``storage_policy`` is preserve.
    preserve_hours = models.PositiveSmallIntegerField(null=True)

    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    hard_max_at = models.DateTimeField()
    hard_max_reason = models.CharField(max_length=300, blank=True, help_text="Why staff moved the hard maximum")
    #: When ``expires_at`` was moved forward because the budget does not hold it longer; an extension clears it.
    budget_cut_at = models.DateTimeField(null=True)
    #: The last warning of the present end that was given: 15 or 5 (minutes); an extension clears it.
    warned_minutes = models.PositiveSmallIntegerField(null=True)
    #: Since when every sample has shown it idle; null: not idle, or not known to be.
    idle_since = models.DateTimeField(null=True)
    idle_warned_at = models.DateTimeField(null=True)
    #: When a running machine is to be looked at over SSH next (samples, keys); null where that is never needed.
    next_probe_at = models.DateTimeField(null=True)
    #: Interruptible: since when its machine stands still (outbid), until it is proved to answer again.
    paused_at = models.DateTimeField(null=True)
    running_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    #: When the driver must look at this session next; null when nothing can become due.
    next_check_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["consumer", "offer_id"],
                condition=models.Q(status__in=sorted(LIVE)),
                name="session_one_active_per_consumer_and_offer",
            ),
            models.CheckConstraint(condition=models.Q(status__in=sorted(Status.values)), name="session_status_known"),
            models.CheckConstraint(
                condition=models.Q(expires_at__lte=models.F("hard_max_at")), name="session_within_hard_max"
            ),
            models.CheckConstraint(
                condition=models.Q(pricing=Pricing.INTERRUPTIBLE, bid_price__isnull=False)
                | models.Q(pricing=Pricing.ON_DEMAND, bid_price__isnull=True, paused_at__isnull=True),
                name="session_bids_where_interruptible",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["next_check_at"], name="session_due", condition=models.Q(next_check_at__isnull=False)),
            models.Index(fields=["-created_at", "-id"], name="session_newest"),
            models.Index(fields=["consumer", "-created_at"], name="session_by_consumer"),
            models.Index(fields=["status", "provider"], name="session_by_status"),
            models.Index(
                fields=["next_probe_at"], name="session_probe_due", condition=models.Q(next_probe_at__isnull=False)
            ),
            models.Index(fields=["status", "expires_at"], name="session_by_end"),
        ]

    def __str__(self) -> str:
        return self.id


class Rental(models.Model):
    """One machine that a provider may be billing us for: a debt, open until proved gone.

    A session has one after another; an orphan (a machine with our label that no open rental knew) has none.
    ``state`` is written by :func:`sessions_app.transitions.move_rental` and nothing else.
    """

    class Origin(models.TextChoices):
        SESSION = "session"
        ORPHAN = "orphan"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(Session, on_delete=models.PROTECT, null=True, related_name="rentals")
    origin = models.CharField(max_length=8, choices=Origin.choices, default=Origin.SESSION)
    provider = models.CharField(max_length=32)
    state = models.CharField(max_length=12, choices=Debt.choices, default=Debt.INTENDED)
    #: Stands on the machine at the provider and is committed here before the provider hears of it (I1).
    label = models.CharField(max_length=64)
    attempt = models.PositiveSmallIntegerField(default=1)
    offer_provider_id = models.CharField(max_length=96, blank=True)
    machine_id = models.CharField(max_length=64, blank=True)
    gpu_type = models.CharField(max_length=64, blank=True)
    #: Dollars per hour without disk: of the offer when it was asked for, and as the provider last said.
    price_asked = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    price_actual = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    #: Since when it is billed above its offer by more than the tolerance, and the rate that staff has accepted.
    drifted_at = models.DateTimeField(null=True)
    drift_accepted = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    #: Why this attempt came to nothing, where it did: an :class:`EndReason`, a sentence, and when.
    failure = models.CharField(max_length=32, blank=True)
    failure_message = models.CharField(max_length=300, blank=True)
    failed_at = models.DateTimeField(null=True)
    #: The provider's id of the machine; empty until it told us.
    instance_id = models.CharField(max_length=96, blank=True)

    created_at = models.DateTimeField()
    create_sent_at = models.DateTimeField(null=True)
    accepted_at = models.DateTimeField(null=True)
    unknown_since = models.DateTimeField(null=True, help_text="When the create's answer was given up for lost")
    #: Complete listings that did not have the label while the create's answer was unknown (I2).
    lookups = models.PositiveIntegerField(default=0)

    #: As last seen at the provider.
    phase = models.CharField(max_length=16, blank=True)
    status_message = models.CharField(max_length=300, blank=True)
    ssh_endpoints = models.JSONField(default=list)
    #: Port inside (as text) -> [host, port outside].
    ports = models.JSONField(default=dict)
    last_seen_at = models.DateTimeField(null=True)
    gpu_from = models.DateTimeField(null=True, help_text="When the GPU's bill began")
    #: The rates that the meter runs at; null: not running.
    gpu_rate = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    disk_rate = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    #: Complete listings in a row without this machine (I5).
    missing_listings = models.PositiveIntegerField(default=0)

    #: The broker's own key to the machine, sealed; erased when the rental closes.
    broker_key_sealed = models.TextField(blank=True)
    broker_public_key = models.TextField(blank=True)
    keys_attached_at = models.DateTimeField(null=True)
    host_key = models.CharField(max_length=1024, blank=True, help_text="First seen, then pinned")
    verify_from = models.DateTimeField(null=True, help_text="When the machine first showed an SSH address")
    verify_failures = models.PositiveIntegerField(default=0)

    #: When a reboot was asked for; until ``SSH_VERIFY_SECONDS`` after it the machine may stand still.
    rebooted_at = models.DateTimeField(null=True)
    key_checked_at = models.DateTimeField(null=True, help_text="When our key last opened the door")
    key_repairs = models.PositiveIntegerField(default=0)
    door = models.CharField(max_length=8, choices=Door.choices, default=Door.OPEN)

    #: A bid that is to be made at the provider, and who asked for it; null: none is on its way.
    bid_wanted = models.DecimalField(max_digits=12, decimal_places=6, null=True)
    bid_wanted_by = models.CharField(max_length=160, blank=True)
    #: When a paused machine was first seen running again, as long as it has not answered.
    back_at = models.DateTimeField(null=True)
    paused_seconds = models.PositiveIntegerField(default=0, help_text="In pauses that are over")

    #: ``storage_policy: preserve``: the stop, its proof, and the disk's own deadline.
    stop_requested_at = models.DateTimeField(null=True)
    stop_answered_at = models.DateTimeField(null=True)
    stop_attempts = models.PositiveIntegerField(default=0)
    preserved_at = models.DateTimeField(null=True)
    preserve_until = models.DateTimeField(null=True)

    destroy_requested_at = models.DateTimeField(null=True)
    destroy_answered_at = models.DateTimeField(null=True, help_text="When the provider first said yes")
    destroy_taken = models.BooleanField(default=False, help_text="It knew the machine when it said yes")
    destroy_attempts = models.PositiveIntegerField(default=0)
    destroy_failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=300, blank=True)
    #: When staff last said that they know of a destroy without proof.
    unproved_known_at = models.DateTimeField(null=True)

    closed_at = models.DateTimeField(null=True)
    #: The evidence that closed it: the call, the answer, the time (I6).
    proof = models.JSONField(null=True)
    next_check_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["session"], condition=models.Q(state__in=sorted(OPEN)), name="rental_one_open_per_session"
            ),
            models.UniqueConstraint(fields=["label"], condition=models.Q(origin="session"), name="rental_label_unique"),
            models.UniqueConstraint(
                fields=["provider", "instance_id"],
                condition=models.Q(state__in=sorted(OPEN)) & ~models.Q(instance_id=""),
                name="rental_one_open_per_machine",
            ),
            models.CheckConstraint(
                condition=(models.Q(state=Debt.CLOSED) & models.Q(proof__isnull=False, closed_at__isnull=False))
                | (~models.Q(state=Debt.CLOSED) & models.Q(closed_at__isnull=True)),
                name="rental_closed_only_with_proof",
            ),
            models.CheckConstraint(
                condition=~models.Q(state__in=sorted(HAS_MACHINE)) | ~models.Q(instance_id=""),
                name="rental_live_has_instance",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["next_check_at"], name="rental_due", condition=models.Q(next_check_at__isnull=False)),
            # With all that a scrape of the metrics asks of the open ones.
            models.Index(
                fields=["provider", "state", "gpu_rate", "disk_rate", "missing_listings"],
                name="rental_open_costs",
                condition=~models.Q(state=Debt.CLOSED),
            ),
            models.Index(fields=["label"], name="rental_by_label"),
            models.Index(
                fields=["drifted_at"],
                name="rental_drifted",
                condition=~models.Q(state=Debt.CLOSED) & models.Q(drifted_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.label


class Event(models.Model):
    """What happened to a session or rental: written in the transaction of the change, never altered."""

    session = models.ForeignKey(Session, on_delete=models.PROTECT, null=True, related_name="events")
    rental = models.ForeignKey(Rental, on_delete=models.PROTECT, null=True, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=48)
    from_state = models.CharField(max_length=16, blank=True)
    to_state = models.CharField(max_length=16, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    #: ``consumer:<name>``, ``staff:<user>`` or ``broker``
    actor = models.CharField(max_length=160, default="broker")
    details = models.JSONField(default=dict)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["session", "id"], name="event_of_session")]

    def __str__(self) -> str:
        return f"{self.kind} {self.from_state}>{self.to_state}"


class ActivitySample(models.Model):
    """What was seen of a machine's use; the newest few per session are kept. Unknown counts as active."""

    class Source(models.TextChoices):
        HEARTBEAT = "heartbeat", "the agent on the machine"
        PROBE = "probe", "our own look over SSH"

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()
    source = models.CharField(max_length=16, choices=Source.choices, default=Source.HEARTBEAT)
    gpu_utilization = models.FloatField(null=True, help_text="Percent, the busiest GPU; null: unknown")
    memory_used_mb = models.PositiveBigIntegerField(null=True)
    ssh_connections = models.PositiveIntegerField(null=True, help_text="Logins other than ours; null: unknown")
    #: Why something is unknown.
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["session", "id"], name="sample_of_session")]

    def __str__(self) -> str:
        return f"{self.session_id} {self.source} {self.at:%H:%M:%S}"
