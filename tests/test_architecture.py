"""Rules about the code itself that import-linter cannot see."""

from __future__ import annotations

from django.apps import apps

#: A model may point only at models of its own app or of apps further down.
MAY_POINT_AT = {
    "sessions_app": {"sessions_app", "offers", "billing", "templates_app", "common"},
    "offers": {"offers", "common"},
    "billing": {"billing", "common"},
    "templates_app": {"templates_app", "common"},
    "common": {"common"},
}


def test_no_foreign_key_points_up() -> None:
    seen = set()
    for label, allowed in MAY_POINT_AT.items():
        for model in apps.get_app_config(label).get_models():
            for field in model._meta.get_fields():
                related = field.related_model
                if field.concrete and isinstance(related, type):
                    seen.add((label, related._meta.app_label))
                    assert related._meta.app_label in allowed, f"{model.__name__}.{field.name}"
    assert ("sessions_app", "billing") in seen


def test_every_app_of_ours_is_in_the_table() -> None:
    ours = {
        config.label
        for config in apps.get_app_configs()
        if not config.name.startswith(("django", "rest", "drf", "unfold"))
    }
    assert ours == set(MAY_POINT_AT)
