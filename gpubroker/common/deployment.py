"""The deployment id: stands in every label, so it is made once and kept with the books that it belongs to."""

from __future__ import annotations

import functools

from django.conf import settings

from gpubroker.common.ids import new_deployment_id
from gpubroker.common.models import Fact


@functools.cache
def deployment_id() -> str:
    """``DEPLOYMENT_ID`` when given, else the one made at first use and kept in the database."""
    if settings.DEPLOYMENT_ID:
        return str(settings.DEPLOYMENT_ID)
    fact, _ = Fact.objects.get_or_create(name="deployment_id", defaults={"value": new_deployment_id()})
    return fact.value
