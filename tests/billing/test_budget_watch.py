"""A hard budget that does not hold what runs: sessions end earlier, with a warning first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import webhooks
from billing.budget_models import Budget, BudgetPeriod, Reservation
from gpubroker.common.models import Counter
from sessions_app import budget_watch, drive, meter
from sessions_app.extend import extend
from sessions_app.models import Event, Session
from sessions_app.states import Debt, EndReason, Status
from tests.billing import budget_world as world
from tests.billing.budget_world import StoppedClock, boot, budget, counters, end, gone, look, rent, shown
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db
TWO_HOURS = Decimal("2.1875")
FIVE = timedelta(minutes=5)


@pytest.fixture
def time(sandbox: SandboxProcess) -> Iterator[StoppedClock]:
    with world.stopped() as moved:
        world.list_offers()
        yield moved


def fresh(session: Session) -> Session:
    return Session.objects.get(id=session.id)


def events(session: Session, kind: str) -> list[Event]:
    return list(Event.objects.filter(session_id=session.id, kind=kind).order_by("id"))


# -- A limit that was lowered ------------------------------------------------------------------------------------


def test_the_newest_sessions_end_earlier_as_early_as_it_takes(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    sessions = []
    for number in (1, 2, 3):
        sessions.append(rent(number))
        boot(sessions[-1])
        time.advance(minutes=1)
    # 125 minutes each without their margins: 20 of them are left for the third, and one of these is spent.
    budget(monthly_limit=Decimal("4.5"))
    look()
    ends = [fresh(session).expires_at - session.expires_at for session in sessions]
    assert ends[:2] == [timedelta(0), timedelta(0)]
    # To the second, and every promise is rounded up.
    assert fresh(sessions[2]).expires_at == time.at + timedelta(minutes=14, seconds=-1)
    assert [fresh(session).budget_cut_at for session in sessions] == [None, None, time.at]
    assert world.within_limits()


def test_as_many_as_it_takes(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    sessions = [rent(number) for number in (1, 2, 3)]
    for session in sessions:
        boot(session)
        time.advance(seconds=1)
    budget(monthly_limit=Decimal("0.3"))
    look()
    assert [fresh(session).expires_at for session in sessions] == [time.at + FIVE] * 3
    # Thirty minutes are more than the eighteen that there is money for: no limit can be lowered below what is owed.
    assert (shown()["monthly"]["left"], shown()["monthly"]["over"] > 0) == (0, True)
    assert not world.within_limits()
    time.advance(minutes=5)
    for session in sessions:
        drive.drive_session(session.id)
        gone(session)
    assert (shown()["monthly"]["reserved"], counters()[0]) == (0, shown()["monthly"]["spent"])


def test_it_ends_just_when_the_money_does(time: StoppedClock) -> None:
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    budget(monthly_limit=Decimal("1.75"))
    look()
    # An hour is spent; 0.75 are 45 minutes, five of them for the destroy.
    assert fresh(session).expires_at == time.at + timedelta(minutes=40)
    assert counters() == (0, Decimal("1.75"))
    assert world.within_limits()
    cut = events(session, "budget_cut")
    assert [event.reason for event in cut] == ["the consumer's budget is used up: ends at 2026-11-10T13:40:00Z"]
    assert cut[0].details == {
        "before": "2026-11-10T14:00:00Z", "expires_at": "2026-11-10T13:40:00Z", "disk_kept": False,
    }  # fmt: skip
    look()
    assert len(events(session, "budget_cut")) == 1


def test_warned_and_then_ended_for_the_budget(time: StoppedClock) -> None:
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    budget(monthly_limit=1)
    look()
    drive.drive_session(session.id)
    warned = events(session, "ending_soon")
    assert [event.details for event in warned] == [
        {"ends_at": "2026-11-10T13:05:00Z", "minutes": 5, "seconds_left": 300, "because": "budget"}
    ]
    time.advance(minutes=4, seconds=59)
    look()
    drive.drive_session(session.id)
    assert fresh(session).status == Status.RUNNING
    time.advance(seconds=1)
    drive.drive_session(session.id)
    assert (fresh(session).status, fresh(session).end_reason) == (Status.STOPPING, EndReason.BUDGET)
    time.advance(seconds=30)
    gone(session)
    assert fresh(session).status == Status.STOPPED
    assert counters() == ((Decimal(3930) / 3600).quantize(world.MICRO), 0)
    over = shown()["monthly"]
    assert (over["left"], over["over"]) == (0, over["spent"] - 1)


def test_what_does_not_run_yet_ends_at_once(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    asked, made = rent(1), rent(2)
    world.launched(made)
    budget(monthly_limit=Decimal("0.1"))
    look()
    assert (fresh(asked).status, fresh(asked).end_reason) == (Status.STOPPED, EndReason.BUDGET)
    assert (fresh(made).status, fresh(made).end_reason) == (Status.STOPPING, EndReason.BUDGET)
    # Ten minutes are no longer promised than its destroy may take.
    assert counters()[1] == (Decimal(5) / 60).quantize(world.MICRO, "ROUND_UP")
    assert world.within_limits()


def test_an_extension_that_fits_again_takes_it_back(time: StoppedClock) -> None:
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    budget(monthly_limit=Decimal("1.75"))
    look()
    budget(monthly_limit=10)
    extend(session.id, 1)
    assert (fresh(session).budget_cut_at, fresh(session).expires_at) == (None, time.at + timedelta(minutes=100))
    time.advance(minutes=100)
    drive.drive_session(session.id)
    assert fresh(session).end_reason == EndReason.EXPIRED


def test_one_that_ends_within_the_grace_anyway_is_left_alone(time: StoppedClock) -> None:
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(minutes=116)
    budget(monthly_limit=1)
    look()
    assert (fresh(session).expires_at, fresh(session).budget_cut_at) == (session.expires_at, None)


def test_a_soft_budget_ends_nothing(time: StoppedClock) -> None:
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    time.advance(hours=1)
    budget(monthly_limit=1, hard=False)
    look()
    assert fresh(session).expires_at == session.expires_at
    budget(monthly_limit=1)
    look()
    assert fresh(session).expires_at == time.at + FIVE


def test_a_disk_is_kept_as_long_as_the_money_reaches_for_it(time: StoppedClock) -> None:
    budget(monthly_limit=30)
    rich = rent(1, storage_policy="preserve", preserve_hours=10)
    time.advance(seconds=1)  # so that it is clear which is the newest
    poor = rent(2, storage_policy="preserve")
    boot(rich)
    boot(poor)
    time.advance(hours=1)
    held = Decimal(30) - shown()["monthly"]["left"]
    budget(monthly_limit=held - 1)
    look()
    # The newest pays: it ends earlier, and keeps its disk.
    assert (fresh(poor).storage_policy, fresh(poor).expires_at < poor.expires_at) == ("preserve", True)
    budget(monthly_limit=1)
    look()
    assert [fresh(each).storage_policy for each in (rich, poor)] == ["destroy", "destroy"]
    assert events(rich, "budget_cut")[-1].reason.endswith("; its disk will not be kept")
    time.advance(minutes=5)
    drive.drive_session(rich.id)
    assert world.machine(rich).state == Debt.DESTROYING


def test_next_months_limit_too(time: StoppedClock) -> None:
    time.at = time.at.replace(day=30, hour=23)
    world.list_offers()
    budget(monthly_limit=3)
    session = rent(1)
    boot(session)
    budget(monthly_limit=1)
    look()
    # An hour of November fits, and of December an hour with the time of the destroy.
    assert (fresh(session).expires_at, world.within_limits()) == (session.expires_at - FIVE, True)
    budget(monthly_limit=Decimal("0.5"))
    look()
    assert fresh(session).expires_at == time.at + timedelta(minutes=25)


def test_a_month_that_is_over_ends_nothing(time: StoppedClock) -> None:
    """More was spent in November than the budget that is made in December: that is no reason to end what runs."""
    time.at = time.at.replace(day=30, hour=23)
    world.list_offers()
    session = rent(1, hours=4)
    boot(session, gpu=Decimal("9.99"))
    time.advance(hours=1, minutes=30)
    meter.run(world.machine(session), "gpu", world.GPU, time.at)
    budget(monthly_limit=9)
    look()
    assert fresh(session).expires_at == session.expires_at


# -- Prices that rise --------------------------------------------------------------------------------------------


def test_a_price_that_rises_beyond_the_budget_ends_it_earlier(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("2.2"))
    session = rent(1)
    rental = boot(session)
    time.advance(hours=1)
    meter.run(rental, "gpu", Decimal("1.19"), time.at)
    look()
    # 1.20 are left, at 1.20 an hour; five minutes of it for the destroy.
    assert fresh(session).expires_at == time.at + timedelta(minutes=55)
    assert world.within_limits()


def test_where_the_budget_holds_it_it_goes_on(time: StoppedClock) -> None:
    budget(monthly_limit=10)
    session = rent(1)
    rental = boot(session)
    meter.run(rental, "gpu", Decimal("1.49"), time.at + timedelta(seconds=1))
    look()
    assert fresh(session).expires_at == session.expires_at
    assert counters()[1] > TWO_HOURS


# -- A machine that is not gone in time --------------------------------------------------------------------------


def test_what_is_owed_is_counted_whatever_the_limit_and_told(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("2.2"))
    session = rent(1)
    boot(session)
    time.advance(hours=2)
    end(session, EndReason.EXPIRED)
    time.advance(minutes=6)
    look()
    assert (events(session, "budget_overrun"), world.within_limits()) == ([], True)
    time.advance(minutes=5)
    look()
    assert len(events(session, "budget_overrun")) == 1
    assert Counter.objects.get(name="gpu_budget_overruns_total").value == 1
    spent = (Decimal(131) / 60).quantize(world.MICRO)
    monthly = shown()["monthly"]
    assert (monthly["spent"], monthly["left"]) == (spent, 0)
    assert monthly["over"] == monthly["spent"] + monthly["reserved"] - monthly["limit"]
    world.assert_books_agree()
    time.advance(days=2)
    look()
    assert Session.objects.get().status == Status.STOPPING
    time.advance(seconds=10)
    gone(session)
    assert counters() == ((Decimal(131 * 60 + 2 * 86_400 + 10) / 3600).quantize(world.MICRO), 0)
    world.assert_books_agree()


def test_it_leaves_others_less(time: StoppedClock) -> None:
    budget(monthly_limit=Decimal("5.5"))
    session, other = rent(1, hours=1), rent(2, hours=4)
    boot(session)
    boot(other)
    start = time.at
    time.advance(hours=1)
    end(session)
    time.advance(minutes=8)
    look()
    assert (len(events(session, "budget_overrun")), fresh(other).expires_at) == (1, other.expires_at)
    time.advance(minutes=30)
    look()
    # 98 minutes are owed, and five more at 1.05: what is left of 5.5 is 226 minutes and 45 seconds, five for a destroy.
    assert fresh(other).expires_at == start + timedelta(minutes=221, seconds=44)
    assert world.within_limits()


# -- Its pace ----------------------------------------------------------------------------------------------------


def test_looked_after_every_few_seconds_by_one_at_a_time(time: StoppedClock) -> None:
    budget(monthly_limit=4)
    assert budget_watch.look_due() == 1
    assert (budget_watch.look_due(), Budget.objects.get().next_check_at) == (0, time.at + budget_watch.EVERY)
    time.advance(seconds=15)
    assert budget_watch.look_due() == 1
    budget(monthly_limit=5)
    assert budget_watch.look_due() == 1


def test_one_budget_that_cannot_be_looked_after_does_not_keep_the_others(time: StoppedClock) -> None:
    webhooks.make("me", "https://example.com/mine", by="me")
    budget("broken", monthly_limit=4)
    budget("me", monthly_limit=4)
    Budget.objects.filter(consumer__name="broken").update(thresholds=[None])
    assert budget_watch.look_due() == 2
    due: dict[str, datetime] = dict(Budget.objects.values_list("consumer__name", "next_check_at"))
    assert due == {"broken": time.at + budget_watch.LEASE, "me": time.at + budget_watch.EVERY}


def test_one_session_that_cannot_be_looked_after_does_not_keep_the_others(
    time: StoppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    budget(monthly_limit=20)
    broken, dearer = rent(1), rent(2)
    boot(broken)
    rental = boot(dearer)
    before = Reservation.objects.get(session_id=dearer.id).amount
    Reservation.objects.filter(session_id=broken.id).update(parts={"total": None})
    meter.run(rental, "gpu", Decimal("1.19"), time.at)
    look()
    assert Reservation.objects.get(session_id=dearer.id).amount > before
    assert f"what session {broken.id} holds of its budget cannot be looked after" in caplog.text


def test_hundreds_of_budgets_take_few_queries_while_nothing_is_to_be_done(time: StoppedClock) -> None:
    world.list_offers(24)
    for number in range(1, 25):
        budget(f"consumer-{number}", monthly_limit=4, total_limit=9)
        boot(rent(number, consumer=f"consumer-{number}"))
    look()
    time.advance(minutes=20)
    with CaptureQueriesContext(connection) as captured:
        assert budget_watch.look_due() == 24
    assert len(captured) <= 20
    assert set(Budget.objects.values_list("next_check_at", flat=True)) == {time.at + budget_watch.EVERY}


def test_of_many_the_one_that_something_is_due_for_is_looked_after(time: StoppedClock) -> None:
    for number, name in enumerate(("calm", "warned", "dearer"), start=1):
        budget(name, monthly_limit={"warned": 3}.get(name, 20))
        boot(rent(number, consumer=name))
    look()
    before = counters(consumer="dearer")[1]
    meter.run(Session.objects.get(consumer__name="dearer").rentals.get(), "gpu", Decimal("1.19"), time.at)
    time.advance(minutes=100)
    look()
    told = BudgetPeriod.objects.order_by("budget__consumer__name").values_list("budget__consumer__name", "told_percent")
    assert list(told) == [("calm", 0), ("dearer", 0), ("warned", 50)]
    assert counters(consumer="dearer")[1] > before
    for name in ("calm", "warned", "dearer"):
        world.assert_books_agree(name)
