"""The seed's examples replayed: a session from its creation to its end, its costs, and the errors."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.conformance.seed import EXAMPLES, assert_like
from tests.harness import Api, Driver, MovableClock, cheapest_offer, offers_on_different_machines
from tests.sandbox import SandboxProcess


def test_create_as_in_the_seed(fitting: str, api: Api) -> None:
    request = {**EXAMPLES["create_request"], "offer_id": fitting}
    answer = api.post("/sessions", request, 201, Prefer="wait=0")
    assert_like("created", answer)
    session = answer["session"]
    assert session["id"].startswith("sess-")
    same = ("consumer_id", "workload_type", "reservation_hours", "disk_gb")
    assert {name: session[name] for name in same} == {name: request[name] for name in same}
    assert session["status"] in ("pending", "provisioning")
    assert answer["ssh_private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    span = datetime.fromisoformat(session["expires_at"]) - datetime.fromisoformat(session["created_at"])
    assert span.total_seconds() == 2 * 3600
    assert "ssh_private_key" not in str(api.get(f"/sessions/{session['id']}"))


@pytest.mark.parametrize("fields", EXAMPLES["create_optional_fields"], ids=str)
def test_every_optional_field_of_the_seed_is_taken(market: SandboxProcess, api: Api, fields: dict[str, Any]) -> None:
    session = api.create(offer_id=offers_on_different_machines(1)[0], **fields)["session"]
    shown = {name: session[name] for name in fields if name in session}
    assert shown == {name: fields[name] for name in shown}


@pytest.mark.parametrize("missing", ["consumer_id", "offer_id", "workload_type", "reservation_hours"])
def test_required_fields_are_required(market: SandboxProcess, api: Api, missing: str) -> None:
    request = {**EXAMPLES["create_request"], "offer_id": cheapest_offer()}
    del request[missing]
    assert_like("error", api.post("/sessions", request, 400))


def test_the_session_that_runs(running: Any, api: Api) -> None:
    assert_like("session", running)
    assert running["status"] == "running"
    assert running["ssh_port"] > 0
    assert running["ssh_user"] == "root"
    assert_like("error", api.get("/sessions/sess-none", 404))


def test_list_sessions(running: Any, api: Api) -> None:
    answer = api.get("/sessions", 200, **EXAMPLES["sessions_parameters"])
    assert_like("sessions", answer)
    assert answer["count"] == 1
    assert answer["sessions"] == [api.get(f"/sessions/{running['id']}")]
    for status in EXAMPLES["statuses"]:
        assert api.get("/sessions", status=status)["count"] == (1 if status == "running" else 0)


def test_done(running: Any, api: Api, driver: Driver) -> None:
    answer = api.post(f"/sessions/{running['id']}/done")
    assert answer == {**EXAMPLES["done"], "session_id": running["id"]}
    driver.until_status(running["id"], "stopped")
    assert_like("error", api.post("/sessions/sess-none/done", status=404))


def test_extend(running: Any, api: Api) -> None:
    answer = api.post(f"/sessions/{running['id']}/extend", EXAMPLES["extend_request"])
    assert_like("extended", answer)
    assert (answer["message"], answer["session_id"]) == ("session extended", running["id"])
    later = datetime.fromisoformat(answer["new_expires_at"]) - datetime.fromisoformat(running["expires_at"])
    assert later.total_seconds() == 2 * 3600
    assert api.get(f"/sessions/{running['id']}")["expires_at"] == answer["new_expires_at"]


def test_extending_a_stopped_session_conflicts(running: Any, api: Api, driver: Driver) -> None:
    api.post(f"/sessions/{running['id']}/done")
    driver.until_status(running["id"], "stopped")
    assert_like("error", api.post(f"/sessions/{running['id']}/extend", EXAMPLES["extend_request"], 409))


def test_destroy(running: Any, api: Api, driver: Driver, market: SandboxProcess) -> None:
    api.delete(f"/sessions/{running['id']}", 202, Prefer="wait=0")
    driver.until_status(running["id"], "stopped")
    answer = api.delete(f"/sessions/{running['id']}")
    assert answer == {**EXAMPLES["destroyed"], "session_id": running["id"]}
    assert market.alive() == []
    assert_like("error", api.delete("/sessions/sess-none", 404))


def test_diagnostics(running: Any, api: Api, driver: Driver, time: MovableClock) -> None:
    time.advance(minutes=90)
    answer = api.get(f"/sessions/{running['id']}/diagnostics")
    assert_like("diagnostics", answer)
    assert answer["uptime"] == "1h 30m"
    assert answer["time_to_expiry"] in ("29m", "30m")
    assert answer["note"] == EXAMPLES["diagnostics"]["note"]
    assert (answer["ssh_available"], answer["launch_mode"], answer["api_endpoint"]) == (True, "ssh", "")
    assert_like("error", api.get("/sessions/sess-none/diagnostics", 404))


def test_diagnostics_of_a_session_that_does_not_run(market: SandboxProcess, api: Api) -> None:
    session_id = api.create()["session"]["id"]
    assert_like("error", api.get(f"/sessions/{session_id}/diagnostics", 400))


def test_costs(running: Any, api: Api) -> None:
    of_one = api.get("/costs", session_id=running["id"])
    assert_like("session_cost", of_one)
    assert of_one["currency"] == "USD"
    summary = api.get("/costs", consumer_id="my-application")
    assert_like("costs", summary)
    assert (summary["consumer_id"], summary["session_count"]) == ("my-application", 1)
    assert set(summary["by_provider"]) == {"vastai"}
    assert_like("costs", api.get("/costs", 200, **EXAMPLES["costs_parameters"]))
    assert_like("cost_summary", api.get("/costs/summary"))
    assert api.get("/costs/summary")["consumer_id"] == ""
    assert api.get("/costs/summary", consumer_id="my-application")["consumer_id"] == "my-application"


def test_stale_inventory(market: SandboxProcess, api: Api) -> None:
    """The offer vanished between the listing and the create: a marketplace's everyday life."""
    offer = cheapest_offer()
    session_id = api.create(offer_id=offer)["session"]["id"]
    market.take_offer(offer.removeprefix("vastai-"))
    Driver().until_status(session_id, "failed")
    ended = api.get(f"/sessions/{session_id}")
    assert ended["end_reason"] == "offer_gone"
    assert_like("error", api.get(f"/inventory/{offer}", 404))
