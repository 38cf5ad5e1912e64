"""Who did what, and who may: the audit log, users, and their roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from gpubroker.common import roles
from gpubroker.common.windows import ReadOnlyAdmin

if TYPE_CHECKING:
    People = UserAdmin[User]
    Themed = object
else:
    People, Themed = UserAdmin, ModelAdmin

#: Of all users: those that the log can be filtered by.
MOST_USERS = 40


class WhoFilter(admin.SimpleListFilter):
    title, parameter_name = "who", "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        staff = User.objects.filter(is_staff=True).order_by("username")
        return [(str(pk), name) for pk, name in staff.values_list("pk", "username")[:MOST_USERS]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LogEntry]) -> QuerySet[LogEntry]:
        value = self.value()
        return queryset.filter(user_id=value) if value and value.isdecimal() and len(value) < 10 else queryset


@admin.register(LogEntry)
class AuditLog(ReadOnlyAdmin):
    """Every action of the console (:mod:`gpubroker.common.audit`) and every change of a user or role."""

    list_display = ("action_time", "user", "kind", "object_repr", "what")
    list_filter = (WhoFilter, "action_flag")
    list_select_related = ("user", "content_type")
    list_fullwidth = True
    search_fields = ("object_id",)
    search_help_text = "User, the object's id or the beginning of its name, or a word of what was done"
    #: Its time has no index, and its id grows with it.
    ordering = ("-id",)
    fields = readonly_fields = ("action_time", "user", "kind", "object_id", "object_repr", "what")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LogEntry], search_term: str
    ) -> tuple[QuerySet[LogEntry], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        who = User.objects.filter(username=term).values("pk")
        about = Q(object_id=term) | Q(object_repr__startswith=term) | Q(change_message__icontains=term)
        return queryset.filter(Q(user__in=who) | about), False

    @admin.display(description="of", ordering="content_type")
    def kind(self, entry: LogEntry) -> str:
        return entry.content_type.name if entry.content_type is not None else "-"

    @admin.display(description="what was done")
    def what(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(People, Themed):
    """People are made inactive, not deleted: the audit log would lose what they did."""

    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm
    list_display = ("username", "email", "roles", "is_staff", "is_active", "is_superuser", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", "groups")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        found: QuerySet[User] = super().get_queryset(request)
        return found.prefetch_related("groups")

    @admin.display(description="roles")
    def roles(self, person: User) -> str:
        return ", ".join(group.name for group in person.groups.all()) or "-"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Who is no superuser changes none, nor a superuser's password."""
        may = super().has_change_permission(request, obj)
        return bool(may and (request.user.is_superuser or obj is None or not obj.is_superuser))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Only a superuser makes superusers, or gives permissions beside the roles."""
        usual = ("last_login", "date_joined")
        return usual if request.user.is_superuser else (*usual, "is_superuser", "user_permissions")


@admin.register(Group)
class RoleAdmin(GroupAdmin, Themed):
    """The four roles are what :mod:`gpubroker.common.roles` says; other groups are a superuser's to make."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser and (obj is None or obj.name not in roles.ROLES))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj) and obj is not None
