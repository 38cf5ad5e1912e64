"""Sessions on TensorDock through the whole broker, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from gpubroker.common import providers as configured
from gpubroker.common import sshkeys
from offers import snapshot
from sessions_app import verify
from sessions_app.models import Rental, Session
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock, refresh_offers
from tests.sandbox import TensorDockSandbox


@pytest.fixture
def market(tensordock_process: TensorDockSandbox, settings: Any, db: None) -> Iterator[TensorDockSandbox]:
    """The marketplace, empty, and the broker configured to use its TensorDock side only."""
    tensordock_process.reset()
    settings.TENSORDOCK_API_TOKEN = tensordock_process.api_key
    settings.TENSORDOCK_BASE_URL = tensordock_process.tensordock_url
    settings.PROVIDER_PACE = 0
    settings.SSH_CHECK_SECONDS = 0.1
    configured.configured.cache_clear()
    snapshot.forget()
    refresh_offers("tensordock")
    yield tensordock_process
    tensordock_process.clear_faults()
    configured.configured.cache_clear()
    snapshot.forget()


@pytest.fixture
def driver() -> Driver:
    return Driver("tensordock")


def begin(api: Api, **changes: Any) -> dict[str, Any]:
    offer = api.get("/inventory")["offers"][0]
    body = {
        "consumer_id": "me",
        "offer_id": offer["id"],
        "workload_type": "training",
        "reservation_hours": 1,
        **changes,
    }
    answer: dict[str, Any] = api.post("/sessions", body, 201, Prefer="wait=0")
    return {**answer, "offer": offer}


def test_a_session_from_offer_to_proof(api: Api, market: TensorDockSandbox, driver: Driver) -> None:
    pair = sshkeys.generate("ed25519", "me@laptop")
    begun = begin(api, ssh_public_key=pair.public, disk_gb=100)
    session = driver.until_status(begun["session"]["id"], "running")
    assert session.ssh_user == "user"
    (contract,) = market.alive()
    rental = Rental.objects.get(session=session)
    assert (contract["label"], str(contract["id"])) == (rental.label, rental.instance_id)

    # The consumer's own key opens the door too.
    door = verify.Endpoint(session.ssh_host, session.ssh_port or 0, "user")
    verify.verify([door], pair.private, verify.Promise(session.gpu_count, session.vram_mb), rental.host_key)

    driver.sweep_now()
    rental.refresh_from_db()
    assert rental.gpu_rate is not None
    assert rental.disk_rate is not None
    quoted = Decimal(str(begun["offer"]["price_per_hour"])) + session.storage_price_per_gb_month * 100 / 720
    assert rental.gpu_rate + rental.disk_rate == pytest.approx(quoted, abs=Decimal("0.000002"))

    api.delete(f"/sessions/{session.id}", 202, Prefer="wait=0")
    driver.until_status(session.id, "stopped")
    rental.refresh_from_db()
    assert rental.state == Debt.CLOSED
    assert market.alive() == []


def test_a_lost_create_is_adopted(api: Api, market: TensorDockSandbox, driver: Driver) -> None:
    market.fault("lost_answer", operation="create")
    session = driver.until_status(begin(api)["session"]["id"], "running")
    assert len(market.alive()) == 1
    assert Rental.objects.get(session=session).instance_id == str(market.alive()[0]["id"])


def test_an_offer_that_is_gone_ends_the_session_with_nothing_owed(
    api: Api, market: TensorDockSandbox, driver: Driver
) -> None:
    market.fault("offer_gone")
    session_id = begin(api)["session"]["id"]
    driver.until(lambda: Session.objects.get(id=session_id).status == "failed")
    assert Session.objects.get(id=session_id).end_reason == "offer_gone"
    assert market.alive() == []


def test_a_machine_that_stops_by_itself_is_destroyed(api: Api, market: TensorDockSandbox, driver: Driver) -> None:
    """It would go on costing its full price."""
    session = driver.until_status(begin(api)["session"]["id"], "running")
    instance_id = Rental.objects.get(session=session).instance_id
    assert market.api("POST", f"/instances/{instance_id}/stop")[0] == 200

    def ended() -> bool:
        driver.sweep_now()
        return Session.objects.get(id=session.id).status == "failed"

    driver.until(ended)
    assert Session.objects.get(id=session.id).end_reason == "provider_lost"
    assert market.alive() == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"storage_policy": "preserve"},
            "storage_policy: tensordock bills a stopped machine in full, so no disk is kept there; use destroy",
        ),
        (
            {"docker_image": "pytorch/pytorch"},
            "docker_image: tensordock runs no Docker images, only its own, such as ubuntu2404",
        ),
        ({"disk_gb": 99}, "disk_gb: at least 100 GB with tensordock, got 99"),
    ],
)
def test_what_it_cannot_do_is_refused_at_create(
    api: Api, market: TensorDockSandbox, changes: dict[str, Any], error: str
) -> None:
    body = {"consumer_id": "me", "offer_id": api.get("/inventory")["offers"][0]["id"], "workload_type": "training"}
    refusal = api.post("/sessions", {**body, "reservation_hours": 1, **changes}, 400)
    assert refusal["error"] == error
    assert not Session.objects.exists()
    assert market.ledger() == []


def test_its_bill_begins_with_the_order_and_its_least_disk(
    api: Api, market: TensorDockSandbox, driver: Driver, time: MovableClock
) -> None:
    """I11: a boot is paid for here, unlike at Vast.ai."""
    begun = begin(api, docker_image="ubuntu2404")
    assert begun["session"]["disk_gb"] == 100
    session = driver.until_status(begun["session"]["id"], "running")
    driver.sweep_now()
    time.advance(minutes=50)
    market.advance(3000)
    api.delete(f"/sessions/{session.id}", 202, Prefer="wait=0")
    driver.until_status(session.id, "stopped")
    ours, theirs = api.get("/costs", session_id=session.id), market.ledger()[0]
    assert ours["total_cost"] == pytest.approx(theirs["total_dollars"], rel=0.01)
    assert ours["gpu_cost"] == pytest.approx(theirs["gpu_dollars"], rel=0.01)
