"""Books to read from: ``python -m benchmarks.read_books offers N|sessions`` in the environment of a deployment.

``offers`` lists N of them in place of those that are there; ``sessions`` writes ``SESSIONS`` of ten consumers, a tenth
of them running, each with a machine and what it cost, over the last three weeks. Prints what the benchmark asks for.
"""

from __future__ import annotations

import json
import os
import random
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

SESSIONS = 10_000
GPUS = (
    ("RTX 4090", 24564), ("RTX 3090", 24576), ("RTX A6000", 49140), ("A100 PCIE", 40960), ("H100 SXM", 81559),
    ("RTX 4080", 16376), ("L40S", 46068), ("Tesla V100", 16384), ("RTX 3060", 12288), ("A10", 23028),
)  # fmt: skip
PLACES = ("Sweden, SE", "Texas, US", "Quebec, CA", "Czechia, CZ", "Japan, JP", "California, US", "Poland, PL")


def offers(count: int) -> dict[str, Any]:
    from gpubroker.common import clock
    from offers import services
    from providers.base import OfferData, OfferListing

    dice = random.Random(count)
    rows = []
    for number in range(count):
        name, vram = dice.choice(GPUS)
        rows.append(
            OfferData(
                provider="vastai",
                provider_id=str(10_000_000 + number),
                gpu_name_raw=name,
                vram_mb=vram,
                gpu_count=dice.choice((1, 1, 1, 2, 4, 8)),
                price_per_hour=Decimal(dice.randrange(50, 30_000)) / 10_000,
                storage_price_per_gb_month=Decimal("0.15"),
                location=dice.choice(PLACES),
                reliability=round(dice.uniform(0.8, 1.0), 4),
                cuda_version=dice.choice((11.8, 12.2, 12.4, 12.8)),
                disk_gb=float(dice.randrange(50, 4000)),
                machine_id=str(number // 2),
                cpu_cores=16.0,
                ram_gb=64.0,
                inet_down_mbps=dice.uniform(50, 9000),
                inet_up_mbps=dice.uniform(50, 9000),
                verified=True,
            )
        )
    services.ensure_inventories(["vastai"])
    now = clock.now()
    for _ in range(services.COLLAPSE_PATIENCE + 1):
        # A listing that is much shorter than the last one is believed only when it comes again.
        services.apply_listing("vastai", OfferListing(tuple(rows), now), clock.now())
    return {"offers": count}


def keys() -> dict[str, str]:
    from billing import services as billing

    wanted = (("staff", None, ["staff"]), ("consumer", "bench-1", ["read"]))
    return {name: billing.make_key(whose, by="benchmark", scopes=scopes).secret for name, whose, scopes in wanted}


def sessions() -> dict[str, Any]:
    from billing import ledger, metering
    from billing import services as billing
    from billing.models import MeterSegment
    from gpubroker.common import clock, ids
    from providers.labels import make_label
    from sessions_app.models import Rental, Session
    from sessions_app.states import Debt, Status

    now, dice = clock.now(), random.Random(1)
    consumers = [billing.ensure_consumer(f"bench-{number}") for number in range(10)]
    made, rentals, segments = [], [], []
    for number in range(SESSIONS):
        runs = number % 10 == 0
        began = now - timedelta(minutes=number * 3 + 1)
        ended = None if runs else began + timedelta(hours=dice.randrange(1, 5))
        session = Session(
            id=ids.new_session_id(), consumer=consumers[number % 10], provider="vastai", gpu_type="RTX 4090",
            status=Status.RUNNING if runs else Status.STOPPED, end_reason="" if runs else "expired",
            offer_id=f"vastai-{number}", gpu_count=1, vram_mb=24564, price_per_hour=Decimal("0.5"),
            storage_price_per_gb_month=Decimal("0.1"), workload_type="batch", reservation_hours=4, disk_gb=50,
            docker_image="ubuntu:22.04", ssh_public_key="ssh-ed25519 AAAA", ssh_host="ssh5.vast.ai", ssh_port=10022,
            ssh_user="root", created_at=began, running_at=began, ended_at=ended,
            expires_at=max(now, began) + timedelta(hours=4), hard_max_at=now + timedelta(hours=12),
        )  # fmt: skip
        made.append(session)
        rentals.append(
            Rental(
                session=session,
                provider="vastai",
                state=Debt.LIVE if runs else Debt.CLOSED,
                phase="running",
                label=make_label("benchmark", session.id, 1),
                instance_id=str(number),
                created_at=began,
                closed_at=ended,
                proof=None if runs else {"call": "get", "answer": "gone"},
            )
        )
        for kind, rate in (("gpu", "0.5"), ("disk", "0.01")):
            segments.append(
                MeterSegment(
                    rental_id=rentals[-1].id,
                    session_id=session.id,
                    consumer=session.consumer,
                    provider="vastai",
                    gpu_type="RTX 4090",
                    kind=kind,
                    rate_per_hour=Decimal(rate),
                    started_at=began,
                    ended_at=ended,
                )
            )
    Session.objects.bulk_create(made, batch_size=1000)
    Rental.objects.bulk_create(rentals, batch_size=1000)
    MeterSegment.objects.bulk_create(segments, batch_size=1000)
    # As whoever writes segments does: from then on a process may remember what it summed.
    metering.changed([consumer.pk for consumer in consumers])
    ledger.accrue()
    return {"keys": keys(), "session": made[10].id, "last": made[-1].id}


def main(what: str, *rest: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    sys.stdout.write(json.dumps(offers(int(rest[0])) if what == "offers" else sessions()))


if __name__ == "__main__":
    main(*sys.argv[1:])
