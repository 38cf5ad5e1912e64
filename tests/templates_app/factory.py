"""Templates for tests, as a sync would have stored them."""

from __future__ import annotations

from typing import Any

from gpubroker.common import clock
from templates_app.models import Template


def template(hash_id: str, filters: Any = None, **changes: Any) -> Template:
    """``filters`` is the vendor's ``extra_filters``: usually a JSON text."""
    raw = {"tag": "latest", "recommended_disk_space": 32, "extra_filters": filters, **changes.pop("raw", {})}
    fields: dict[str, Any] = {
        "provider": "vastai", "provider_id": 338630, "name": "Ollama", "image": "vastai/ollama", "raw": raw,
        "synced_at": clock.now(),
    }  # fmt: skip
    return Template.objects.create(hash_id=hash_id, **{**fields, **changes})
