"""api.md's decisions, line by line: create, keys, delete, done, extend, diagnostics, lists, agents, repeats."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from django.test import Client

from gpubroker.common import sshkeys
from tests.conformance.seed import EXAMPLES
from tests.harness import Api, BackgroundDriver, Driver, MovableClock, cheapest_offer, offers_on_different_machines
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess

OWN_KEY = sshkeys.generate("ed25519", "me@laptop").public


@pytest.fixture
def listed(sandbox: SandboxProcess, db: None) -> None:
    apply([row("1"), row("2"), row("3")])


def order(**changes: Any) -> dict[str, Any]:
    body = {"consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2}
    return {**body, "ssh_key_type": "ed25519", **changes}


# -- Create ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["consumer_id", "offer_id", "workload_type", "reservation_hours"])
def test_four_fields_are_required(listed: None, api: Api, name: str) -> None:
    body = order()
    del body[name]
    answer = api.post("/sessions", body, 400)
    assert answer["field"] == name
    assert answer["error"].startswith(f"{name}: ")


@pytest.mark.parametrize(
    "workload",
    ["llm", "training", "batch", "llm_vllm", "llm_tgi", "interactive", "inference", "ssh", "benchmark"],
)
def test_workload_types(listed: None, api: Api, workload: str) -> None:
    model = {"model_id": "Qwen/Qwen2.5-7B-Instruct"} if workload in ("llm_vllm", "llm_tgi") else {}
    answer = api.post("/sessions", order(workload_type=workload, **model), 201, Prefer="wait=0")
    assert answer["session"]["workload_type"] == workload


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reservation_hours", 0), ("reservation_hours", 13), ("reservation_hours", "2"), ("reservation_hours", 1.5),
        ("workload_type", "mining"), ("storage_policy", "keep"), ("launch_mode", "vnc"), ("disk_gb", 7),
        ("disk_gb", 16_001), ("disk_gb", 201), ("exposed_ports", [0]), ("exposed_ports", [65_536]),
        ("exposed_ports", list(range(1, 66))), ("consumer_id", 5), ("offer_id", None), ("idle_threshold_minutes", -1),
        ("docker_image", 7), ("model_id", []), ("quantization", {}), ("template_hash_id", 1),
    ],
)  # fmt: skip
def test_a_wrong_type_or_value_is_400_with_the_fields_name(listed: None, api: Api, field: str, value: Any) -> None:
    answer = api.post("/sessions", order(**{field: value}), 400, Prefer="wait=0")
    assert answer["field"].partition("[")[0].partition(".")[0] == field
    assert api.get("/sessions")["total"] == 0


def test_limits_themselves_are_taken_and_the_default_disk_is_50(listed: None, api: Api) -> None:
    made = [
        api.post("/sessions", order(offer_id=f"vastai-{number}", **fields), 201, Prefer="wait=0")["session"]
        for number, fields in [(1, {"reservation_hours": 12, "disk_gb": 200}), (2, {"disk_gb": 8}), (3, {})]
    ]
    assert [session["disk_gb"] for session in made] == [200, 8, 50]


def test_unknown_body_fields_are_ignored(listed: None, api: Api) -> None:
    assert (
        api.post("/sessions", order(color="red", launchmode=7), 201, Prefer="wait=0")["session"]["consumer_id"] == "me"
    )


def test_one_active_session_per_consumer_and_offer(listed: None, api: Api) -> None:
    first = api.post("/sessions", order(), 201, Prefer="wait=0")["session"]["id"]
    assert api.post("/sessions", order(), 409, Prefer="wait=0")["session_id"] == first
    assert api.get("/sessions")["total"] == 1
    api.post("/sessions", order(offer_id="vastai-2"), 201, Prefer="wait=0")


def test_an_unknown_offer_is_404(listed: None, api: Api) -> None:
    assert api.post("/sessions", order(offer_id="vastai-9"), 404)["error"] == "offer vastai-9 not found"


def test_without_a_verdict_in_the_wait_budget_the_session_is_pending(listed: None, api: Api) -> None:
    assert api.post("/sessions", order(), 201, Prefer="wait=0")["session"]["status"] == "pending"


@pytest.mark.django_db(transaction=True)
def test_with_the_verdict_it_is_provisioning_and_a_vanished_offer_is_503(
    market_with_threads: SandboxProcess, api: Api
) -> None:
    first, second = offers_on_different_machines(2)
    with BackgroundDriver():
        assert api.create(wait=20, offer_id=first)["session"]["status"] == "provisioning"
        market_with_threads.fault("offer_gone")
        stale = api.create(503, wait=20, offer_id=second)
    expected = {**EXAMPLES["stale_inventory"], "offer_id": second, "request_id": stale["request_id"]}
    assert stale.items() >= expected.items()
    assert second not in [offer["id"] for offer in api.get("/inventory")["offers"]]
    assert len(market_with_threads.alive()) == 1


# -- SSH keys ----------------------------------------------------------------------------------------------------


def test_the_brokers_key_is_rsa_3072_in_pem_or_ed25519_on_request(listed: None, api: Api) -> None:
    plain = order()
    del plain["ssh_key_type"]
    pem = api.post("/sessions", plain, 201, Prefer="wait=0")["ssh_private_key"]
    key = load_pem_private_key(pem.encode(), None)
    assert pem.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072
    other = api.post("/sessions", order(offer_id="vastai-2"), 201, Prefer="wait=0")["ssh_private_key"]
    assert isinstance(load_ssh_private_key(other.encode(), None), ed25519.Ed25519PrivateKey)


def test_with_ones_own_key_no_private_key_is_made(listed: None, api: Api) -> None:
    answer = api.post("/sessions", order(ssh_public_key=OWN_KEY), 201, Prefer="wait=0")
    assert "ssh_private_key" not in answer


# -- Delete, done, extend, diagnostics ---------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_delete_is_200_when_proved_and_200_again(market_with_threads: SandboxProcess, api: Api) -> None:
    with BackgroundDriver():
        session_id = api.create(wait=20)["session"]["id"]
        for _ in range(2):
            assert api.delete(f"/sessions/{session_id}", Prefer="wait=20")["message"] == "session destroyed"
    assert market_with_threads.alive() == []


def test_delete_is_202_while_the_proof_takes_longer(running: Any, api: Api) -> None:
    answer = api.delete(f"/sessions/{running['id']}", 202, Prefer="wait=0")
    assert (answer["message"], answer["status"]) == ("session destruction in progress", "stopping")


def test_done_is_409_on_a_terminal_session(running: Any, api: Api, driver: Driver) -> None:
    api.post(f"/sessions/{running['id']}/done")
    driver.until_status(running["id"], "stopped")
    assert running["id"] in api.post(f"/sessions/{running['id']}/done", status=409)["error"]


@pytest.mark.parametrize("hours", [0, 13, -1, "2", 1.5, None, True])
def test_extend_takes_1_to_12_whole_hours(running: Any, api: Api, hours: Any) -> None:
    answer = api.post(f"/sessions/{running['id']}/extend", {"additional_hours": hours}, 400)
    assert answer["field"] == "additional_hours"
    assert api.get(f"/sessions/{running['id']}")["expires_at"] == running["expires_at"]


def test_extend_beyond_the_hard_maximum_names_the_latest_end(running: Any, api: Api) -> None:
    latest = datetime.fromisoformat(running["created_at"]) + timedelta(hours=12)
    answer = api.post(f"/sessions/{running['id']}/extend", {"additional_hours": 11}, 400)
    assert latest.strftime("%Y-%m-%dT%H:%M") in str(answer)
    assert api.post(f"/sessions/{running['id']}/extend", {"additional_hours": 10})["message"] == "session extended"


def test_extend_is_409_while_stopping(running: Any, api: Api) -> None:
    api.delete(f"/sessions/{running['id']}", 202, Prefer="wait=0")
    api.post(f"/sessions/{running['id']}/extend", {"additional_hours": 1}, 409)


def test_diagnostics_also_tell_seconds(running: Any, api: Api, time: MovableClock) -> None:
    time.advance(minutes=30)
    answer = api.get(f"/sessions/{running['id']}/diagnostics")
    assert answer["uptime"] == "30m"
    assert 1800 <= answer["uptime_seconds"] < 1860
    assert 5200 <= answer["time_to_expiry_seconds"] <= 5400


# -- Sessions list -----------------------------------------------------------------------------------------------


def test_sessions_are_newest_first_with_offset_and_total(listed: None, api: Api) -> None:
    made = [
        api.post("/sessions", order(offer_id=f"vastai-{number}"), 201, Prefer="wait=0")["session"]["id"]
        for number in (1, 2, 3)
    ]
    answer = api.get("/sessions", limit=1, offset=1)
    assert ([each["id"] for each in answer["sessions"]], answer["count"], answer["total"]) == ([made[1]], 1, 3)


# -- Agent calls -------------------------------------------------------------------------------------------------


def test_heartbeat_with_the_token_in_the_machines_environment(
    run: Callable[..., Any], market: SandboxProcess, api: Api, driver: Driver
) -> None:
    session = run()
    (machine,) = market.alive()
    _, answer = market.api("GET", f"/api/v0/instances/{machine['id']}/?owner=me")
    variables = dict(answer["instances"]["extra_env"])
    (token,) = [value for name, value in variables.items() if "TOKEN" in name and name.startswith("GPUBROKER")]
    beat = {"agent_token": token, "gpu_utilization": 55.5, "memory_used_mb": 1000, "ssh_connections": 1}
    path = f"/sessions/{session['id']}/heartbeat"
    assert api.post(path, beat) == {"status": "running", "expires_at": session["expires_at"]}
    assert set(api.post(path, {**beat, "agent_token": "wrong"}, 401)) >= {"error", "request_id"}
    assert api.post(path, {**beat, "gpu_utilization": 101}, 400)["field"] == "gpu_utilization"
    api.post(f"/sessions/{session['id']}/done")
    driver.until_status(session["id"], "stopped")
    api.post(path, beat, 401)


# -- Added by us -------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_same_answer(listed: None, api: Api) -> None:
    headers = {"Prefer": "wait=0", "Idempotency-Key": "0b9d9c1e"}
    first = api.post("/sessions", order(), 201, **headers)
    again = api.post("/sessions", order(), 201, **headers)
    assert again["session"]["id"] == first["session"]["id"]
    assert again["ssh_private_key"] == first["ssh_private_key"]
    assert api.get("/sessions")["total"] == 1
    api.post("/sessions", order(reservation_hours=3), 409, **headers)
    assert api.get("/sessions")["total"] == 1


def test_events_tell_the_story(running: Any, api: Api) -> None:
    events = api.get(f"/sessions/{running['id']}/events")["events"]
    assert len(events) >= 3
    assert api.get("/sessions/sess-none/events", 404)["error"] == "session sess-none not found"


def test_rekey_gives_a_new_private_key(running: Any, api: Api) -> None:
    answer = Client(raise_request_exception=False).post(
        f"/api/v1/sessions/{running['id']}/rekey", {"ssh_key_type": "ed25519"}, content_type="application/json"
    )
    assert answer.status_code in (200, 202), answer.content
    assert "PRIVATE KEY" in answer.json()["ssh_private_key"]


def test_estimate_prices_an_order_without_placing_it(market: SandboxProcess, api: Api) -> None:
    body = order(offer_id=cheapest_offer(), disk_gb=100)
    answer = Client().post("/api/v1/sessions/estimate", body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert api.get("/sessions")["total"] == 0
    assert market.ledger() == []
