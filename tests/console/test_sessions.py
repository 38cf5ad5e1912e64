"""Sessions in the console: found, shown with cost, trouble and proof, and acted on through the services."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing import services as billing
from billing.models import Consumer
from gpubroker.common import clock, sshkeys
from sessions_app.models import ActivitySample, Door, Event, Rental, Session
from sessions_app.session_columns import ssh_command
from sessions_app.states import Debt, EndReason, Status
from tests import invariants
from tests.console.people import person, text
from tests.harness import Api, Driver
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db
LIST = "/admin/sessions_app/session/"
NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)


@pytest.fixture
def noon() -> Iterator[None]:
    with clock.use(lambda: NOW):
        yield


@pytest.fixture
def olga() -> Client:
    return person("operator", name="olga")


def session(number: int, status: Status = Status.RUNNING, **changes: Any) -> Session:
    consumer, _ = Consumer.objects.get_or_create(name=changes.pop("of", "lab"), defaults={"created_at": NOW})
    fields: dict[str, Any] = {"id": f"sess-{number:016}", "offer_id": f"vastai-{number}", "consumer": consumer}
    return make_session(status, **{**fields, **changes})


def shown(client: Client, query: str = "") -> list[str]:
    """The numbers of the sessions in the list, in its order."""
    answer = client.get(f"{LIST}{query}")
    assert answer.status_code == 200
    return [row.pk.removeprefix("sess-").lstrip("0") for row in answer.context["cl"].result_list]


def act(client: Client, action: str, *sessions: Session, **answers: Any) -> Any:
    """Choose them in the list, and (with ``answers``) answer the question."""
    body = {"action": action, "_selected_action": [each.pk for each in sessions], "index": 0}
    return client.post(LIST, {**body, **({"confirmed": "yes"} if answers else {}), **answers}, follow=True)


def log() -> list[tuple[str, str, str]]:
    rows = LogEntry.objects.order_by("id").values_list("user__username", "object_id", "change_message")
    return [(str(who), str(what), said) for who, what, said in rows]


@pytest.mark.usefixtures("noon")
def test_the_list_tells_cost_time_left_and_trouble(olga: Client) -> None:
    fine = session(1, created_at=NOW - timedelta(hours=2), expires_at=NOW + timedelta(minutes=90))
    rental = make_rental(fine, Debt.LIVE)
    account = billing.Account(uuid.UUID(str(rental.id)), fine.id, fine.consumer_id, "vastai", "RTX 4090")
    billing.set_rate(account, "gpu", Decimal("0.4"), NOW - timedelta(hours=2))
    late = session(2, Status.STOPPING, of="shop")
    make_rental(late, Debt.DESTROYING, destroy_requested_at=NOW - timedelta(minutes=6))
    seen = text(olga.get(LIST))
    assert f"{fine.pk} lab running - 1 x RTX 4090 vastai, $0.40/h $0.80 1 h 30 min 2 h 00 min ago" in seen
    assert f"{late.pk} shop stopping destroy not proved 1 x RTX 4090 vastai, $0.40/h $0.00 - 0 s ago" in seen


@pytest.mark.usefixtures("noon")
def test_the_filters(olga: Client) -> None:
    session(1, expires_at=NOW + timedelta(minutes=10))
    session(2, Status.STOPPED, of="shop", gpu_type="H100")
    session(3, Status.PROVISIONING, provider="tensordock", hard_max_at=NOW + timedelta(minutes=50), expires_at=NOW)
    session(4, Status.FAILED, end_reason=EndReason.REFUSED)
    for query, wanted in {
        "?status__exact=running": "1",
        "?consumer=shop": "2",
        "?gpu=H100": "2",
        "?provider=tensordock": "3",
        "?provider=nobody": "",
        "?ending=15": "3 1",
        "?ending=60": "3 1",
        "?ending=oops": "4 3 2 1",
        "?end_reason__exact=refused": "4",
        "?trouble=oops": "4 3 2 1",
    }.items():
        assert sorted(shown(olga, query), reverse=True) == wanted.split(), query


@pytest.mark.usefixtures("noon")
def test_who_is_in_trouble(olga: Client) -> None:
    long_ago = NOW - timedelta(minutes=6)
    session(1, expires_at=long_ago)
    make_rental(session(2, Status.STOPPING), Debt.DESTROYING, destroy_requested_at=long_ago)
    make_rental(session(3, Status.STOPPING), Debt.DESTROYING, destroy_requested_at=NOW, destroy_failures=1)
    make_rental(session(4), Debt.LIVE, door=Door.LOCKED)
    make_rental(session(5), Debt.LIVE, missing_listings=1)
    make_rental(session(6, Status.PENDING), Debt.UNKNOWN)
    make_rental(session(7), Debt.LIVE)
    make_rental(None, Debt.DESTROYING, destroy_requested_at=long_ago)
    for name, wanted in {
        "past_end": "1", "unproved": "2", "refused": "3", "door": "4", "missing": "5", "unknown": "6",
        "any": "6 5 4 3 2 1",
    }.items():  # fmt: skip
        assert sorted(shown(olga, f"?trouble={name}"), reverse=True) == wanted.split(), name


@pytest.mark.usefixtures("noon")
def test_the_search(olga: Client) -> None:
    first = session(1, of="deep-lab")
    make_rental(first, Debt.LIVE, label="gpb-testdep-x-1", instance_id="778899")
    session(2, of="shop")
    for term, wanted in {
        first.pk: "1", "sess-0": "2 1", "deep": "1", "vastai-2": "2", "778899": "1", "gpb-testdep-x-1": "1",
        "nothing": "", " shop ": "2", "%": "", "'": "",
    }.items():  # fmt: skip
        answer = olga.get(LIST, {"q": term})
        found = [row.pk.removeprefix("sess-").lstrip("0") for row in answer.context["cl"].result_list]
        assert sorted(found, reverse=True) == wanted.split(), term


def test_no_row_of_a_list_costs_a_query(olga: Client) -> None:
    pages = [f"/admin/sessions_app/{name}/" for name in ("session", "rental", "event", "activitysample")]
    counts: list[list[int]] = []
    for first, last in ((1, 3), (3, 30)):
        for number in range(first, last):
            one = session(number, of=f"consumer-{number}")
            rental = make_rental(one, Debt.LIVE)
            account = billing.Account(uuid.UUID(str(rental.id)), one.id, one.consumer_id, "vastai", "RTX 4090")
            billing.set_rate(account, "gpu", Decimal("0.4"), clock.now())
            Event.objects.create(session=one, rental=rental, kind="note", at=clock.now())
            ActivitySample.objects.create(session=one, at=clock.now())
        counts.append([])
        for page in pages:
            with CaptureQueriesContext(connection) as queries:
                assert olga.get(page).status_code == 200
            counts[-1].append(len(queries))
    assert counts[0] == counts[1]


def test_a_page_has_attempts_with_their_proof_and_the_timeline(olga: Client) -> None:
    one = session(1, Status.STOPPED, end_reason=EndReason.DONE)
    first = make_rental(
        one, Debt.CLOSED, attempt=1, failure="boot_failed", failure_message="it would not start",
        proof={"call": "get instance 77", "answer": "gone", "at": "2026-11-15T12:00:00+00:00", "empty": None},
    )  # fmt: skip
    Event.objects.create(
        session=one, rental=first, kind="rental", from_state="destroying", to_state="closed", reason="gone",
        at=datetime(2026, 11, 15, 11, 59, 58, tzinfo=UTC), actor="staff:ann",
    )  # fmt: skip
    seen = text(olga.get(f"{LIST}{one.pk}/change/"))
    assert f"1. {first.label} closed proved: nothing is billed;" in seen
    assert "boot_failed: it would not start" in seen
    assert "Proof: call get instance 77; answer gone; at 2026-11-15T12:00:00+00:00" in seen
    assert "rental destroying → closed 2026-11-15 11:59:58 gone, by staff:ann" in seen


def test_no_secret_stands_on_a_page(olga: Client) -> None:
    one = session(1, agent_token_hash="hash-of-token", agent_token_sealed="sealed-token")
    rental = make_rental(one, Debt.LIVE, broker_key_sealed="sealed-key")
    for path in (f"{LIST}{one.pk}/change/", f"/admin/sessions_app/rental/{rental.pk}/change/", LIST):
        page = olga.get(path)
        assert page.status_code == 200
        for secret in ("hash-of-token", "sealed-token", "sealed-key"):
            assert secret not in page.content.decode()


def test_the_ssh_command_is_one_word_per_word() -> None:
    one = session(1, ssh_host="1.2.3.4", ssh_port=2222, ssh_user="root")
    assert ssh_command(one) == "ssh -p 2222 root@1.2.3.4"
    one.ssh_host = "x; reboot"
    assert ssh_command(one) == "ssh -p 2222 'root@x; reboot'"
    one.status = Status.STOPPING
    assert ssh_command(one) == ""


def test_the_page_offers_what_fits_and_to_nobody_else(olga: Client) -> None:
    running, over = session(1), session(2, Status.STOPPED)
    buttons = text(olga.get(f"{LIST}{running.pk}/change/")).split("Attempts")[0]
    for word in ("Extend", "Done", "Hard maximum", "Rekey", "Destroy"):
        assert f" {word} " in buttons
    assert "Retry now" not in buttons
    assert 'id="actions"' not in olga.get(f"{LIST}{over.pk}/change/").content.decode()
    assert 'id="actions"' not in person("viewer").get(f"{LIST}{running.pk}/change/").content.decode()


def test_destroy_wants_its_word_and_then_destroys_all_that_were_chosen(olga: Client) -> None:
    first, second, other = session(1), session(2), session(3)
    rental = make_rental(first, Debt.LIVE)
    before = invariants.digest()
    question = text(act(olga, "destroy", first, second))
    assert "Destroy 2 sessions" in question
    assert f"{first.pk}: running, 1 x RTX 4090 at vastai for lab" in question
    for wrong in ("", "destroy", "destroy 3", "Destroy 2", "destroy 2 "):
        again = text(act(olga, "destroy", first, second, confirm_typed=wrong))
        assert "Type “destroy 2”, exactly so; nothing was changed." in again
    assert (invariants.digest(), log()) == (before, [])
    assert "Destroy: 2 sessions." in text(act(olga, "destroy", first, second, confirm_typed="destroy 2"))
    assert Session.objects.get(pk=first.pk).status == Status.STOPPING
    assert Rental.objects.get(pk=rental.pk).state == Debt.DESTROYING
    assert Session.objects.get(pk=second.pk).status == Status.STOPPED
    assert Session.objects.get(pk=other.pk).status == Status.RUNNING
    told = Event.objects.filter(session=first, to_state="stopping").get()
    assert (told.actor, told.reason) == ("staff:olga", "deleted by staff")
    assert log() == [("olga", first.pk, "destroy asked for"), ("olga", second.pk, "destroy asked for")]


def test_one_that_is_refused_keeps_no_other_from_it(olga: Client) -> None:
    over, running = session(1, Status.STOPPED), session(2)
    seen = text(act(olga, "done", over, running, confirm_typed="done 2"))
    assert f"session {over.pk} is already stopped" in seen
    assert f"{running.pk}: said to be done." in seen
    assert log() == [("olga", running.pk, "said to be done")]


def test_a_kept_disk_may_be_destroyed_and_nothing_twice(olga: Client) -> None:
    kept, ending = session(1, Status.STOPPED, storage_policy="preserve"), session(2, Status.STOPPING)
    disk = make_rental(kept, Debt.PRESERVED)
    make_rental(ending, Debt.DESTROYING, destroy_requested_at=clock.now())
    assert f"{LIST}{kept.pk}/destroy/" in olga.get(f"{LIST}{kept.pk}/change/").content.decode()
    assert f"{LIST}{ending.pk}/destroy/" not in olga.get(f"{LIST}{ending.pk}/change/").content.decode()
    seen = text(act(olga, "destroy", kept, ending, confirm_typed="destroy 2"))
    assert f"session {ending.pk} is already stopping" in seen
    assert Rental.objects.get(pk=disk.pk).state == Debt.DESTROYING
    assert log() == [("olga", kept.pk, "destroy asked for")]


def test_too_many_at_once_are_none(olga: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions_app.session_actions.MOST", 1)
    before = invariants.digest()
    seen = text(act(olga, "destroy", session(1), session(2), confirm_typed="destroy 2"))
    assert "At most 1 sessions at once; nothing was changed." in seen
    assert Session.objects.filter(status=Status.RUNNING).count() == 2
    assert before != invariants.digest()  # the two sessions themselves
    assert log() == []


@pytest.mark.usefixtures("noon")
def test_extend_goes_as_far_as_the_hard_maximum(olga: Client) -> None:
    one = session(1)
    address = f"{LIST}{one.pk}/extend/"
    assert "Extend sess-" in text(olga.get(address))
    wrong = text(olga.post(address, {"confirmed": "yes", "hours": "0"}))
    assert "Ensure this value is greater than or equal to 1." in wrong
    assert Session.objects.get().expires_at == one.expires_at
    seen = text(olga.post(address, {"confirmed": "yes", "hours": "3"}, follow=True))
    assert f"{one.pk}: extended by 3 h, to 2026-11-15T16:00:00Z." in seen
    assert Session.objects.get().expires_at == one.expires_at + timedelta(hours=3)
    refused = text(olga.post(address, {"confirmed": "yes", "hours": "9"}, follow=True))
    assert "the latest allowed end is 2026-11-16T00:00:00Z" in refused
    assert log() == [("olga", one.pk, "extended by 3 h, to 2026-11-15T16:00:00Z")]


@pytest.mark.usefixtures("noon")
def test_the_hard_maximum_moves_with_a_reason(olga: Client) -> None:
    one = session(1)
    address = f"{LIST}{one.pk}/hard-maximum/"
    assert 'value="2026-11-16T00:00"' in olga.get(address).content.decode()
    wrong = text(olga.post(address, {"confirmed": "yes", "until": "2026-11-17T12:00", "reason": ""}))
    assert "This field is required." in wrong
    assert Session.objects.get().hard_max_at == one.hard_max_at
    olga.post(address, {"confirmed": "yes", "until": "2026-11-17T12:00", "reason": "a long run"})
    after = Session.objects.get()
    assert (after.hard_max_at, after.hard_max_reason) == (datetime(2026, 11, 17, 12, tzinfo=UTC), "a long run")
    assert log() == [("olga", one.pk, "hard maximum set to 2026-11-17T12:00:00Z: a long run")]


@pytest.mark.usefixtures("noon")
def test_retry_now_makes_due_what_waits_and_no_more(olga: Client) -> None:
    later = NOW + timedelta(minutes=1)
    one = session(1, Status.STOPPING)
    rental = make_rental(one, Debt.DESTROYING, next_check_at=later, destroy_failures=5)
    waiting = session(2, Status.PENDING, auto_retry=True, next_check_at=later)
    make_rental(waiting, Debt.CLOSED, failure="boot_failed")
    creating = session(3, Status.PENDING, auto_retry=True, next_check_at=later)
    lost = make_rental(creating, Debt.UNKNOWN, next_check_at=later)
    seen = text(act(olga, "retry", one, waiting, creating, confirmed="yes"))
    assert "Retry now: 2 sessions." in seen
    assert f"session {creating.pk} is pending and waits for no next try" in seen
    assert Rental.objects.get(pk=rental.pk).next_check_at == NOW
    assert Session.objects.get(pk=waiting.pk).next_check_at == NOW
    # A create whose answer was lost is looked up at its own pace (I2).
    assert Rental.objects.get(pk=lost.pk).next_check_at == later
    assert Session.objects.get(pk=creating.pk).next_check_at == later
    assert list(Event.objects.filter(kind="hurried").values_list("session_id", "reason", "actor")) == [
        (one.pk, f"tried again now: destroy of {rental.label}", "staff:olga"),
        (waiting.pk, "tried again now: the next attempt", "staff:olga"),
    ]


def test_a_session_that_is_not_there_is_said_so(olga: Client) -> None:
    seen = text(olga.get(f"{LIST}sess-none/destroy/", follow=True))
    assert "There is no session sess-none." in seen


def test_a_machine_gets_another_key_and_is_destroyed_for_good(
    market: SandboxProcess, api: Api, driver: Driver, olga: Client
) -> None:
    """Against the marketplace: the service's calls happen, and the proof is on the page."""
    one = api.create(ssh_key_type="ed25519")["session"]["id"]
    driver.until_status(one, Status.RUNNING)
    pair = sshkeys.generate("ed25519", comment="new")
    address = f"{LIST}{one}/rekey/"
    wrong = text(olga.post(address, {"confirmed": "yes", "public_key": "no key"}))
    assert "Replace the key of" in wrong
    seen = text(olga.post(address, {"confirmed": "yes", "public_key": pair.public}, follow=True))
    assert "the old key was taken off" in seen
    assert Session.objects.get().ssh_public_key == pair.public
    assert "Copy SSH command" in seen
    olga.post(f"{LIST}{one}/destroy/", {"confirmed": "yes", "confirm_typed": "destroy"})
    driver.until_status(one, Status.STOPPED)
    assert market.alive() == []
    assert "Proof: call" in text(olga.get(f"{LIST}{one}/change/"))
    assert [said.split(" ")[0] for _, _, said in log()] == ["key", "destroy"]
