"""The providers' pages for staff, against the sandbox: what an account has, whose it is, and no secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gpubroker.common import clock
from gpubroker.common import providers as configured
from sessions_app.models import Event, ProviderWatch, Rental, Session
from tests.harness import Api, Driver
from tests.keys import Caller, make, staff
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl staff@test"
PAGES = ["balance", "user", "instances", "bids", "invoices", "charges", "ssh-keys", "templates", "machines"]
#: What TensorDock has none of.
LACKS = {
    "balance": "balance", "user": "user", "bids": "bids", "invoices": "invoices", "charges": "charges",
    "ssh-keys": "account SSH keys", "templates": "launch templates",
    "machines": "machines that the account rents out",
}  # fmt: skip


@pytest.fixture
def both(sandbox: SandboxProcess, settings: Any, db: None) -> SandboxProcess:
    """Both providers, of one marketplace."""
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = sandbox.tensordock_url
    configured.configured.cache_clear()
    return sandbox


def test_the_overview_comes_from_the_books(both: SandboxProcess, api: Api, driver: Driver) -> None:
    driver.sweep_now()
    first = api.get("/providers")
    assert [row["provider"] for row in first["providers"]] == ["tensordock", "vastai"]
    dock, vast = first["providers"]
    assert (dock["balance"], vast["balance"]) == (None, None)
    assert (vast["sweep"]["failures_in_a_row"], vast["sweep"]["machines"]) == (0, 0)
    assert vast["sweep"]["last_complete_at"] is not None
    assert dock["sweep"]["last_complete_at"] is None
    assert vast["breaker"] == {"open": False, "open_until": None, "failures_in_a_row": 0, "last_error": ""}
    assert vast["capabilities"]["price_includes"] == ["gpu", "vcpu", "ram"]
    assert (vast["capabilities"]["reboot"], dock["capabilities"]["reboot"]) == (True, False)
    both.credit(12.5)
    told = api.get("/providers/vastai/balance")
    assert (told["provider"], told["credit"], told["currency"]) == ("vastai", 12.5, "USD")
    kept = api.get("/providers")["providers"][1]["balance"]
    assert kept == {name: told[name] for name in told if name != "provider"}


def test_every_machine_has_an_owner_or_is_unknown(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    label = Rental.objects.get(session_id=session_id).label
    orphan = str(market.foreign("gpb-testdep-abcdefghijklmnop-1"))
    other = str(market.foreign("gpb-another1-abcdefghijklmnop-1"))
    nobody = str(market.foreign("a notebook"))
    unnamed = str(market.foreign(None))
    page = api.get("/providers/vastai/instances")
    assert (page["count"], page["total"]) == (5, 5)
    owners = {row["instance_id"]: row["owner"] for row in page["instances"]}
    ours = Rental.objects.get(session_id=session_id).instance_id
    empty = {"kind": "unknown", "session_id": None, "consumer_id": None, "deployment": None}
    assert owners == {
        ours: {**empty, "kind": "session", "session_id": session_id, "consumer_id": "my-application"},
        orphan: {**empty, "kind": "orphan", "session_id": "sess-abcdefghijklmnop"},
        other: {**empty, "kind": "deployment", "deployment": "another1"},
        nobody: empty,
        unnamed: empty,
    }
    (row,) = [row for row in page["instances"] if row["instance_id"] == ours]
    assert (row["label"], row["phase"], row["gpu_count"] > 0) == (label, "running", True)
    second = api.get("/providers/vastai/instances", limit=2, offset=1)
    assert (second["count"], second["total"]) == (2, 5)
    assert [row["instance_id"] for row in second["instances"]] == list(owners)[1:3]


def test_charges_name_the_session_and_add_up(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    market.advance(3600)
    api.delete(f"/sessions/{session_id}", 202, Prefer="wait=0")
    driver.until_status(session_id, "stopped")
    until = clock.now() + timedelta(days=2)
    page = api.get("/providers/vastai/charges", until=clock.iso(until))
    assert (page["count"], page["total"]) == (1, 1)
    (charge,) = page["charges"]
    assert (charge["owner"]["kind"], charge["owner"]["session_id"]) == ("session", session_id)
    assert page["amount"] == pytest.approx(charge["amount"])
    assert page["amount"] > 0
    assert {item["kind"] for item in charge["items"]} >= {"gpu", "disk"}


def test_invoices_have_a_span(market: SandboxProcess, api: Api) -> None:
    assert api.get("/providers/vastai/invoices")["count"] >= 0
    refused = api.get("/providers/vastai/invoices", 400, since="2026-02-01T00:00:00Z", until="2026-01-01T00:00:00Z")
    assert refused["field"] == "since"
    assert api.get("/providers/vastai/charges", 400, since="2020-01-01T00:00:00Z")["field"] == "since"


def test_keys_of_the_account(market: SandboxProcess, api: Api) -> None:
    assert api.get("/providers/vastai/ssh-keys")["ssh_keys"] == []
    made = api.post("/providers/vastai/ssh-keys", {"public_key": KEY}, 201, **{"Idempotency-Key": "one"})
    again = api.post("/providers/vastai/ssh-keys", {"public_key": KEY}, 201, **{"Idempotency-Key": "one"})
    assert again == made
    assert made["public_key"] == KEY
    assert made["fingerprint"].startswith("SHA256:")
    assert api.get("/providers/vastai/ssh-keys")["ssh_keys"] == [made]
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----"
    assert api.post("/providers/vastai/ssh-keys", {"public_key": private}, 400)["field"] == "public_key"
    api.delete(f"/providers/vastai/ssh-keys/{made['key_id']}")
    api.delete(f"/providers/vastai/ssh-keys/{made['key_id']}")
    assert api.get("/providers/vastai/ssh-keys")["ssh_keys"] == []
    reasons = list(Event.objects.filter(kind="provider_changed").order_by("id").values_list("reason", flat=True))
    assert reasons == ["SSH key added", "SSH key deleted", "SSH key deleted"]


def test_templates_of_the_account(market: SandboxProcess, api: Api) -> None:
    before = api.get("/providers/vastai/templates", limit=1)["total"]
    body = {"name": "ours", "image": "ubuntu:24.04", "env": "-p 8000:8000", "extra_filters": {"num_gpus": {"eq": 1}}}
    made = api.post("/providers/vastai/templates", body, 201)
    path = f"/providers/vastai/templates/{made['template_id']}"
    listed = api.get("/providers/vastai/templates")
    assert listed["total"] == before + 1
    (own,) = [row for row in listed["templates"] if row["template_id"] == made["template_id"]]
    assert (own["name"], own["image"], own["recommended"]) == ("ours", "ubuntu:24.04", False)
    put = api.client.put(f"/api/v1{path}", {"image": "ubuntu:22.04"}, content_type="application/json")
    assert put.status_code == 200
    assert put.json()["template_id"] == made["template_id"]
    assert put.json()["hash_id"] != made["hash_id"]
    api.delete(path)
    assert api.get("/providers/vastai/templates")["total"] == before
    assert api.delete(path, 404)["provider"] == "vastai"


def test_a_machine_is_offered_repriced_and_withdrawn(market: SandboxProcess, api: Api) -> None:
    assert api.get("/providers/vastai/machines")["machines"] == []
    number = market.admin("POST", "machines", {"api_key": market.api_key})["id"]
    (row,) = api.get("/providers/vastai/machines")["machines"]
    assert (row["machine_id"], row["price_per_gpu_hour"]) == (str(number), None)
    path = f"/providers/vastai/machines/{number}/offer"
    refused = api.post(path, {"price_per_gpu_hour": 0}, 400)
    assert refused["field"] == "price_per_gpu_hour"
    api.post(path, {"price_per_gpu_hour": 0.4, "min_bid_per_gpu_hour": 0.2})
    bid = api.client.put(f"/api/v1{path}", {"min_bid_per_gpu_hour": 0.25}, content_type="application/json")
    assert bid.status_code == 200, bid.content
    (row,) = api.get("/providers/vastai/machines")["machines"]
    assert (row["price_per_gpu_hour"], row["min_bid_per_gpu_hour"]) == (0.4, 0.25)
    api.delete(path)
    assert api.get("/providers/vastai/machines")["machines"][0]["price_per_gpu_hour"] is None


def test_bids_and_user_hold_no_secret(market: SandboxProcess, api: Api) -> None:
    assert api.get("/providers/vastai/bids") == {"provider": "vastai", "bids": [], "count": 0, "total": 0}
    user = api.get("/providers/vastai/user")
    assert set(user) == {"provider", "user_id", "username", "email", "credit", "balance"}
    for page in PAGES:
        assert market.api_key not in str(api.get(f"/providers/vastai/{page}"))


@pytest.mark.parametrize("page", LACKS)
def test_what_a_provider_has_not_is_501_and_says_so(both: SandboxProcess, api: Api, page: str) -> None:
    answer = api.get(f"/providers/tensordock/{page}", 501)
    assert answer["error"].startswith(f"tensordock has no {LACKS[page]}")
    assert (answer["error_type"], answer["provider"]) == ("not_supported", "tensordock")
    assert answer["retry_suggested"] is False


def test_tensordocks_machines_have_owners_too(both: SandboxProcess, api: Api) -> None:
    assert api.get("/providers/tensordock/instances")["instances"] == []


@pytest.mark.parametrize("page", PAGES)
def test_an_unknown_provider_is_404(sandbox: SandboxProcess, db: None, api: Api, page: str) -> None:
    assert api.get(f"/providers/vastia/{page}", 404)["error"] == "there is no provider vastia"
    unset = api.get(f"/providers/tensordock/{page}", 404)
    assert unset["error"] == "provider tensordock is not configured on this broker"


@pytest.mark.parametrize(
    ("fault", "status", "kind", "again"),
    [
        ({"kind": "error_5xx", "status": 503}, 503, "unavailable", True),
        ({"kind": "auth_error"}, 502, "auth_error", False),
        ({"kind": "malformed"}, 502, "malformed_answer", True),
        ({"kind": "truncated_json"}, 502, "malformed_answer", True),
        ({"kind": "lost_answer"}, 503, "unavailable", True),
    ],
    ids=str,
)
def test_what_goes_wrong_there_is_typed(
    market: SandboxProcess, api: Api, fault: dict[str, Any], status: int, kind: str, again: bool
) -> None:
    market.fault(**{"operation": "list", "times": -1, **fault})
    answer = api.get("/providers/vastai/instances", status)
    assert (answer["error_type"], answer["provider"], answer["retry_suggested"]) == (kind, "vastai", again)
    assert market.api_key not in str(answer)


def test_a_change_whose_answer_is_lost_may_have_happened(market: SandboxProcess, api: Api) -> None:
    market.fault("lost_answer", operation="ssh_add")
    answer = api.post("/providers/vastai/ssh-keys", {"public_key": KEY}, 504)
    assert (answer["error_type"], answer["retry_suggested"]) == ("outcome_unknown", False)
    assert Event.objects.filter(kind="provider_changed").count() == 0


def test_nobody_waits_longer_than_the_budget(market: SandboxProcess, api: Api, settings: Any) -> None:
    settings.CREATE_WAIT_SECONDS = 1
    market.fault("slow", operation="list", seconds=8, times=-1)
    before = clock.BrokerClock().monotonic()
    answer = api.get("/providers/vastai/instances", 503)
    assert clock.BrokerClock().monotonic() - before < 5
    assert answer["retry_suggested"] is True


def test_a_sweep_on_demand(market: SandboxProcess, api: Api, driver: Driver) -> None:
    driver.sweep_now()
    later = clock.now() + timedelta(minutes=4)
    ProviderWatch.objects.update(next_sweep_at=later)
    answer = api.post("/providers/vastai/sweep", status=202)
    assert answer == {"message": "sweep asked for", "provider": "vastai"}
    assert ProviderWatch.objects.get().next_sweep_at <= clock.now()
    api.post("/providers/vastia/sweep", status=404)


def test_only_staff(market: SandboxProcess, settings: Any) -> None:
    settings.API_AUTH = "key"
    consumer, boss = Caller(make("me").secret), Caller(staff().secret)
    calls = [("GET", "/providers"), *(("GET", f"/providers/vastai/{page}") for page in PAGES)]
    changes: list[tuple[str, str]] = [
        ("POST", "/providers/vastai/ssh-keys"), ("DELETE", "/providers/vastai/ssh-keys/1"),
        ("POST", "/providers/vastai/templates"), ("PUT", "/providers/vastai/templates/1"),
        ("DELETE", "/providers/vastai/templates/1"), ("POST", "/providers/vastai/machines/1/offer"),
        ("PUT", "/providers/vastai/machines/1/offer"), ("DELETE", "/providers/vastai/machines/1/offer"),
        ("POST", "/providers/vastai/sweep"),
    ]  # fmt: skip
    for method, path in [*calls, *changes]:
        status, answer = consumer(method, path)
        assert (status, answer["scope"]) == (403, "staff"), path
        assert Caller()(method, path)[0] == 401
    assert {boss(method, path)[0] for method, path in calls} == {200}
    assert Event.objects.filter(kind="provider_changed").count() == 0
    assert Session.objects.count() == 0
