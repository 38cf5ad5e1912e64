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


class ProviderGate(models.Model):
    """When the next call to one endpoint of one provider account is allowed; moved by an atomic update."""

    key = models.CharField(max_length=128, primary_key=True)
    next_allowed_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.key


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
