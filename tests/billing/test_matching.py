"""Provider charges: fetched once each however often, matched to rentals, and what does not agree is told."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import charges, matching, services
from billing.models import BillFinding, ChargeFetch, MeterSegment, ProviderCharge
from gpubroker.common import clock
from gpubroker.common import providers as configured
from providers.extras import Charge, ChargeItem
from sessions_app import charge_matching
from sessions_app.models import Event, Rental
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import DEFAULT_TENSORDOCK_TOKEN, SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Ticking:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def now() -> Any:
    """A clock that stands still until it is set."""
    ticking = Ticking(NOON)
    with clock.use(ticking):
        yield ticking


def charge(machine: str, amount: str, start: datetime = NOON, hours: float = 1, label: str = "", **more: Any) -> Charge:
    end = start + timedelta(hours=hours)
    return Charge(f"instance-{machine}", machine, label, "1x RTX 4090", Decimal(amount), start, end, **more)


def metered(machine: str, rate: str = "1", start: datetime = NOON, hours: float | None = 1) -> Rental:
    """A rental with a GPU at that many dollars an hour."""
    session = make_session(id=f"sess-{machine}", offer_id=f"vastai-{machine}")
    rental = make_rental(session, Debt.LIVE, instance_id=machine, label=f"gpb-testdep-{machine.rjust(16, 'a')}-1")
    account = services.Account(rental.id, session.id, session.consumer_id, "vastai", "RTX 4090")
    services.set_rate(account, "gpu", Decimal(rate), start)
    if hours is not None:
        services.settle(rental.id, start + timedelta(hours=hours))
    return rental


def covered(until: datetime, first: date = date(2026, 3, 1)) -> None:
    ChargeFetch.objects.update_or_create(
        provider="vastai", defaults={"next_at": until, "covered_from": first, "covered_until": until}
    )


def compared(since: datetime = NOON - timedelta(days=3)) -> list[Any]:
    charge_matching.assign("vastai", since)
    matching.compare("vastai", since)
    rows = BillFinding.objects.order_by("kind", "subject")
    return [(row.kind, row.session_id or row.instance_id, row.ours, row.theirs, row.state) for row in rows]


# -- fetching ----------------------------------------------------------------------------------------------


def run_to_the_end() -> int:
    """Steps of one run."""
    steps = 0
    while charges.claim_due():
        charge_matching.step("vastai")
        steps += 1
    return steps


def test_every_charge_once(market: SandboxProcess, api: Api, driver: Driver, time: MovableClock) -> None:
    session_id = api.create(reservation_hours=3)["session"]["id"]
    driver.until_metered(session_id)
    time.advance(hours=2)
    market.advance(7200)
    first = charges.ask("vastai")
    days = (clock.now().date() - first).days + 1
    assert days == charges.FIRST_DAYS + 1
    assert run_to_the_end() == days
    before = list(ProviderCharge.objects.order_by("id").values_list("key", "amount", "rental_id"))
    assert {rental for _, _, rental in before} == {Rental.objects.get().id}
    fetch = ChargeFetch.objects.get()
    assert (fetch.day, fetch.covered_from, fetch.error, fetch.offered) == (None, first, "", True)
    assert fetch.completed_at == fetch.covered_until
    assert charges.claim_due() == []
    # Again, while it runs: the same charges, grown.
    charges.ask("vastai")
    assert run_to_the_end() == charges.LATE_DAYS + 1
    again = list(ProviderCharge.objects.order_by("id").values_list("key", "amount", "rental_id"))
    assert [row[0] for row in again] == [row[0] for row in before]
    assert all(now_is >= was for (_, was, _), (_, now_is, _) in zip(before, again, strict=True))
    api.post(f"/sessions/{session_id}/done")
    driver.until_status(session_id, "stopped")
    charges.ask("vastai")
    run_to_the_end()
    bill = Decimal(str(market.ledger()[0]["total_dollars"]))
    charged = sum(ProviderCharge.objects.values_list("amount", flat=True), Decimal(0))
    assert charged == pytest.approx(bill, abs=Decimal("0.003"))
    assert not BillFinding.objects.exists()
    time.advance(days=1)
    assert charges.claim_due() == ["vastai"]


def test_a_failure_is_told_and_tried_again(market: SandboxProcess, time: MovableClock) -> None:
    charges.ask("vastai", clock.now().date())
    market.fault("error_5xx", operation="charges", times=2)
    assert charges.claim_due() == ["vastai"]
    charge_matching.step("vastai")
    fetch = ChargeFetch.objects.get()
    assert (fetch.failures_in_a_row, fetch.completed_at) == (1, None)
    assert "vastai charges" in fetch.error
    assert charges.claim_due() == []
    market.clear_faults()
    time.advance(seconds=61)
    assert run_to_the_end() == 1
    fetch.refresh_from_db()
    assert (fetch.failures_in_a_row, fetch.error) == (0, "")
    assert fetch.completed_at is not None


def test_a_provider_that_tells_no_charges(market: SandboxProcess, settings: Any, api: Api) -> None:
    settings.TENSORDOCK_API_TOKEN = DEFAULT_TENSORDOCK_TOKEN
    settings.TENSORDOCK_BASE_URL = market.tensordock_url
    configured.configured.cache_clear()
    assert sorted(charges.claim_due()) == ["tensordock", "vastai"]
    charge_matching.step("tensordock")
    page = api.get("/providers/tensordock/findings")
    assert (page["findings"], page["fetch"]["offered"]) == ([], False)
    assert page["fetch"]["error"] == "this provider tells no charges"
    answer = api.post("/providers/tensordock/charges/fetch", {}, 501)
    assert answer["error_type"] == "not_supported"


def test_a_transport_that_has_no_charges(market: SandboxProcess, settings: Any) -> None:
    settings.VASTAI_API_KEY = ""
    settings.VASTAI_TRANSPORT = "lowcodeapi"
    settings.LOWCODEAPI_API_TOKEN = "at_sandbox-key"
    settings.LOWCODEAPI_BASE_URL = f"{market.url}/lowcodeapi/vastai"
    configured.configured.cache_clear()
    assert charges.claim_due() == ["vastai"]
    charge_matching.step("vastai")
    fetch = ChargeFetch.objects.get()
    assert (fetch.offered, fetch.day, fetch.failures_in_a_row) == (False, None, 0)
    assert fetch.error != ""


def test_charges_told_in_parts_and_again(now: Ticking) -> None:
    traffic = (ChargeItem("bwd", "10 GB", Decimal("0.2")), ChargeItem("gpu", "1 hour", Decimal("0.5")))
    charges.keep("vastai", [charge("1", "0.7", items=traffic), charge("1", "0.1", hours=2), charge("2", "5")])
    rows = {row.key: row for row in ProviderCharge.objects.all()}
    one = rows[f"instance-1:{int(NOON.timestamp())}"]
    assert (one.amount, one.traffic, one.ends_at) == (Decimal("0.8"), Decimal("0.2"), NOON + 2 * HOUR)
    charges.keep("vastai", [charge("1", "0.9", hours=3)])
    one.refresh_from_db()
    assert (one.amount, one.traffic, one.ends_at) == (Decimal("0.9"), Decimal(0), NOON + 3 * HOUR)
    assert ProviderCharge.objects.count() == 2


def test_on_demand(market: SandboxProcess, api: Api) -> None:
    today = clock.now().date()
    answer = api.post("/providers/vastai/charges/fetch", {"since": today.isoformat()}, 202)
    assert answer == {"message": "charges asked for", "provider": "vastai", "since": today.isoformat()}
    assert api.get("/providers/vastai/findings")["fetch"]["under_way"] is True
    assert run_to_the_end() == 1
    assert api.get("/providers/vastai/findings")["fetch"]["under_way"] is False
    assert Event.objects.get(kind="provider_changed").reason == "charges asked for"
    for since in (today + timedelta(days=1), today - timedelta(days=93)):
        assert api.post("/providers/vastai/charges/fetch", {"since": since.isoformat()}, 400)["field"] == "since"
    assert ChargeFetch.objects.get().day is None


# -- comparing ---------------------------------------------------------------------------------------------


def test_what_agrees_is_not_told(now: Ticking) -> None:
    metered("1")
    metered("2")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "1.009"), charge("2", "0.5"), charge("2", "0.491", NOON + HOUR / 2)])
    assert compared(NOON) == []


def test_over_one_per_cent_is_told(now: Ticking) -> None:
    metered("1")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "1.05")])
    assert compared() == [("difference", "sess-1", Decimal(1), Decimal("1.05"), "open")]
    assert BillFinding.objects.get().why == "4.8 % more than our books up to 2026-03-10T13:00:00Z"
    # It came late, and now they agree.
    charges.keep("vastai", [charge("1", "1")])
    assert compared()[0][4] == "settled"
    charges.keep("vastai", [charge("1", "2")])
    assert compared()[0][3:] == (Decimal(2), "open")
    assert BillFinding.objects.count() == 1


def test_traffic_is_not_compared(now: Ticking) -> None:
    metered("1")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "1.50", items=(ChargeItem("bwu", "50 GB", Decimal("0.5")),))])
    assert compared() == []


def test_a_machine_still_running_is_compared_up_to_the_charges_end(now: Ticking) -> None:
    metered("1", hours=None)
    now.at = NOON + 5 * HOUR
    covered(now.at)
    charges.keep("vastai", [charge("1", "3", hours=3)])
    assert compared() == []
    charges.keep("vastai", [charge("1", "4", hours=3)])
    assert compared() == [("difference", "sess-1", Decimal(3), Decimal(4), "open")]


def test_an_end_later_than_theirs_shows_once_no_more_charges_can_come(now: Ticking) -> None:
    metered("1", hours=2)
    charges.keep("vastai", [charge("1", "1")])
    covered(NOON + 3 * HOUR)
    assert compared() == []
    covered(NOON + 27 * HOUR)
    assert compared() == [("difference", "sess-1", Decimal(2), Decimal(1), "open")]


def test_what_was_before_the_first_day_fetched_is_left_out(now: Ticking) -> None:
    metered("1", start=NOON - 24 * HOUR, hours=25)
    covered(NOON + 30 * HOUR, date(2026, 3, 10))
    charges.keep("vastai", [charge("1", "13", datetime(2026, 3, 10, tzinfo=UTC), 13)])
    assert compared() == []


def test_a_charge_without_a_rental(now: Ticking) -> None:
    covered(NOON + 30 * HOUR)
    labels = {"7": "gpb-testdep-abcdefghijklmnop-1", "8": "gpb-another1-abcdefghijklmnop-1", "9": "a notebook"}
    charges.keep("vastai", [charge(machine, machine, label=label) for machine, label in labels.items()])
    assert compared() == [
        ("unowned", "7", 0, 7, "open"), ("unowned", "8", 0, 8, "explained"), ("unowned", "9", 0, 9, "open"),
    ]  # fmt: skip
    whys = list(BillFinding.objects.order_by("subject").values_list("why", "decided_by"))
    assert whys == [
        ("our label, and no rental in our books: a machine that leaked, or books that were lost", ""),
        ("the label of deployment another1", "broker"),
        ("no label of ours: somebody else's machine on this account", ""),
    ]
    # The leaked one is found as an orphan: its rental is known by its machine.
    make_rental(None, Debt.LIVE, instance_id="7", origin="orphan")
    assert [row[4] for row in compared() if row[:2] == ("unowned", "7")] == ["settled"]


def test_strangers_are_not_read_again_and_again(now: Ticking) -> None:
    """What was told of them stays, with what it came to; a stranger who is charged again is added up as a whole."""
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge(machine, "7", label="a notebook") for machine in ("7", "8")])
    compared()
    finding = BillFinding.objects.get(subject="instance-8")
    assert matching.decide(finding, "explained", "staff:ann") is True
    now.at = NOON + timedelta(days=40)
    charges.keep("vastai", [charge("7", "2", NOON + timedelta(days=39))])
    later = NOON + timedelta(days=37)
    assert [row.instance_id for row in matching.unassigned("vastai", later)] == ["7"]
    assert compared(later) == [("unowned", "7", 0, 9, "open"), ("unowned", "8", 0, 7, "explained")]
    # An orphan that is found by then has its older charges, too.
    make_rental(None, Debt.LIVE, instance_id="8", origin="orphan", created_at=now.at)
    assert compared(later)[-1][4] == "settled"
    assert ProviderCharge.objects.filter(rental_id__isnull=False).count() == 1


def test_a_machine_is_known_by_its_label_where_the_id_is_not(now: Ticking) -> None:
    """The create's answer was lost, and the machine died before it was found."""
    rental = make_rental(make_session(), Debt.CLOSED)
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("77", "0.5", label=rental.label)])
    assert compared() == [("difference", "77", 0, Decimal("0.5"), "open")]
    assert ProviderCharge.objects.get().rental_id == rental.id


