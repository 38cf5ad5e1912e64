"""Estimates: a create's body in, dollars out, nothing written."""

from __future__ import annotations

from typing import Any

import pytest

from billing.models import Consumer
from sessions_app.models import Event, Rental, Session
from tests.harness import Api
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess


@pytest.fixture
def offers(sandbox: SandboxProcess, db: None) -> None:
    apply([row("1", disk_gb=500.0)])


def body(**changes: Any) -> dict[str, Any]:
    asked = {"consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 3}
    return {**asked, **changes}


def nothing_was_written() -> bool:
    return not any(model.objects.exists() for model in (Session, Rental, Event, Consumer))


def test_dollars(api: Api, offers: None) -> None:
    assert api.post("/sessions/estimate", body(disk_gb=144)) == {
        "consumer_id": "me", "offer_id": "vastai-1", "provider": "vastai", "gpu_type": "RTX 4090", "gpu_count": 1,
        "reservation_hours": 3, "disk_gb": 144, "pricing": "on_demand", "bid_price": None, "currency": "USD",
        "per_hour": {"gpu": 0.45, "disk": 0.03, "total": 0.48}, "total": {"gpu": 1.35, "disk": 0.09, "total": 1.44},
        "disk_estimate": None, "budget": None,
    }  # fmt: skip
    assert nothing_was_written()


def test_with_a_model(api: Api, offers: None) -> None:
    answer = api.post("/sessions/estimate", body(model_id="deepseek-ai/DeepSeek-V2.5", quantization="gptq"))
    assert answer["disk_gb"] == 132
    assert answer["disk_estimate"]["required_gb"] == 132


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [({"offer_id": "vastai-9"}, 404, None), ({"reservation_hours": 13}, 400, "reservation_hours"),
     ({"disk_gb": 501}, 400, "disk_gb"), ({"preserve_hours": 5}, 400, "preserve_hours"),
     ({"model_id": "x-70b", "disk_gb": 100}, 400, "disk_gb"), ({"template_hash_id": "x"}, 404, "template_hash_id")],
)  # fmt: skip
def test_refusals_are_a_creates(
    api: Api, offers: None, changes: dict[str, Any], status: int, field: str | None
) -> None:
    estimated = api.post("/sessions/estimate", body(**changes), status)
    created = api.post("/sessions", body(**changes), status, Prefer="wait=0")
    assert estimated.get("field") == field
    assert estimated.pop("request_id") != created.pop("request_id")
    assert estimated == created
    assert nothing_was_written()


def test_another_session_on_the_offer_does_not_matter(api: Api, offers: None) -> None:
    api.post("/sessions", body(), 201, Prefer="wait=0")
    assert api.post("/sessions/estimate", body())["disk_gb"] == 50
