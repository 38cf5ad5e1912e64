"""api.md, the lines that the other files of this folder leave out: paths, errors, inventory, waiting, keys at rest,
diagnostics, costs."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client, RequestFactory
from rest_framework.request import Request

from billing import services as billing
from gpubroker.common import clock
from gpubroker.common.api import wait_budget
from offers import snapshot
from offers.models import Offer
from tests.attacks.surface import ALL, Operation, books
from tests.harness import Api, Driver, MovableClock
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
API = "/api/v1"
IDS = {
    "session_id": "sess-none", "offer_id": "vastai-1", "hash_id": "none", "prefix": "gpb_none", "provider": "nobody",
    "key_id": "1", "template_id": "1", "machine_id": "1", "webhook_id": "wh-none", "consumer": "nobody",
    "delivery_id": "b1c6a2de-52f0-4c0f-9c11-6a0d6a1f7f5e",
}  # fmt: skip


def client() -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture
def listed(sandbox: SandboxProcess) -> None:
    apply([row("1"), row("2")])


def order(**changes: Any) -> dict[str, Any]:
    body = {"consumer_id": "me", "offer_id": "vastai-1", "workload_type": "llm", "reservation_hours": 2}
    return {**body, "ssh_key_type": "ed25519", **changes}


# -- Paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ALL, ids=lambda each: each.name)
def test_a_trailing_slash_is_tolerated_and_no_redirect(listed: None, operation: Operation) -> None:
    answers = []
    for spelling, consumer in (("", "a"), ("/", "b")):
        body = operation.body(**({"consumer_id": consumer} if "consumer_id" in operation.fields else {}))
        answer = client().generic(
            operation.method, operation.at(**IDS) + spelling, json.dumps(body), "application/json",
            headers={"Prefer": "wait=0"},
        )  # fmt: skip
        assert answer.status_code not in (301, 302, 307, 308)
        answers.append((answer.status_code, sorted(answer.json())))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/api/schema", "/api/docs"])
def test_outside_of_the_versioned_api_as_well(path: str) -> None:
    assert client().get(f"{path}/").status_code == client().get(path).status_code


# -- Errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ALL, ids=lambda each: each.name)
def test_every_operation_echoes_the_request_id_also_when_it_refuses(operation: Operation) -> None:
    for given in ("my-Own.id_1", None):
        headers = {"X-Request-ID": given} if given else {}
        answer = client().generic("PUT", operation.at(**IDS), "{}", "application/json", headers=headers)
        assert answer.status_code in (400, 401, 404, 405)  # keys are for staff with a key; few paths take a PUT
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
        assert answer.headers["X-Request-ID"] == (given or str(uuid.UUID(answer.headers["X-Request-ID"])))


def test_more_keys_follow_where_they_help(listed: None, api: Api) -> None:
    assert api.get("/inventory/vastai-9", 404)["offer_id"] == "vastai-9"
    assert api.get("/sessions/sess-9", 404)["session_id"] == "sess-9"
    assert api.post("/sessions", order(disk_gb=5), 400)["field"] == "disk_gb"


# -- Query parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["xml", "api", "json", ""])
def test_format_is_an_unknown_parameter_too(listed: None, value: str) -> None:
    """REST framework's own parameter, which answered 404."""
    for path in ("/inventory", "/templates", "/sessions", "/inventory/vastai-1"):
        answer = client().get(f"{API}{path}", {"format": value})
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")


# -- Inventory ---------------------------------------------------------------------------------------------------


def test_gpu_type_without_spaces_and_not_in_part(listed: None, api: Api) -> None:
    for asked in ("rtx4090", "RTX 4090", "rtx 4090", "RTX4090", "Rtx 40 90"):
        assert api.get("/inventory", gpu_type=asked)["total"] == 2, asked
    for asked in ("4090", "RTX 409", "RTX 4090 Ti", "rtx"):
        assert api.get("/inventory", gpu_type=asked)["total"] == 0, asked


