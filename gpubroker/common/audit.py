"""Who did what in the console, and when: rows of Django's own log, shown by its page "Audit log"."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.http import HttpRequest

from gpubroker.common import clock


def note(request: HttpRequest, obj: models.Model | None, what: str, name: str = "") -> LogEntry:
    """``what`` is one sentence in the past tense, without a secret; ``obj`` is what it was done to, ``name`` what to
    call it where it has no row or its own name says little. Every action calls this once per object."""
    assert request.user.pk is not None  # the admin's login lets nobody else in
    return LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(obj) if obj is not None else None,
        object_id=str(obj.pk) if obj is not None else "",
        object_repr=(name or str(obj or ""))[:200],
        action_flag=CHANGE,
        change_message=what,
        action_time=clock.now(),
    )
