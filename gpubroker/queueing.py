"""How processes hold on to the queue: those that read it try again every second, for ever.

Celery's own way pauses longer and longer, up to half a minute, so that the first tick after a short outage could be as
late as that; and it gives up after a hundred tries.
"""

from __future__ import annotations

from typing import Any, Self

from celery.app.amqp import AMQP
from kombu import Connection

AGAIN_SECONDS = 1.0


class PatientConnection(Connection):
    def ensure_connection(self, *args: Any, **options: Any) -> Self:
        """What worker and scheduler wait in. Whoever only sends something does not come here: see ``max_retries`` in
        ``CELERY_BROKER_TRANSPORT_OPTIONS``."""
        every = {"interval_start": AGAIN_SECONDS, "interval_step": 0, "interval_max": AGAIN_SECONDS}
        return super().ensure_connection(*args, **{**options, **every})


class PatientAMQP(AMQP):
    Connection = PatientConnection