def test_of_two_rentals_of_one_machine_the_one_that_had_it_then(now: Ticking) -> None:
    first = make_rental(make_session(), Debt.CLOSED, instance_id="5", created_at=NOON - HOUR)
    second = make_rental(None, Debt.LIVE, instance_id="5", created_at=NOON + HOUR, origin="orphan")
    charges.keep("vastai", [charge("5", "1"), charge("5", "2", NOON + 2 * HOUR), charge("5", "3", NOON - 5 * HOUR)])
    charge_matching.assign("vastai", NOON - HOUR)
    found = dict(ProviderCharge.objects.values_list("amount", "rental_id"))
    assert found == {Decimal(1): first.id, Decimal(2): second.id, Decimal(3): first.id}


def test_a_rental_without_a_charge(now: Ticking) -> None:
    metered("1")
    metered("2", "0.001")
    covered(NOON + 23 * HOUR)
    assert compared() == []
    covered(NOON + 25 * HOUR)
    assert compared() == [("missing", "sess-1", Decimal(1), 0, "open")]
    charges.keep("vastai", [charge("1", "1")])
    assert [row[4] for row in compared()] == ["settled"]


def test_nothing_is_missed_where_nothing_was_fetched(now: Ticking) -> None:
    metered("1")
    ChargeFetch.objects.create(provider="vastai", next_at=NOON, offered=False)
    assert compared() == []


