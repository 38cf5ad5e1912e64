from django.contrib import admin

from gpubroker.common.admin import ReadOnlyAdmin
from templates_app.models import Template


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    list_display = ("name", "hash_id", "image", "provider", "synced_at")
    search_fields = ("name", "hash_id", "image")
