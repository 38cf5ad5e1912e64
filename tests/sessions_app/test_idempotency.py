"""``Idempotency-Key``: the same request twice is one request, through races and crashes."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections

from gpubroker.common import clock, idempotency
from gpubroker.common.models import IdempotencyRecord
from sessions_app import drive
from sessions_app.models import Event, Rental, Session
from sessions_app.states import Status
from tests.harness import Api, BackgroundDriver, Driver, MovableClock, cheapest_offer, offers_on_different_machines
from tests.interleave import before_sql
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_session

KEY: dict[str, Any] = {"Idempotency-Key": "k-1"}


@pytest.fixture
def one_offer(sandbox: SandboxProcess, db: None) -> str:
    apply([row("1"), row("2", machine_id="8")])
    return "vastai-1"


def body(offer: str, **changes: Any) -> dict[str, Any]:
    return {
        "consumer_id": "my-application", "offer_id": offer, "workload_type": "llm", "reservation_hours": 2,
        "ssh_key_type": "ed25519", **changes,
    }  # fmt: skip


def create(api: Api, offer: str, status: int = 201, key: str = "k-1", **changes: Any) -> Any:
    return api.post("/sessions", body(offer, **changes), status, **{"Idempotency-Key": key, "Prefer": "wait=0"})


def test_the_same_create_twice_is_one_session_with_one_key_pair(api: Api, one_offer: str) -> None:
    first = create(api, one_offer)
    again = create(api, one_offer)
    assert again == first
    assert first["ssh_private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert (Session.objects.count(), Rental.objects.count(), IdempotencyRecord.objects.count()) == (1, 1, 1)


def test_a_replay_says_that_it_is_one(api: Api, one_offer: str) -> None:
    headers = {**KEY, "Prefer": "wait=0"}
    answers = [
        api.client.post("/api/v1/sessions", body(one_offer), content_type="application/json", headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]


def test_the_answer_does_not_change_with_the_session(market: SandboxProcess, api: Api, driver: Driver) -> None:
    offer = cheapest_offer()
    first = create(api, offer)
    driver.until_status(first["session"]["id"], "running")
    assert create(api, offer) == first


def test_same_key_with_another_body_is_409(api: Api, one_offer: str) -> None:
    first = create(api, one_offer)
    for changes in ({"reservation_hours": 3}, {"offer_id": "vastai-2"}, {"disk_gb": 60}):
        answer = create(api, one_offer, 409, **changes)
        assert answer["error_type"] == "idempotency_key_reused"
    other_path = api.post(f"/sessions/{first['session']['id']}/done", None, 409, **KEY)
    assert other_path["error_type"] == "idempotency_key_reused"
    assert Session.objects.get().status == "pending"


def test_key_order_and_spaces_are_the_same_body(api: Api, one_offer: str) -> None:
    first = create(api, one_offer)
    backwards = dict(reversed(body(one_offer).items()))
    assert api.post("/sessions", backwards, 201, **KEY) == first


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel", "tab\there", "nul\x00"])
@pytest.mark.parametrize("path", ["/sessions", "/sessions/estimate"])
def test_bad_keys(api: Api, one_offer: str, path: str, key: str) -> None:
    answer = api.post(path, body(one_offer), 400, **{"Idempotency-Key": key})
    assert answer["field"] == "Idempotency-Key"
    assert not Session.objects.exists()
    assert not IdempotencyRecord.objects.exists()


def test_the_longest_key(api: Api, one_offer: str) -> None:
    assert create(api, one_offer, key="~" * 255) == create(api, one_offer, key="~" * 255)


def test_the_private_key_is_kept_sealed_and_shortly(api: Api, one_offer: str, time: MovableClock) -> None:
    first = create(api, one_offer)
    stored = str([list(model.objects.values()) for model in (Session, Rental, Event, IdempotencyRecord)])
    assert first["ssh_private_key"] not in stored
    assert "PRIVATE KEY" not in stored
    time.advance(minutes=9, seconds=59)
    assert create(api, one_offer) == first
    time.advance(seconds=2)
    later = create(api, one_offer)
    assert "ssh_private_key" not in later
    assert later == {"session": first["session"], "note": idempotency.GONE[idempotency.PRIVATE_KEY]}
    assert IdempotencyRecord.objects.get().secret_sealed != ""
    drive._purge()
    time.advance(seconds=31)
    drive._purge()
    record = IdempotencyRecord.objects.get()
    assert (record.secret_sealed, record.secret_until) == ("", None)
    assert create(api, one_offer) == later


def test_a_day_later_the_key_is_new(api: Api, one_offer: str, time: MovableClock) -> None:
    create(api, one_offer)
    Session.objects.update(status=Status.STOPPED)
    time.advance(hours=24)
    create(api, one_offer)
    assert Session.objects.count() == 2
    time.advance(hours=25)
    idempotency.purge()
    assert not IdempotencyRecord.objects.exists()


def test_a_refused_request_keeps_no_record(api: Api, one_offer: str) -> None:
    assert create(api, "vastai-77", 404)["error"] == "offer vastai-77 not found"
    assert not IdempotencyRecord.objects.exists()
    create(api, one_offer)
    create(api, one_offer, 409, key="k-2")
    assert IdempotencyRecord.objects.count() == 1


def test_a_crash_between_commit_and_answer_is_made_good(api: Api, one_offer: str) -> None:
    """The session is committed; then the process dies before it could answer. The private key is not lost."""

    def crash() -> None:
        raise OperationalError("as if the process were killed here")

    with before_sql(r"SELECT .+sessions_app_session.+NOT .+status", crash) as happened:
        create(api, one_offer, 503)
    assert happened
    record = IdempotencyRecord.objects.get()
    assert (record.status_code, record.subject) == (None, Session.objects.get().id)
    busy = create(api, one_offer, 409)  # within the lease its maker may still be alive
    assert busy["error_type"] == "idempotency_in_progress"
    IdempotencyRecord.objects.update(lease_until=clock.now() - timedelta(seconds=1))
    answer = create(api, one_offer)
    assert answer["session"]["id"] == Session.objects.get().id
    assert answer["ssh_private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert create(api, one_offer) == answer
    assert Session.objects.count() == 1


def test_after_a_crash_the_verdict_is_enough(market: SandboxProcess, api: Api, driver: Driver) -> None:
    """No waiting for the lease when the session itself says how it went."""

    def crash() -> None:
        raise OperationalError("killed")

    offer = cheapest_offer()
    with before_sql(r"SELECT .+sessions_app_session.+NOT .+status", crash):
        create(api, offer, 503)
    driver.until_status(Session.objects.get().id, "running")
    assert create(api, offer)["session"]["status"] == "running"


def test_a_crash_before_the_commit_leaves_nothing(api: Api, one_offer: str) -> None:
    def crash() -> None:
        raise OperationalError("killed")

    with before_sql(r"INSERT INTO .sessions_app_rental", crash) as happened:
        create(api, one_offer, 503)
    assert happened
    assert not IdempotencyRecord.objects.exists()
    assert not Session.objects.exists()
    create(api, one_offer)


def test_a_failed_launch_is_answered_the_same_again(market: SandboxProcess, api: Api, driver: Driver) -> None:
    offer = cheapest_offer()
    market.fault("offer_gone")
    create(api, offer)
    IdempotencyRecord.objects.update(status_code=None, answer_sealed="")
    driver.until_status(Session.objects.get().id, "failed")
    first, again = create(api, offer, 503), create(api, offer, 503)
    assert first.pop("request_id") != again.pop("request_id")
    assert first == again
    assert (first["error_type"], first["offer_id"]) == ("stale_inventory", offer)
    assert "ssh_private_key" not in first


@pytest.mark.django_db
def test_extend_twice_is_one_extension(api: Api) -> None:
    session = make_session(Status.RUNNING)
    path, hours = f"/sessions/{session.id}/extend", {"additional_hours": 2}
    first = api.post(path, hours, **KEY)
    assert api.post(path, hours, **KEY) == first
    assert Session.objects.get().expires_at == session.expires_at + timedelta(hours=2)
    assert api.post(path, {"additional_hours": 3}, 409, **KEY)["error_type"] == "idempotency_key_reused"
    assert Event.objects.filter(kind="extended").count() == 1


@pytest.mark.django_db
def test_a_crash_while_extending_leaves_both_or_neither(api: Api) -> None:
    session = make_session(Status.RUNNING)
    path, hours = f"/sessions/{session.id}/extend", {"additional_hours": 2}

    def crash() -> None:
        raise OperationalError("killed")

    with before_sql(r"UPDATE .common_idempotencyrecord", crash) as happened:
        api.post(path, hours, 503, **KEY)
    assert happened
    assert Session.objects.get().expires_at == session.expires_at
    assert not IdempotencyRecord.objects.exists()
    api.post(path, hours, **KEY)
    assert Session.objects.get().expires_at == session.expires_at + timedelta(hours=2)


@pytest.mark.django_db
def test_done_again_after_the_end_is_the_same_answer(api: Api) -> None:
    session = make_session(Status.RUNNING)
    first = api.post(f"/sessions/{session.id}/done", **KEY)
    assert Session.objects.get().status == "stopped"
    assert api.post(f"/sessions/{session.id}/done", **KEY) == first
    api.post(f"/sessions/{session.id}/done", status=409)


def test_an_estimate_again_is_the_same_although_prices_changed(api: Api, one_offer: str) -> None:
    first = api.post("/sessions/estimate", body(one_offer), **KEY)
    apply([row("1", price_per_hour=row("1").price_per_hour * 2)])
    assert api.post("/sessions/estimate", body(one_offer), **KEY) == first
    assert api.post("/sessions/estimate", body(one_offer)) != first


def _at_once(offer: str, count: int, **headers: str) -> list[Any]:
    answers: list[Any] = []
    together = threading.Barrier(count)

    def ask() -> None:
        try:
            together.wait(10)
            answer = Api().client.post(
                "/api/v1/sessions", body(offer), content_type="application/json", headers={**KEY, **headers}
            )
            answers.append((answer.status_code, answer.json()))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_requests_at_once_make_exactly_one_session(market_with_threads: SandboxProcess) -> None:
    offer = cheapest_offer()
    with BackgroundDriver():
        answers = _at_once(offer, 6, Prefer="wait=20")
    assert [status for status, _ in answers] == [201] * 6
    assert all(answer == answers[0][1] for _, answer in answers)
    assert (Session.objects.count(), Rental.objects.count(), IdempotencyRecord.objects.count()) == (1, 1, 1)
    assert len(market_with_threads.ledger()) == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_requests_at_once_that_cannot_wait_are_told_to_ask_again(market_with_threads: SandboxProcess) -> None:
    """Nobody drives: the verdict does not come. The first is answered ``pending``, nobody makes a second session."""
    answers = _at_once(offers_on_different_machines(1)[0], 4, Prefer="wait=0")
    assert {status for status, _ in answers} <= {201, 409}
    assert 201 in {status for status, _ in answers}
    assert {answer["error_type"] for status, answer in answers if status == 409} <= {"idempotency_in_progress"}
    assert Session.objects.count() == 1