def test_of_two_at_one_price_the_surer_comes_first(sandbox: SandboxProcess, api: Api) -> None:
    apply([row("1"), row("2"), row("3", price_per_hour=Decimal("0.1"))])
    Offer.objects.filter(id__in=["vastai-1", "vastai-3"]).update(fetched_at=clock.now() - timedelta(hours=1))
    snapshot.forget()
    offers = api.get("/inventory")["offers"]
    assert [offer["id"] for offer in offers] == ["vastai-3", "vastai-2", "vastai-1"]
    assert offers[1]["availability_confidence"] > offers[2]["availability_confidence"]


def test_filters_compose(sandbox: SandboxProcess, api: Api) -> None:
    apply([
        row("1"), row("2", location="Texas, US"), row("3", gpu_count=2), row("4", price_per_hour=Decimal(2)),
        row("5", reliability=0.5), row("6", vram_mb=81_920, gpu_name_raw="A100 SXM4"), row("7", cuda_version=11.0),
    ])  # fmt: skip
    alone = {
        "location": "sweden", "max_price": "1", "min_reliability": "0.9", "min_cuda": "12", "gpu_type": "rtx4090",
        "provider": "vastai", "min_vram": "24",
    }  # fmt: skip

    def found(**asked: Any) -> set[str]:
        return {each["id"] for each in api.get("/inventory", 200, **asked)["offers"]}

    lists, together = [found(**{name: value}) for name, value in alone.items()], found(**alone)
    assert together == set.intersection(*lists) == {"vastai-1", "vastai-3"}
    for name in ("gpu_count", "min_gpu_count"):
        assert found(**alone, **{name: 2}) == {"vastai-3"}


def test_a_quote_is_no_more_than_the_offer_has(listed: None, api: Api) -> None:
    assert api.get("/inventory/vastai-1", disk_gb=200)["quote"]["disk_gb"] == 200
    assert api.get("/inventory/vastai-1", 400, disk_gb=201)["field"] == "disk_gb"
    assert "quote" not in api.get("/inventory/vastai-1")


def test_inventory_is_empty_when_nothing_is_offered(sandbox: SandboxProcess) -> None:
    assert client().get("/health").json()["services"]["inventory"] == "empty"


# -- Create ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [("wait=5", 5), ("wait=0", 0), ("wait=60", 60), ("wait=61", 60), ("wait=9999", 60), ("respond-async, wait=7", 7),
     ("", 20), ("wait=-1", 20), ("wait=x", 20), ("waiting=3", 20), ("nowait=3", 20)],
)  # fmt: skip
def test_prefer_wait_up_to_a_minute(prefer: str, seconds: float) -> None:
    request = Request(RequestFactory().post("/", headers={"Prefer": prefer} if prefer else {}))
    assert wait_budget(request, 20) == seconds


def test_the_usual_wait_is_20_seconds_and_10_for_a_destroy(settings: Any) -> None:
    assert (settings.CREATE_WAIT_SECONDS, settings.DESTROY_WAIT_SECONDS) == (20, 10)


def test_the_answer_names_where_the_session_is(listed: None) -> None:
    answer = client().post(f"{API}/sessions", order(), content_type="application/json", headers={"Prefer": "wait=0"})
    assert answer.headers["Location"] == f"{API}/sessions/{answer.json()['session']['id']}"
    assert client().get(answer.headers["Location"]).status_code == 200


# -- SSH keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["once", "repeatable"])
def test_the_callers_private_key_is_never_stored_in_clear(
    listed: None, api: Api, kind: str, headers: dict[str, str]
) -> None:
    pem = api.post("/sessions", order(ssh_key_type=kind), 201, Prefer="wait=0", **headers)["ssh_private_key"]
    written = str(books())
    assert "PRIVATE KEY" not in written
    assert [line for line in pem.splitlines()[1:-1] if line in written] == []


def test_the_private_key_is_returned_once(listed: None, api: Api) -> None:
    created = api.post("/sessions", order(), 201, Prefer="wait=0")
    session_id = created["session"]["id"]
    assert "PRIVATE KEY" in created["ssh_private_key"]
    for path in ("/sessions", f"/sessions/{session_id}", f"/sessions/{session_id}/events"):
        assert "PRIVATE" not in str(api.get(path))