def test_explained_opens_again_when_it_drifts_and_ignored_does_not(now: Ticking) -> None:
    metered("1")
    metered("2")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "2"), charge("2", "2")])
    compared()
    one, two = BillFinding.objects.order_by("session_id")
    assert matching.decide(one, "explained", "staff:ann") is True
    assert matching.decide(two, "ignored", "staff:bob") is True
    assert [row[4] for row in compared()] in (["explained", "ignored"], ["ignored", "explained"])
    one.refresh_from_db()
    assert (one.state, one.decided_by, one.decided_gap, one.decided_at) == ("explained", "staff:ann", Decimal(1), NOON)
    charges.keep("vastai", [charge("1", "3"), charge("2", "3")])
    compared()
    states = dict(BillFinding.objects.values_list("session_id", "state"))
    assert states == {"sess-1": "open", "sess-2": "ignored"}
    charges.keep("vastai", [charge("1", "1"), charge("2", "1")])
    compared()
    states = dict(BillFinding.objects.values_list("session_id", "state"))
    assert states == {"sess-1": "settled", "sess-2": "ignored"}
    one.refresh_from_db()
    assert matching.decide(one, "ignored", "staff:ann") is False
    one.refresh_from_db()
    assert one.state == "settled"


def test_the_list_has_the_largest_first_and_can_be_filtered(now: Ticking, sandbox: SandboxProcess, api: Api) -> None:
    metered("1")
    metered("2")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "3"), charge("9", "5", label="x")])
    compared()
    page = api.get("/providers/vastai/findings")
    assert [(row["kind"], row["ours"], row["theirs"]) for row in page["findings"]] == [
        ("unowned", 0, 5), ("difference", 1, 3), ("missing", 1, 0),
    ]  # fmt: skip
    assert (page["count"], page["total"], page["findings"][1]["session_id"]) == (3, 3, "sess-1")
    only = api.get("/providers/vastai/findings", kind="missing", state="open", limit=1)
    assert [row["session_id"] for row in only["findings"]] == ["sess-2"]
    assert api.get("/providers/vastai/findings", 400, state="odd")["field"] == "state"
    assert api.get("/providers/nobody/findings", 404)["provider"] == "nobody"


