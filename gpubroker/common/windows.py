"""Admin pages are windows: rows are read there and changed only by actions that call services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin, TabularInline

from gpubroker.common import roles

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
    InlineBase = admin.TabularInline[Any, Any]
    Pages = Paginator[Any]
else:
    Base = ModelAdmin
    InlineBase = TabularInline
    Pages = Paginator


class BoundedPaginator(Pages):
    """Counts no further than anybody pages: what lies beyond is found by searching and filtering."""

    MOST = 5_000
    template_name = "console/pagination.html"

    @cached_property
    def count(self) -> int:
        """At most ``MOST``; :attr:`more` says whether there is more."""
        return min(self._counted, self.MOST)

    @property
    def more(self) -> bool:
        return self._counted > self.MOST

    @cached_property
    def _counted(self) -> int:
        rows = self.object_list
        if isinstance(rows, models.QuerySet):
            # Without its order: the database stops at the limit and sorts nothing.
            return int(rows.order_by()[: self.MOST + 1].count())
        return len(rows)


class ReadOnly:
    """Nothing is edited here. What an action needs beyond looking is declared in Django's own way:
    ``permissions=["operate"]``, ``["money"]`` or ``["access"]``."""

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.may(request, roles.OPERATE)

    def has_money_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.may(request, roles.MONEY)

    def has_access_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return roles.may(request, roles.ACCESS)

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(ReadOnly, Base):
    list_per_page = 50
    #: Rather than a count of the whole table beside the one of what was searched for.
    show_full_result_count = False
    #: Counts beside each filter would count the table again for each of them.
    show_facets = admin.ShowFacets.NEVER
    paginator = BoundedPaginator
    actions: tuple[str, ...] | None = None


class ReadOnlyInline(ReadOnly, InlineBase):
    extra = 0
    show_change_link = True
