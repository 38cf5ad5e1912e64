"""The Celery app: queue and schedule come from Django's settings; tasks are found in each app's tasks module."""

import os

from celery import Celery
from kombu import Queue

from gpubroker.common import lifeline, tracing

lifeline.start()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")

app = Celery("gpubroker")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_queues = [Queue(name) for name in ("tick", "destroy", "create", "default", "ssh")]
app.autodiscover_tasks()
tracing.connect()
