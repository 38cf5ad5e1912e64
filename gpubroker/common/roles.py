"""Who may do what in the console: four Django groups by name, and three powers beyond looking.

Everybody in a role sees every page but users and groups (no page shows a secret); what changes something asks for a
power. A superuser has them all.
"""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps as running
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from gpubroker.common.principal import Principal

VIEWER, OPERATOR, FINANCE, ADMIN = "viewer", "operator", "finance", "admin"
#: End, extend, rekey, sweep: whatever moves a machine or a session.
OPERATE: Final = "common.operate_machines"
#: Budgets, statements, charges.
MONEY: Final = "common.manage_money"
#: Keys, webhooks.
ACCESS: Final = "common.manage_access"
ROLES: dict[str, frozenset[str]] = {
    VIEWER: frozenset(),
    OPERATOR: frozenset({OPERATE}),
    FINANCE: frozenset({MONEY}),
    ADMIN: frozenset({OPERATE, MONEY, ACCESS}),
}
#: Every ``view_`` permission of these belongs to every role.
SHOWN = ("admin", "billing", "common", "offers", "sessions_app", "templates_app")
#: Only admins see, make and change people. Nobody deletes them: their lines in the audit log would go with them.
PEOPLE = frozenset({"auth.add_user", "auth.change_user", "auth.view_user", "auth.view_group"})


def may(request: HttpRequest, power: str) -> bool:
    return request.user.is_active and request.user.has_perm(power)


def require(request: HttpRequest, power: str) -> None:
    """For pages of their own: 403 unless this person has the power."""
    if not may(request, power):
        raise PermissionDenied


def actor(request: HttpRequest) -> str:
    """As events and books name this person: at most 160 characters."""
    return f"staff:{request.user.get_username()}"[:160]


def principal(request: HttpRequest) -> Principal:
    """For services that ask on whose behalf they act; its ``actor`` is :func:`actor`'s."""
    return Principal(consumer=None, key_prefix=request.user.get_username()[:154])


def keep(using: str = "default", **said: Any) -> None:
    """After each migration: the four groups are there and have these permissions, no more and no fewer.

    Whoever wants another mixture makes a group of another name. ``said`` is what ``post_migrate`` tells.
    """
    # A flush, which says the same word, names none: those that run.
    apps = said.get("apps", running)
    try:
        group_model, permission_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    except LookupError:
        return  # only a part of the apps was migrated, and auth was not among it
    ids = {
        f"{app}.{codename}": pk
        for pk, app, codename in permission_model.objects.using(using)
        .filter(content_type__app_label__in=(*SHOWN, "auth"))
        .values_list("pk", "content_type__app_label", "codename")
    }
    looks = {name for name in ids if _is_a_look(name)}
    through = group_model.permissions.through
    group_model.objects.using(using).bulk_create([group_model(name=name) for name in ROLES], ignore_conflicts=True)
    groups = dict(group_model.objects.using(using).filter(name__in=ROLES).values_list("name", "pk"))
    wanted = {
        (groups[role], ids[name])
        for role, powers in ROLES.items()
        for name in looks | powers | (PEOPLE if role == ADMIN else frozenset())
        if name in ids
    }
    rows = through.objects.using(using).filter(group_id__in=groups.values())
    had = {(group, permission): pk for pk, group, permission in rows.values_list("pk", "group_id", "permission_id")}
    through.objects.using(using).bulk_create(
        [through(group_id=group, permission_id=permission) for group, permission in sorted(wanted - had.keys())],
        ignore_conflicts=True,
    )
    extra = [pk for pair, pk in had.items() if pair not in wanted]
    if extra:
        through.objects.using(using).filter(pk__in=extra).delete()


def _is_a_look(name: str) -> bool:
    app, _, codename = name.partition(".")
    return app in SHOWN and codename.startswith("view_")