def test_many_rentals_take_few_queries(now: Ticking, django_assert_max_num_queries: Any) -> None:
    consumer = services.ensure_consumer("me").pk
    rentals = [uuid.uuid4() for _ in range(600)]
    MeterSegment.objects.bulk_create(
        MeterSegment(
            rental_id=each, session_id="s", consumer_id=consumer, provider="vastai", gpu_type="x", kind="gpu",
            rate_per_hour=1, started_at=NOON, ended_at=NOON + HOUR,
        )
        for each in rentals
    )  # fmt: skip
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge(str(number), "1") for number in range(600)])
    rows = list(ProviderCharge.objects.order_by("id"))
    matching.assign({row.pk: rental for row, rental in zip(rows, rentals, strict=True)})
    with django_assert_max_num_queries(25):
        assert matching.compare("vastai", NOON - 72 * HOUR) == 0


def test_metrics_tell_what_is_open(now: Ticking, sandbox: SandboxProcess) -> None:
    metered("1")
    covered(NOON + 30 * HOUR)
    charges.keep("vastai", [charge("1", "2.5"), charge("9", "5", label="gpb-another1-abcdefghijklmnop-1")])
    compared()
    ChargeFetch.objects.update(completed_at=NOON - HOUR)
    scraped = Client().get("/metrics").content.decode().splitlines()
    assert 'gpu_bill_findings{kind="difference",provider="vastai"} 1.0' in scraped
    assert 'gpu_bill_findings{kind="unowned",provider="vastai"} 0.0' in scraped
    assert 'gpu_bill_difference_dollars{kind="difference",provider="vastai"} 1.5' in scraped
    assert 'gpu_charges_age_seconds{provider="vastai"} 3600.0' in scraped
