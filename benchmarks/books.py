"""Books with many sessions in them, written at once: ``python -m benchmarks.books boots|runs|ticks|sweeps`` in the
environment of a stack. ``boots`` and ``runs`` read the machines from standard input, as JSON: what the marketplace has
of ours."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

TICKS, SWEEPS = 21, 4
TICKED = 10_000
#: Sessions of those that have something due when a tick comes.
DUE = 50


def main(what: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gpubroker.settings")
    import django

    django.setup()
    if what in ("ticks", "sweeps"):
        sys.stdout.write(json.dumps(ticks() if what == "ticks" else sweeps()))
        return
    machines = json.load(sys.stdin)
    write_down(machines["contracts"], machines["public_key"], machines["private_key"], running=what == "runs")


def write_down(contracts: Sequence[dict[str, Any]], public_key: str, private_key: str, *, running: bool) -> None:
    """A session and a rental for every machine: accepted and still booting, or running for a while."""
    from billing import services as billing
    from gpubroker.common import clock, crypto
    from providers.labels import parse_label
    from sessions_app.models import Rental, Session
    from sessions_app.states import Debt, Status

    now = clock.now()
    consumers = [billing.ensure_consumer(f"bench-{number}") for number in range(10)]
    sealed = crypto.seal(private_key)
    sessions, rentals = [], []
    for number, contract in enumerate(contracts):
        label = parse_label(contract["label"])
        assert label is not None
        session = Session(
            id=label.session_id,
            consumer=consumers[number % len(consumers)],
            status=Status.RUNNING if running else Status.PROVISIONING,
            offer_id=f"vastai-{contract['id']}",
            provider="vastai",
            gpu_type=contract.get("gpu_name") or "RTX 4090",
            gpu_count=1,
            vram_mb=1,
            price_per_hour=Decimal("0.5"),
            storage_price_per_gb_month=Decimal("0.1"),
            workload_type="benchmark",
            reservation_hours=1,
            docker_image="ubuntu:22.04",
            disk_gb=10,
            ssh_public_key=public_key,
            created_at=now,
            expires_at=now + timedelta(hours=1),
            hard_max_at=now + timedelta(hours=12),
            running_at=now if running else None,
            **_address(contract) if running else {},
            next_probe_at=now + timedelta(minutes=30) if running else None,
            next_check_at=now + timedelta(hours=1) if running else now,
        )
        sessions.append(session)
        rentals.append(
            Rental(
                session=session,
                provider="vastai",
                state=Debt.LIVE,
                label=contract["label"],
                offer_provider_id=str(contract["id"]),
                instance_id=str(contract["id"]),
                created_at=now - timedelta(minutes=5) if running else now,
                create_sent_at=now,
                accepted_at=now - timedelta(minutes=5) if running else now,
                phase="running" if running else "booting",
                broker_key_sealed=sealed,
                broker_public_key=public_key,
                keys_attached_at=now,
            )
        )
    Session.objects.bulk_create(sessions, batch_size=500)
    Rental.objects.bulk_create(rentals, batch_size=500)


def _address(contract: dict[str, Any]) -> dict[str, Any]:
    """Where the listing will tell it to be; otherwise it would have moved."""
    if "ssh_host" not in contract:
        return {}
    return {"ssh_host": contract["ssh_host"], "ssh_port": contract["ssh_port"], "ssh_user": "root"}


class Account:
    """A provider that lists so many machines of ours, all well, in no time: what remains is the broker's work."""

    def __init__(self, labels: Sequence[str], capabilities: Any) -> None:
        self.labels, self.capabilities = labels, capabilities

    def list_instances(self) -> Any:
        from gpubroker.common import clock
        from providers.base import Instance, InstanceListing, Phase, SSHEndpoint

        now = clock.now()
        machines = [
            Instance(
                instance_id=str(number), label=label, phase=Phase.RUNNING, status="running", status_message="",
                ssh_endpoints=(SSHEndpoint("203.0.113.7", 10_000 + number, "root"),), gpu_name="RTX 4090", gpu_count=1,
                vram_mb=24564, gpu_price_per_hour=Decimal("0.5"), storage_price_per_hour=Decimal("0.01"),
                created_at=now - timedelta(hours=1), machine_id=str(number),
            )
            for number, label in enumerate(self.labels)
        ]  # fmt: skip
        return InstanceListing(tuple(machines), now)


def sweeps() -> list[tuple[float, float]]:
    """Seconds, and CPU seconds, of each sweep of ``TICKED`` running machines, the listing itself apart; the first one
    meets every address and every rate for the first time."""
    from gpubroker.common import ids
    from gpubroker.common import providers as configured
    from gpubroker.common.deployment import deployment_id
    from providers.labels import make_label
    from sessions_app import sweep

    labels = [make_label(deployment_id(), ids.new_session_id(), 1) for _ in range(TICKED)]
    write_down([{"id": number, "label": label} for number, label in enumerate(labels)], "key", "key", running=True)
    known = configured.configured()
    known["vastai"] = Account(labels, known["vastai"].capabilities)  # type: ignore[assignment] # all that a sweep asks it for
    sweep.claim_due()
    spent = []
    for _ in range(SWEEPS):
        began, before = time.perf_counter(), time.process_time()
        seen = sweep.sweep("vastai")
        spent.append((time.perf_counter() - began, time.process_time() - before))
        assert seen is not None
        assert (seen.ours, seen.held, seen.lost, seen.suspects) == (TICKED, False, [], [])
    return spent


def ticks() -> list[tuple[float, float]]:
    """Seconds, and CPU seconds, of each tick over ``TICKED`` running sessions, ``DUE`` of which are due each time; the
    first is not counted, as it opens connections and imports."""
    from gpubroker.common import clock, ids
    from gpubroker.common.deployment import deployment_id
    from providers.labels import make_label
    from sessions_app import drive
    from sessions_app.models import Rental, Session

    labels = [make_label(deployment_id(), ids.new_session_id(), 1) for _ in range(TICKED)]
    write_down([{"id": number, "label": label} for number, label in enumerate(labels)], "key", "key", running=True)
    some = list(Session.objects.values_list("id", flat=True)[: TICKS * DUE])
    spent = []
    for number in range(TICKS):
        due = some[number * DUE : (number + 1) * DUE]
        half, now = len(due) // 2, clock.now()
        Session.objects.filter(id__in=due[:half]).update(expires_at=now, next_check_at=now)
        Rental.objects.filter(session_id__in=due[half:]).update(next_check_at=now)
        began, before = time.perf_counter(), time.process_time()
        drive.tick()
        spent.append((time.perf_counter() - began, time.process_time() - before))
    return spent[1:]


if __name__ == "__main__":
    main(sys.argv[1])
