"""The sessions' HTTP contract: answers, refusals that change nothing, and waiting for the verdict."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from gpubroker.common import sshkeys
from sessions_app.models import Event, Rental, Session
from tests.harness import Api, BackgroundDriver, Driver, cheapest_offer
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess

OWN_KEY = sshkeys.generate("ed25519", "me@laptop").public


def nothing_was_written() -> bool:
    return not (Session.objects.exists() or Rental.objects.exists() or Event.objects.exists())


BAD_BODIES: list[tuple[str, dict[str, Any]]] = [
    ("consumer_id", {"consumer_id": None}),
    ("consumer_id", {"consumer_id": ""}),
    ("consumer_id", {"consumer_id": 7}),
    ("consumer_id", {"consumer_id": "x" * 129}),
    ("consumer_id", {"consumer_id": "nul\x00byte"}),
    ("offer_id", {"offer_id": None}),
    ("offer_id", {"offer_id": ["vastai-1"]}),
    ("workload_type", {"workload_type": "mining"}),
    ("reservation_hours", {"reservation_hours": 0}),
    ("reservation_hours", {"reservation_hours": 13}),
    ("reservation_hours", {"reservation_hours": "2"}),
    ("reservation_hours", {"reservation_hours": 1.5}),
    ("reservation_hours", {"reservation_hours": True}),
    ("idle_threshold_minutes", {"idle_threshold_minutes": -1}),
    ("storage_policy", {"storage_policy": "keep"}),
    ("launch_mode", {"launch_mode": "vnc"}),
    ("disk_gb", {"disk_gb": 7}),
    ("disk_gb", {"disk_gb": 16_001}),
    ("disk_gb", {"disk_gb": 201}),
    ("disk_gb", {"disk_gb": "50"}),
    ("exposed_ports", {"exposed_ports": [0]}),
    ("exposed_ports", {"exposed_ports": [65_536]}),
    ("exposed_ports", {"exposed_ports": list(range(1, 66))}),
    ("exposed_ports", {"exposed_ports": "8000"}),
    ("ssh_key_type", {"ssh_key_type": "dsa"}),
    ("auto_retry", {"auto_retry": "true"}),
    ("max_retries", {"auto_retry": True, "max_retries": 6}),
    ("max_retries", {"auto_retry": True, "max_retries": -1}),
    ("max_retries", {"max_retries": 1}),
    ("retry_scope", {"auto_retry": True, "retry_scope": "same_host"}),
    ("max_price", {"max_price": 0}),
    ("max_price", {"max_price": -0.5}),
    ("max_price", {"max_price": "0.5"}),
    ("max_price", {"max_price": True}),
    ("max_price", {"max_price": 0.4499999}),
    ("max_price", {"max_price": 0.449999}),
    ("ssh_public_key", {"ssh_public_key": "nonsense"}),
    ("ssh_public_key", {"ssh_public_key": OWN_KEY + "\n" + OWN_KEY}),
    ("ssh_public_key", {"ssh_public_key": 'command="rm" ' + OWN_KEY}),
    ("ssh_public_key", {"ssh_public_key": sshkeys.generate("ed25519", "x").private}),
]


@pytest.fixture
def one_offer(sandbox: SandboxProcess, db: None) -> str:
    apply([row("1")])
    return "vastai-1"


@pytest.mark.parametrize(("field", "changes"), BAD_BODIES)
def test_bad_fields_are_refused_by_name(api: Api, one_offer: str, field: str, changes: dict[str, Any]) -> None:
    body = {"consumer_id": "me", "offer_id": one_offer, "workload_type": "llm", "reservation_hours": 2, **changes}
    answer = api.post("/sessions", body, 400)
    assert answer["field"].split("[")[0].split(".")[0] == field
    assert answer["error"].startswith(field)
    assert nothing_was_written()


@pytest.mark.parametrize("missing", ["consumer_id", "offer_id", "workload_type", "reservation_hours"])
def test_missing_fields_are_refused_by_name(api: Api, one_offer: str, missing: str) -> None:
    body = {"consumer_id": "me", "offer_id": one_offer, "workload_type": "llm", "reservation_hours": 2}
    del body[missing]
    assert api.post("/sessions", body, 400)["field"] == missing
    assert nothing_was_written()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("7", "application/json", 400),
        ("null", "application/json", 400),
        ("[" * 20_000, "application/json", 400),
        ("a=b", "application/x-www-form-urlencoded", 415),
        ("<x/>", "text/xml", 415),
        ('"' + "x" * 1_100_000 + '"', "application/json", 413),
    ],
)
def test_broken_bodies_are_refused(one_offer: str, body: str, content_type: str, status: int) -> None:
    client = Client(raise_request_exception=False)
    response = client.post("/api/v1/sessions", body, content_type=content_type)
    assert response.status_code == status, response.content
    assert set(response.json()) >= {"error", "request_id"}
    assert nothing_was_written()


def test_unknown_offer_is_404(api: Api, one_offer: str) -> None:
    answer = api.create(404, offer_id="vastai-2")
    assert answer["error"] == "offer vastai-2 not found"
    assert nothing_was_written()


def test_own_key_means_no_private_key(api: Api, one_offer: str) -> None:
    created = api.create(offer_id=one_offer, ssh_public_key=OWN_KEY)
    assert "ssh_private_key" not in created
    assert Session.objects.get().ssh_public_key == OWN_KEY


def test_the_default_key_is_rsa_in_pem(api: Api, one_offer: str) -> None:
    body = {"consumer_id": "me", "offer_id": one_offer, "workload_type": "llm", "reservation_hours": 2}
    created = api.post("/sessions", body, 201, Prefer="wait=0")
    assert created["ssh_private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    stored = (
        str(list(Session.objects.values())) + str(list(Rental.objects.values())) + str(list(Event.objects.values()))
    )
    assert "PRIVATE KEY" not in stored
    assert created["ssh_private_key"] not in stored


def test_the_answer_has_the_seeds_fields(api: Api, one_offer: str) -> None:
    session = api.create(offer_id=one_offer, disk_gb=100)["session"]
    created, expires = session.pop("created_at"), session.pop("expires_at")
    assert created.endswith("Z")
    assert int(expires[11:13]) == (int(created[11:13]) + 2) % 24
    assert session.pop("id").startswith("sess-")
    assert session == {
        "consumer_id": "my-application", "provider": "vastai", "offer_id": "vastai-1", "gpu_type": "RTX 4090",
        "gpu_count": 1, "status": "pending", "ssh_host": "", "ssh_port": 0, "ssh_user": "root",
        "workload_type": "llm", "launch_mode": "ssh", "storage_policy": "destroy", "idle_threshold_minutes": 0,
        "reservation_hours": 2, "price_per_hour": 0.45, "disk_gb": 100, "end_reason": "", "end_message": "",
        "ended_at": None, "auto_retry": False, "max_retries": 0, "retry_scope": "same_gpu", "max_price": None,
        "pricing": "on_demand", "bid_price": None, "paused": False, "paused_at": None,
    }  # fmt: skip


def test_unknown_sessions_are_404_everywhere(api: Api, one_offer: str) -> None:
    error = "session sess-x not found"
    assert api.get("/sessions/sess-x", 404)["error"] == error
    assert api.delete("/sessions/sess-x", 404)["error"] == error
    assert api.post("/sessions/sess-x/done", status=404)["error"] == error
    assert api.get("/costs", 404, session_id="sess-x")["error"] == error


def test_list_is_newest_first_and_filtered(api: Api, sandbox: SandboxProcess, db: None) -> None:
    apply([row(str(number)) for number in range(5)])
    made = [
        api.create(offer_id=f"vastai-{number}", consumer_id="a" if number < 3 else "b")["session"]["id"]
        for number in range(5)
    ]
    everything = api.get("/sessions")
    assert [session["id"] for session in everything["sessions"]] == made[::-1]
    assert (everything["count"], everything["total"]) == (5, 5)
    page = api.get("/sessions", limit=2, offset=1)
    assert [session["id"] for session in page["sessions"]] == made[::-1][1:3]
    assert (page["count"], page["total"]) == (2, 5)
    assert api.get("/sessions", consumer_id="a")["total"] == 3
    assert api.get("/sessions", status="pending")["total"] == 5
    assert api.get("/sessions", status="running")["total"] == 0
    assert api.get("/sessions", provider="tensordock")["total"] == 0
    for name, value in {"status": "gone", "provider": "aws", "limit": "0", "offset": "-1"}.items():
        assert api.get("/sessions", 400, **{name: value})["field"] == name


def test_list_query_count_does_not_grow(
    api: Api, sandbox: SandboxProcess, db: None, django_assert_num_queries: Any
) -> None:
    apply([row(str(number)) for number in range(12)])
    for number in range(12):
        api.create(offer_id=f"vastai-{number}")
    api.get("/sessions")  # those of more than an hour ago are counted once
    with django_assert_num_queries(1):
        api.get("/sessions")


@pytest.mark.django_db(transaction=True)
def test_create_and_delete_wait_for_the_verdict(market_with_threads: SandboxProcess, api: Api) -> None:
    with BackgroundDriver():
        created = api.create(wait=20)
        assert created["session"]["status"] == "provisioning"
        session_id = created["session"]["id"]
        deleted = api.delete(f"/sessions/{session_id}", Prefer="wait=20")
    assert deleted == {"message": "session destroyed", "session_id": session_id}
    assert market_with_threads.alive() == []


@pytest.mark.django_db(transaction=True)
def test_stale_inventory_is_the_seeds_body(market_with_threads: SandboxProcess, api: Api) -> None:
    offer = cheapest_offer()
    market_with_threads.fault("offer_gone")
    with BackgroundDriver():
        answer = api.create(503, wait=20, offer_id=offer)
    session_id, request_id = answer.pop("session_id"), answer.pop("request_id")
    assert Session.objects.get().id == session_id
    assert request_id
    assert answer == {
        "error": "offer unavailable due to stale inventory", "error_type": "stale_inventory", "offer_id": offer,
        "provider": "vastai", "retry_suggested": True,
        "message": "The selected offer is no longer available. Please refresh inventory and select a different offer.",
    }  # fmt: skip
    assert offer not in [item["id"] for item in api.get("/inventory")["offers"]]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fault", "status", "error_type"),
    [("insufficient_credit", 503, "insufficient_provider_credit"), ("auth_error", 503, "provider_auth")],
)
def test_other_refusals_say_why(
    market_with_threads: SandboxProcess, api: Api, fault: str, status: int, error_type: str
) -> None:
    market_with_threads.fault(fault, operation="create")
    with BackgroundDriver():
        answer = api.create(status, wait=20)
    assert (answer["error_type"], answer["retry_suggested"]) == (error_type, False)
    assert "ssh_private_key" not in answer
    assert market_with_threads.ledger() == []


def test_destroy_of_a_dead_session_is_200_again(market: SandboxProcess, api: Api, driver: Driver) -> None:
    market.fault("insufficient_credit")
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "failed")
    assert api.delete(f"/sessions/{session_id}") == {"message": "session destroyed", "session_id": session_id}


def test_trailing_slashes_request_ids_and_unknown_paths(one_offer: str) -> None:
    client = Client(raise_request_exception=False)
    assert client.get("/api/v1/inventory/").status_code == 200
    kept = client.get("/api/v1/sessions", headers={"X-Request-ID": "my.id-7"})
    assert kept.headers["X-Request-ID"] == "my.id-7"
    replaced = client.get("/api/v1/sessions/none", headers={"X-Request-ID": "bad id\r\n"})
    assert replaced.json()["request_id"] == replaced.headers["X-Request-ID"]
    assert len(replaced.headers["X-Request-ID"]) == 36
    for path in ("/api/v1/nothing", "/api/v2/sessions", "/nothing"):
        response = client.get(path)
        assert (response.status_code, response.json()["error"]) == (404, f"there is no {path}")
    wrong = client.patch("/api/v1/sessions")
    assert (wrong.status_code, set(wrong.json())) == (405, {"error", "request_id"})
