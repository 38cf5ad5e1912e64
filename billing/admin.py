from django.contrib import admin

from billing.models import Consumer, MeterSegment
from gpubroker.common.admin import ReadOnlyAdmin


@admin.register(Consumer)
class ConsumerAdmin(ReadOnlyAdmin):
    list_display = ("name", "created_at")
    search_fields = ("name",)


@admin.register(MeterSegment)
class MeterSegmentAdmin(ReadOnlyAdmin):
    list_display = ("session_id", "consumer", "provider", "gpu_type", "kind", "rate_per_hour", "started_at", "ended_at")
    list_filter = ("provider", "kind", ("ended_at", admin.EmptyFieldListFilter))
    list_select_related = ("consumer",)
    search_fields = ("session_id", "=rental_id")
    ordering = ("-started_at",)
