"""Reads of launch templates, printed as the seed's API prints them."""

from __future__ import annotations

from typing import Any

from templates_app.models import Template

#: What the API shows of a vendor's row, where the row has it.
SHOWN = (
    "tag", "env", "onstart", "runtype", "use_ssh", "ssh_direct", "recommended", "recommended_disk_space",
    "extra_filters", "creator_id", "created_at", "count_created",
)  # fmt: skip


def shown(template: Template) -> dict[str, Any]:
    row = template.raw
    body = {"id": template.provider_id, "hash_id": template.hash_id, "name": template.name, "image": template.image}
    return {**body, **{key: row[key] for key in SHOWN if row.get(key) is not None}}


def matching(name: str | None) -> list[Template]:
    """By name; ``name`` is part of it, in any case."""
    templates = Template.objects.order_by("name", "hash_id")
    return list(templates.filter(name__icontains=name) if name else templates)


def one(hash_id: str) -> Template | None:
    return Template.objects.filter(hash_id=hash_id).first()
