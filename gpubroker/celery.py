"""The Celery app: queue and schedule come from Django's settings; tasks are found in each app's tasks module."""

import os

from celery import Celery, signals
from django.db import close_old_connections
from kombu import Queue

from gpubroker.common import lifeline, tracing
from gpubroker.queueing import PatientAMQP

lifeline.start()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")

app = Celery("gpubroker", amqp=PatientAMQP)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(name) for name in ("tick", "destroy", "create", "default", "ssh")]
app.autodiscover_tasks()
tracing.connect()


@signals.task_prerun.connect
def _look_after_connection(**_: object) -> None:
    """A thread keeps its database connection from task to task (``CELERY_DB_REUSE_MAX``), as long as it works."""
    close_old_connections()
