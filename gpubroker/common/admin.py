"""Admin pages are windows: rows are read there and changed only by actions that call services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from gpubroker.common.models import IdempotencyRecord, ProviderBreaker, ProviderGate

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
    InlineBase = admin.TabularInline[Any, Any]
else:
    Base = ModelAdmin
    InlineBase = TabularInline


class ReadOnly:
    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(ReadOnly, Base):
    list_per_page = 50
    show_full_result_count = False
    actions: tuple[str, ...] | None = None


class ReadOnlyInline(ReadOnly, InlineBase):
    extra = 0
    show_change_link = True


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
