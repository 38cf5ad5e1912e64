"""Small durable state that every part of the broker shares."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Fact(models.Model):
    """One value that is made once and kept, such as the deployment id."""

    name = models.CharField(max_length=64, primary_key=True)
    value = models.TextField()

    def __str__(self) -> str:
        return self.name


class Power(Fact):
    """No rows of its own: here hang the three powers of the console, see :mod:`gpubroker.common.roles`."""

    class Meta:
        proxy = True
        default_permissions = ()
        permissions = (
            ("operate_machines", "Operate machines: end, extend, rekey, sweep"),
            ("manage_money", "Manage money: budgets, statements, charges"),
            ("manage_access", "Manage access: keys, webhooks"),
        )


class ProviderGate(models.Model):
    """When the next call to one endpoint of one provider account is allowed; moved by an atomic update."""

    key = models.CharField(max_length=128, primary_key=True)
    next_allowed_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.key


class ProviderBreaker(models.Model):
    """Whether one provider account answers: see :mod:`gpubroker.common.breaker`, which alone writes it."""

    provider = models.CharField(max_length=32, primary_key=True)
    #: In a row, that speak of its health.
    failures = models.PositiveIntegerField(default=0)
    #: How often it opened since the last answer; the pauses grow with it.
    trips = models.PositiveIntegerField(default=0)
    open_until = models.DateTimeField(null=True, help_text="Calls are held until then; empty: it is closed")
    trying = models.BooleanField(default=False, help_text="One call is out to see whether it answers again")
    last_error = models.CharField(max_length=120, blank=True)
    changed_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.provider


class Counter(models.Model):
    """A metric's running total, kept in the database so that it is right across processes and restarts."""

    name = models.CharField(max_length=100)
    #: Canonical JSON of the label pairs, sorted by name.
    labels = models.CharField(max_length=400, default="{}")
    value = models.DecimalField(max_digits=24, decimal_places=6, default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["name", "labels"], name="counter_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name}{self.labels}"


class Pulse(models.Model):
    """When a moving part last did its work, e.g. the scheduler's tick."""

    name = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class LoginFailure(models.Model):
    """One wrong password at the admin's login. Rows older than the window they count in are deleted."""

    #: Keyed hash of user name and address: people type passwords where the name belongs.
    who = models.CharField(max_length=64)
    address = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["who", "at"], name="login_failure_who"),
            models.Index(fields=["address", "at"], name="login_failure_address"),
            models.Index(fields=["at"], name="login_failure_at"),
        ]

    def __str__(self) -> str:
        return f"{self.address} at {self.at:%Y-%m-%d %H:%M:%S}"


class IdempotencyRecord(models.Model):
    """One ``Idempotency-Key`` and the answer it has; without ``status_code`` its request is still being answered."""

    #: Whose key it is: the principal's actor.
    scope = models.CharField(max_length=160)
    key = models.CharField(max_length=255)
    #: SHA-256 of method, path and body.
    fingerprint = models.CharField(max_length=64)
    #: The id of what an answer can be made from, when its maker died before it kept one.
    subject = models.CharField(max_length=64, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True)
    answer_sealed = models.TextField(blank=True)
    #: What the secret that was made for this request and is shown once is called in the body; empty: there was none.
    secret_name = models.CharField(max_length=32, blank=True)
    #: That secret, for a short while.
    secret_sealed = models.TextField(blank=True)
    secret_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    #: Until then whoever answers may be alive; afterwards somebody else may take over.
    lease_until = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["scope", "key"], name="idempotency_record_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["expires_at"], name="idempotency_record_expired"),
            models.Index(
                fields=["secret_until"],
                name="idempotency_record_secret",
                condition=models.Q(secret_until__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.key}"