def test_the_agents_token_is_stored_as_a_hash_and_sealed(market: SandboxProcess, api: Api, driver: Driver) -> None:
    session_id = api.create()["session"]["id"]
    driver.until_status(session_id, "running")
    (machine,) = market.alive()
    _, answer = market.api("GET", f"/api/v0/instances/{machine['id']}/?owner=me")
    token = dict(answer["instances"]["extra_env"])["GPUBROKER_AGENT_TOKEN"]
    assert len(token) >= 32
    assert token not in str(books())


# -- Done, extend, diagnostics -----------------------------------------------------------------------------------


def test_done_answers_at_once(listed: None, api: Api, driver: Driver) -> None:
    session_id = api.post("/sessions", order(), 201, Prefer="wait=0")["session"]["id"]
    answer = api.post(f"/sessions/{session_id}/done")
    assert answer == {"message": "session shutdown initiated", "session_id": session_id}
    driver.round()
    assert api.get(f"/sessions/{session_id}")["status"] in ("stopping", "stopped", "failed")


def test_extend_is_409_on_a_terminal_session_and_changes_nothing(listed: None, api: Api, driver: Driver) -> None:
    session_id = api.post("/sessions", order(), 201, Prefer="wait=0")["session"]["id"]
    api.post(f"/sessions/{session_id}/done")
    driver.until(lambda: api.get(f"/sessions/{session_id}")["status"] in ("stopped", "failed"))
    before = books()
    assert session_id in api.post(f"/sessions/{session_id}/extend", {"additional_hours": 1}, 409)["error"]
    assert api.get(f"/sessions/{session_id}/diagnostics", 400)["error"].startswith(
        f"session {session_id} is not running"
    )
    assert books() == before


def test_diagnostics_is_400_while_pending(listed: None, api: Api) -> None:
    session_id = api.post("/sessions", order(), 201, Prefer="wait=0")["session"]["id"]
    answer = api.get(f"/sessions/{session_id}/diagnostics", 400)
    assert "pending" in answer["error"]


# -- Costs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spent(time: MovableClock) -> datetime:
    """1.5 h at 0.1234567 $ on the last evening of February 2026, over midnight; it is noon of 1 March."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    time.offset = noon - datetime.now(UTC)
    consumer = billing.ensure_consumer("me")
    account = billing.Account(uuid.uuid4(), "sess-spent", consumer.id, "vastai", "RTX 4090")
    start = datetime(2026, 2, 28, 23, tzinfo=UTC)
    billing.set_rate(account, "gpu", Decimal("0.1234567"), start)
    billing.settle(account.rental_id, start + timedelta(minutes=90))
    return noon


@pytest.mark.parametrize(
    ("asked", "cost", "hours"),
    [
        ({}, 0.061728, 0.5), ({"period": "monthly"}, 0.061728, 0.5), ({"period": "daily"}, 0.061728, 0.5),
        ({"start_date": "2026-02-28", "end_date": "2026-02-28"}, 0.123457, 1),
        ({"start_date": "2026-02-28", "end_date": "2026-03-01"}, 0.185185, 1.5),
        ({"start_date": "2026-03-02", "end_date": "2026-03-02"}, 0, 0),
    ],
)  # fmt: skip
def test_dates_are_inclusive_and_none_is_this_month(
    spent: datetime, api: Api, asked: dict[str, str], cost: float, hours: float
) -> None:
    answer = api.get("/costs", 200, **asked)
    assert (answer["total_cost"], answer["hours_used"]) == (cost, hours)
    assert answer["by_provider"] == ({"vastai": cost} if cost else {})


def test_the_monthly_summary_is_this_month(spent: datetime, api: Api) -> None:
    assert api.get("/costs/summary") == {**api.get("/costs"), "consumer_id": ""}
    assert api.get("/costs/summary", consumer_id="nobody")["total_cost"] == 0
