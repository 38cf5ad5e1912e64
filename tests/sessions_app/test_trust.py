"""The trust gate: a pass of the sweep that would end too much ends nothing and asks a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from sessions_app import sweep, trust
from sessions_app.models import Event, ProviderWatch, Rental, SeenOrphan, Session
from sessions_app.states import Debt
from tests.harness import Api, Driver, MovableClock, offers_on_different_machines
from tests.sandbox import SandboxProcess

pytestmark = pytest.mark.django_db(transaction=True)


def run_many(api: Api, driver: Driver, count: int) -> list[str]:
    ids = [api.create(offer_id=offer)["session"]["id"] for offer in offers_on_different_machines(count)]
    for session_id in ids:
        driver.until_status(session_id, "running", 40)
    return ids


def swept(driver: Driver) -> sweep.Sweep:
    result = driver.sweep_now()
    assert result is not None
    return result


def lose(market: SandboxProcess, count: int) -> None:
    """Gone at the provider, by nobody's order of ours."""
    for contract in market.alive()[:count]:
        market.api("DELETE", f"/api/v0/instances/{contract['id']}/", {})


def test_a_mass_loss_is_held_until_a_person_releases_it(
    market_with_threads: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market = market_with_threads
    ids = run_many(api, driver, 5)
    lose(market, 4)
    for _ in range(4):
        time.advance(seconds=31)
        last = swept(driver)
    assert (last.held, last.ghosts, len(last.suspects)) == (True, 0, 4)
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}
    watch = ProviderWatch.objects.get(provider="vastai")
    assert watch.held_reason == "4 of 5 machines are lost by the listing"
    assert len(watch.held_details["ends"]) == 4
    assert Event.objects.filter(kind="sweep_held").count() == 1
    assert 'gpu_sweep_held{provider="vastai"} 1.0' in Client().get("/metrics").content.decode()

    assert trust.release("vastai", "staff:ann") is True
    assert trust.release("vastai", "staff:ann") is False
    last = swept(driver)
    assert (last.held, last.ghosts) == (False, 4)
    driver.until(lambda: Session.objects.filter(status="failed").count() == 4)
    assert Session.objects.get(status="running").id in ids
    released = Event.objects.get(kind="sweep_released")
    assert (released.actor, released.reason) == ("staff:ann", "4 of 5 machines are lost by the listing")


def test_a_hold_ends_when_the_listing_makes_sense_again(
    market_with_threads: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    """An empty listing that claims to be complete, as a wrong account gives."""
    market = market_with_threads
    run_many(api, driver, 4)
    market.fault("empty_listing", times=3)
    for _ in range(3):
        time.advance(seconds=31)
        last = swept(driver)
    assert last.held is True
    time.advance(seconds=31)
    last = swept(driver)
    assert (last.held, last.suspects) == (False, [])
    watch = ProviderWatch.objects.get(provider="vastai")
    assert (watch.held_reason, watch.held_at, watch.held_details) == ("", None, {})
    assert Event.objects.filter(kind="sweep_cleared").count() == 1
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}


def test_machines_that_all_stop_at_once_are_held(market_with_threads: SandboxProcess, api: Api, driver: Driver) -> None:
    market = market_with_threads
    run_many(api, driver, 4)
    for contract in market.alive():
        market.machine_dies(contract["id"])
    assert swept(driver).held is True
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}


def test_held_sessions_still_expire(
    market_with_threads: SandboxProcess, api: Api, driver: Driver, time: MovableClock
) -> None:
    market = market_with_threads
    run_many(api, driver, 4)
    for contract in market.alive():
        market.machine_dies(contract["id"])
    assert swept(driver).held is True
    time.advance(hours=2, seconds=1)
    driver.until(lambda: Session.objects.filter(status="stopped", end_reason="expired").count() == 4)
    assert market.alive() == []


def test_too_many_orphans_at_once_are_held(
    market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any
) -> None:
    """As after a database brought back from an old backup: these may be people's sessions."""
    for number in range(4):
        market.foreign(f"gpb-testdep-aaaaaaaaaaaaaaaa-{number + 1}")
    swept(driver)
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 1)
    last = swept(driver)
    assert (last.held, last.orphans, last.orphans_destroyed) == (True, 4, 0)
    assert (len(market.alive()), SeenOrphan.objects.count(), Rental.objects.count()) == (4, 4, 0)
    assert trust.release("vastai", "staff:ann") is True
    assert swept(driver).orphans_destroyed == 4
    driver.until(lambda: market.alive() == [])
    driver.until(lambda: not Rental.objects.exclude(state=Debt.CLOSED).exists())


def test_a_word_is_not_for_ever(market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any) -> None:
    for number in range(4):
        market.foreign(f"gpb-testdep-aaaaaaaaaaaaaaaa-{number + 1}")
    swept(driver)
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 1)
    assert swept(driver).held is True
    assert trust.release("vastai", "staff:ann") is True
    time.advance(seconds=trust.RELEASE.total_seconds() + 1)
    assert swept(driver).held is True
    assert len(market.alive()) == 4


@pytest.mark.parametrize(
    ("ends", "orphans", "standing", "ours", "excess"),
    [
        (3, 0, 3, 3, False), (4, 0, 13, 13, True), (4, 0, 14, 14, False), (0, 3, 0, 3, False),
        (0, 4, 100, 13, True), (0, 4, 100, 14, False), (30, 0, 100, 100, False), (31, 0, 100, 100, True),
    ],
)  # fmt: skip
def test_the_limit(ends: int, orphans: int, standing: int, ours: int, excess: bool) -> None:
    intent = trust.Intent("vastai", ["x"] * ends, ["y"] * orphans, standing, ours)
    assert bool(intent.excess()) is excess


def test_from_the_admin(market: SandboxProcess, driver: Driver, time: MovableClock, settings: Any) -> None:
    User.objects.create_superuser("ann", password="a long enough pass phrase")
    client = Client()
    client.force_login(User.objects.get())
    for number in range(4):
        market.foreign(f"gpb-testdep-aaaaaaaaaaaaaaaa-{number + 1}")
    swept(driver)
    time.advance(seconds=settings.ORPHAN_GRACE_SECONDS + 1)
    assert swept(driver).held is True

    def press(action: str, **said: str) -> str:
        form = {"action": action, "_selected_action": ["vastai"], **said}
        answer = client.post("/admin/sessions_app/providerwatch/", form, follow=True)
        assert answer.status_code == 200
        return answer.content.decode()

    ProviderWatch.objects.update(next_sweep_at=clock_far(time))
    assert "A sweep begins within a second: vastai." in press("sweep_now")
    assert sweep.claim_due() == ["vastai"]
    assert "4 of 4 machines with our label are in no book of ours" in press("release")
    word = {"confirmed": "yes", "confirm_typed": "release vastai"}
    assert "nothing was changed" in press("release", **{**word, "confirm_typed": "release"})
    assert ProviderWatch.objects.get().held_reason != ""
    assert "Released, and swept again at once: vastai." in press("release", **word)
    assert swept(driver).orphans_destroyed == 4
    assert Event.objects.get(kind="sweep_released").actor == "staff:ann"
    assert "Nothing is held there; nothing was changed." in press("release")


def clock_far(time: MovableClock) -> Any:
    return time() + timedelta(days=1)
