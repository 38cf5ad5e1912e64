"""Request ids from the edge to the tasks: what stands in a log line where a task is sent also stands in its own lines.

Messages carry the ids in a header; a task that nothing in particular started (the scheduler's tick) carries none.
"""

from __future__ import annotations

import contextlib
from typing import Any

from celery import Task, signals

from gpubroker.common import logs

HEADER = "gpubroker_log_ids"
#: The open contexts of running tasks by task id; each is closed by the thread that opened it.
_open: dict[str, contextlib.AbstractContextManager[None]] = {}


def put_ids(headers: dict[str, Any] | None = None, **_: object) -> None:
    """``before_task_publish``: write the current ids into the message."""
    ids = logs.bound()
    if headers is not None and ids:
        headers.setdefault(HEADER, ids)


def bind_ids(task_id: str, task: Task[Any, Any], **_: object) -> None:
    """``task_prerun``: the message's ids stand in every line of this task."""
    carried = getattr(task.request, HEADER, None)
    if isinstance(carried, dict):
        context = logs.context(**{str(name): str(value) for name, value in carried.items()})
        context.__enter__()
        _open[task_id] = context


def unbind_ids(task_id: str, **_: object) -> None:
    """``task_postrun``: the thread's next task starts with none."""
    context = _open.pop(task_id, None)
    if context is not None:
        context.__exit__(None, None, None)


def connect() -> None:
    signals.before_task_publish.connect(put_ids)
    signals.task_prerun.connect(bind_ids)
    signals.task_postrun.connect(unbind_ids)
