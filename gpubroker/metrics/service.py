"""Gauges of the broker's own parts: the queue, and webhooks that wait."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from billing import webhook_selectors
from gpubroker.common.ratelimit import SHARED_SCHEMES
from gpubroker.metrics.samples import Sample
from gpubroker.roles import QUEUES

log = logging.getLogger(__name__)

#: A scrape must not wait long for a queue that does not answer.
SOCKET_SECONDS = 0.25


def webhooks() -> Iterator[Sample]:
    for state, count in sorted(webhook_selectors.backlog().items()):
        yield Sample("gpu_webhook_backlog", (state,), count)


def queue() -> Iterator[Sample]:
    """Nothing where there is no Redis, as in a test."""
    if not settings.REDIS_URL.startswith(SHARED_SCHEMES):
        return
    names = QUEUES.split(",")
    try:
        pipeline = _redis(settings.REDIS_URL).pipeline(transaction=False)
        for name in names:
            pipeline.llen(name)
        depths = pipeline.execute()
    except RedisError as error:
        log.warning("the queue does not answer: %s", type(error).__name__)
        yield Sample("gpu_queue_up", (), 0)
        return
    yield Sample("gpu_queue_up", (), 1)
    for name, depth in zip(names, depths, strict=True):
        yield Sample("gpu_queue_depth", (name,), depth)


@functools.cache
def _redis(url: str) -> Redis:
    return Redis.from_url(
        url, socket_connect_timeout=SOCKET_SECONDS, socket_timeout=SOCKET_SECONDS, retry=Retry(NoBackoff(), 0)
    )
