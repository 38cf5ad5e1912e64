"""Books with much money in them: ``python -m benchmarks.money_books WHAT`` in a broker's environment.

``history``: ten thousand sessions of this month with two hundred thousand ledger rows, a tenth of the sessions running.
``changes``: in these, a machine more or less on the meter every half second, until standard input ends.
``running``: ten thousand rentals that have run for an hour which nobody has booked yet: what it takes to book them, and
to ask what a consumer has spent. Prints JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

SESSIONS, RUNNING = 10_000, 1_000
#: GPU and disk in each: the ledger rows of a session that is over.
HOURS = 11
CONSUMERS = 10
GPU_TYPES = ("RTX 4090", "RTX 3090", "A100 80GB", "H100 80GB", "RTX A6000", "L40S")
#: The middle of a month, so that all of its hours are in it.
NOW = datetime(2026, 11, 20, 12, 40, tzinfo=UTC)
TRIES = 20


def main(what: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    sys.stdout.write(json.dumps({"history": history, "changes": changes, "running": running}[what]()))


def account(number: int, consumers: list[int]) -> dict[str, Any]:
    """Whose a rental is, the same for both its segments."""
    return {
        "rental_id": uuid.uuid4(), "session_id": f"sess-{number:016d}", "consumer_id": consumers[number % CONSUMERS],
        "provider": ("vastai", "tensordock")[number % 3 == 0], "gpu_type": GPU_TYPES[number % len(GPU_TYPES)],
    }  # fmt: skip


def write(ranges: list[tuple[datetime, datetime | None]]) -> None:
    """A session with two segments for each span of time; as many rates as a market has."""
    from billing import metering
    from billing.models import MeterSegment
    from billing.services import ensure_consumer

    chance = random.Random(7)
    consumers = [ensure_consumer(f"bench-{number}").pk for number in range(CONSUMERS)]
    segments = []
    for number, (start, end) in enumerate(ranges):
        shared = account(number, consumers)
        for kind, most in (("gpu", 500), ("disk", 40)):
            rate = Decimal(chance.randrange(1, most)) / 100 + Decimal("0.00123457")
            segments.append(MeterSegment(**shared, kind=kind, rate_per_hour=rate, started_at=start, ended_at=end))
    MeterSegment.objects.bulk_create(segments, batch_size=2000)
    metering.changed(consumers)


def history() -> dict[str, Any]:
    """Fill the ledger by the ordinary way: its rows, milliseconds of what a web process does anew after a change of
    the meter, and a key for staff."""
    from django.db import connection

    from billing import cost_groups, costs, ledger, services, spending
    from billing.models import Consumer, LedgerRow
    from billing.periods import month_of
    from gpubroker.common import clock

    chance = random.Random(11)
    now = clock.now()
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    span = max(int((now - month).total_seconds()) - HOURS * 3600, 3600)
    ranges: list[tuple[datetime, datetime | None]] = []
    for _ in range(SESSIONS - RUNNING):
        start = month + timedelta(seconds=chance.randrange(span))
        ranges.append((start, start + timedelta(hours=HOURS - 1, minutes=30)))
    ranges += [(now - timedelta(minutes=chance.randrange(1, 600)), None) for _ in range(RUNNING)]
    write(ranges)
    ledger.accrue()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    period, consumer = month_of(now), Consumer.objects.earliest("id").pk
    return {
        "rows": LedgerRow.objects.count(),
        "key": services.make_key(None, by="benchmark", scopes=["staff"]).secret,
        "summed": median(lambda: costs.of_period(period, now)),
        "spent": median(lambda: spending.spent(consumer, period, now)),
        "by_day": median(lambda: cost_groups.grouped("day", period, now)),
    }


def changes() -> dict[str, Any]:
    """Until standard input ends; how many there were."""
    from billing import services
    from gpubroker.common import clock

    made = 0
    consumer = services.ensure_consumer("bench-0").pk
    while not select.select([sys.stdin], [], [], 0.25)[0]:
        who = services.Account(uuid.uuid4(), f"sess-change-{made}", consumer, "vastai", GPU_TYPES[0])
        services.set_rate(who, "gpu", Decimal(1), clock.now())
        time.sleep(0.25)
        services.settle(who.rental_id, clock.now())
        made += 2
    return {"changes": made}


def running() -> dict[str, Any]:
    """Seconds to book an hour of ``SESSIONS`` running rentals, and milliseconds of the sums."""
    from django.db import connection

    from billing import costs, ledger, spending
    from billing.models import Consumer
    from billing.periods import month_of
    from gpubroker.common import clock

    moment = NOW
    with clock.use(lambda: moment):
        write([(NOW - timedelta(minutes=30, seconds=number % 500), None) for number in range(SESSIONS)])
        ledger.accrue()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        seconds = []
        for _ in range(3):
            moment += timedelta(hours=1)
            began = time.perf_counter()
            ledger.accrue()
            seconds.append(time.perf_counter() - began)
        again = time.perf_counter()
        ledger.accrue()
        idle = time.perf_counter() - again
        consumer = Consumer.objects.earliest("id").pk
        month = month_of(moment)
        return {
            "accrue": min(seconds), "accrue_worst": max(seconds), "accrue_again": idle,
            "spent": median(lambda: spending.spent(consumer, month, moment)),
            "summed": median(lambda: costs.of_period(month, moment)),
        }  # fmt: skip


def median(act: Callable[[], object]) -> float:
    """Milliseconds."""
    spent = []
    for _ in range(TRIES):
        began = time.perf_counter()
        act()
        spent.append((time.perf_counter() - began) * 1000)
    return sorted(spent)[TRIES // 2]


if __name__ == "__main__":
    main(sys.argv[1])
