"""Reads of launch templates, printed as the seed's API prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from gpubroker.common import clock
from templates_app.matching import compiled
from templates_app.models import Template
from templates_app.values import number


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _whole(value: Any) -> int:
    return int(number(value) or 0)


def _number(value: Any) -> float | int:
    plain = number(value) or 0
    return int(plain) if plain == int(plain) else plain


def _filters(value: Any) -> str:
    """As text, which is how the vendor answers them."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _moment(value: Any) -> str:
    """Epoch seconds as the API prints times; a time in words is left as it is."""
    seconds = number(value)
    if seconds is None or not 0 <= seconds < 32_503_680_000:
        return _text(value)
    return clock.iso(datetime.fromtimestamp(seconds, UTC)) or ""


#: What the API shows of a vendor's row, each in the type that the API promises, whatever the vendor wrote.
SHOWN: Mapping[str, Callable[[Any], Any]] = {
    "tag": _text, "env": _text, "onstart": _text, "runtype": _text, "use_ssh": bool, "ssh_direct": bool,
    "recommended": bool, "recommended_disk_space": _number, "extra_filters": _filters, "creator_id": _whole,
    "created_at": _moment, "count_created": _whole,
}  # fmt: skip


def shown(template: Template) -> dict[str, Any]:
    """``filter_error`` is there only where the filters cannot be understood, and so fit no machine."""
    row = template.raw
    body = {"id": template.provider_id, "hash_id": template.hash_id, "name": template.name, "image": template.image}
    body |= {key: read(row.get(key)) for key, read in SHOWN.items()}
    error = compiled(row.get("extra_filters")).error
    return {**body, "filter_error": error} if error else body


def matching(name: str | None) -> list[Template]:
    """By name; ``name`` is part of it, in any case of any alphabet (which SQLite's LIKE would not do)."""
    templates = Template.objects.order_by("name", "hash_id")
    if not name:
        return list(templates)
    part = name.casefold()
    return [template for template in templates.iterator(500) if part in template.name.casefold()]


def one(hash_id: str) -> Template | None:
    return Template.objects.filter(hash_id=hash_id).first()


def compatible(provider: str, row: Mapping[str, Any], at: datetime) -> list[dict[str, Any]]:
    """The provider's templates that fit a machine, by the row that was true at that time; one query."""
    columns = ("hash_id", "name", "image", "raw__recommended_disk_space", "raw__extra_filters")
    rows = Template.objects.filter(provider=provider).order_by("name", "hash_id").values_list(*columns)
    return [
        {"hash_id": hash_id, "name": name, "image": image, "recommended_disk_space": _number(disk)}
        for hash_id, name, image, disk, filters in rows
        if compiled(filters).match(row, at)
    ]
