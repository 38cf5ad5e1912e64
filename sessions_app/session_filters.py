"""The filters of the console's list of sessions. What they offer is read from small tables or the newest sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from billing.models import Consumer
from gpubroker.common import clock
from gpubroker.common import providers as configured
from sessions_app.models import Door, ProviderWatch, Rental, Session
from sessions_app.states import ENDABLE, LIVE, Debt, Status

#: Of the newest sessions: whose consumers and GPUs are offered to filter by.
NEWEST = 2_000
MOST_CHOICES = 40
#: Destroys without proof, and sessions past their end, for so long are trouble (rules I6, I8).
LATE = timedelta(minutes=5)
SHUT = (Door.SILENT, Door.LOCKED, Door.CHANGED)
_OPEN = Rental.objects.exclude(state=Debt.CLOSED)


class _Exact(admin.SimpleListFilter):
    """One value of one column, offered or typed into the address."""

    column = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        value = self.value()
        return queryset.filter(**{self.column: value}) if value else queryset

    def offered(self) -> list[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name or "")
        names = self.offered()
        return [(name, name) for name in ([*names, chosen] if chosen and chosen not in names else names)]

    def has_output(self) -> bool:
        return True


class ProviderFilter(_Exact):
    title, parameter_name, column = "provider", "provider", "provider"

    def offered(self) -> list[str]:
        watched = ProviderWatch.objects.values_list("provider", flat=True)
        return sorted({*configured.configured(), *watched})


class GpuFilter(_Exact):
    title, parameter_name, column = "GPU", "gpu", "gpu_type"

    def offered(self) -> list[str]:
        newest = Session.objects.order_by("-created_at", "-id")[:NEWEST]
        return sorted(set(newest.values_list("gpu_type", flat=True)))[:MOST_CHOICES]


class ConsumerFilter(_Exact):
    title, parameter_name, column = "consumer", "consumer", "consumer__name"

    def offered(self) -> list[str]:
        newest = Session.objects.order_by("-created_at", "-id")[:NEWEST]
        ids = set(newest.values_list("consumer_id", flat=True))
        return sorted(Consumer.objects.filter(id__in=ids).values_list("name", flat=True))[:MOST_CHOICES]


class EndingSoonFilter(admin.SimpleListFilter):
    title, parameter_name = "end", "ending"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("15", "within 15 minutes"), ("60", "within an hour"), ("240", "within 4 hours")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        value = self.value()
        if value is None or not value.isdigit() or len(value) > 6:
            return queryset
        until = clock.now() + timedelta(minutes=int(value))
        return queryset.filter(Q(expires_at__lte=until) | Q(hard_max_at__lte=until), status__in=ENDABLE)


def troubles(now: datetime) -> dict[str, tuple[str, Q]]:
    """Name -> what it is called, and which sessions are in it. Each asks an index of what is open."""
    late = now - LATE
    return {
        "past_end": ("past the end", Q(status__in=LIVE, expires_at__lte=late)),
        "unproved": ("destroy not proved", _with(_OPEN.filter(state=Debt.DESTROYING, destroy_requested_at__lte=late))),
        "refused": ("end refused", _with(_OPEN.filter(_refused()))),
        "door": ("SSH does not answer", Q(status=Status.RUNNING) & _with(_OPEN.filter(state=Debt.LIVE, door__in=SHUT))),
        "missing": ("not in the listing", _with(_OPEN.filter(missing_listings__gt=0, state=Debt.LIVE))),
        "unknown": ("create's answer lost", _with(_OPEN.filter(state=Debt.UNKNOWN))),
    }


def _refused() -> Q:
    return Q(state=Debt.DESTROYING, destroy_failures__gt=0) | Q(state=Debt.PARKING, stop_attempts__gt=1)


def _with(rentals: QuerySet[Rental]) -> Q:
    return Q(id__in=rentals.filter(session__isnull=False).values("session_id"))


class TroubleFilter(admin.SimpleListFilter):
    title, parameter_name = "trouble", "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("any", "any trouble"), *((name, title) for name, (title, _) in troubles(clock.now()).items())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        value, known = self.value(), troubles(clock.now())
        if value == "any":
            either = Q()
            for _, wanted in known.values():
                either |= wanted
            return queryset.filter(either)
        return queryset.filter(known[value][1]) if value in known else queryset
