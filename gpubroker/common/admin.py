"""What this app shows in the console, and what the pages of the other apps are made of."""

from __future__ import annotations

from django.contrib import admin

from gpubroker.common import people_admin as people_admin
from gpubroker.common.models import IdempotencyRecord, ProviderBreaker, ProviderGate
from gpubroker.common.windows import BoundedPaginator as BoundedPaginator
from gpubroker.common.windows import ReadOnly as ReadOnly
from gpubroker.common.windows import ReadOnlyAdmin as ReadOnlyAdmin
from gpubroker.common.windows import ReadOnlyInline as ReadOnlyInline


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyAdmin):
    list_display = ("scope", "key", "subject", "status_code", "created_at", "expires_at")
    search_fields = ("scope", "key", "subject")
    ordering = ("-id",)
    exclude = ("answer_sealed", "secret_sealed")


@admin.register(ProviderBreaker)
class ProviderBreakerAdmin(ReadOnlyAdmin):
    list_display = ("provider", "open_until", "trying", "failures", "trips", "last_error", "changed_at")


@admin.register(ProviderGate)
class ProviderGateAdmin(ReadOnlyAdmin):
    list_display = ("key", "next_allowed_at")
