"""docs/tour.md, walked: each of its steps is the test of the same number and name, which takes the step's picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from billing.models import Consumer
from sessions_app.models import Rental, Session
from tests.browser.album import ALL, LARGEST, Album
from tests.browser.story import Story
from tests.browser.tab import Tab
from tests.browser.test_sessions import page_of
from tests.keys import Caller

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
TOUR = (DOCS / "tour.md").read_text()
STEPS: list[tuple[str, str]] = re.findall(r"^## (\d+)\. (.+)$", TOUR, re.MULTILINE)
CONSUMERS, REVIEW = "/admin/billing/consumer/", "/admin/review/"


def named(step: int) -> str:
    """``07-a-destroy-is-refused``"""
    title = dict(STEPS)[str(step)]
    return f"{step:02}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}"


def trouble(step: int, **words: str) -> dict[str, Any]:
    """The body that the step's curl sends to the sandbox."""
    text = TOUR.partition(f"\n## {step}. ")[2].partition("\n## ")[0]
    [(body, _)] = re.findall(r"-d '(\{(.*)\})'", text)
    for word, value in words.items():
        body = body.replace(word, value)
    found: dict[str, Any] = json.loads(body)
    return found


def keep(album: Album, tab: Tab, step: int) -> None:
    album.keep(tab, f"tour-{named(step)}")


def spender() -> str:
    return f"{CONSUMERS}{Consumer.objects.get(name='vision-lab').pk}/change/"


# -- first run ------------------------------------------------------------------------------------------


def test_01_log_in(stranger: Tab, album: Album) -> None:
    get_user_model().objects.create_superuser("admin", password="correct-horse-battery")
    stranger.open("/")
    keep(album, stranger, 1)
    stranger.fill("Username", "admin")
    stranger.fill("Password", "correct-horse-battery")
    stranger.click("Log in")
    stranger.arrives("/admin/")


def test_02_the_start_page(story: Story, ann: Tab, album: Album) -> None:
    story.driver.sweep_now()
    story.work()
    ann.open("/admin/")
    for words in ("Running", "Burn", "Budgets nearest their limit", "Destroys without a proof yet", "Newest failures"):
        ann.sees(words)
    assert ann.do(lambda page: page.locator("#alerts").count()) == 0
    keep(album, ann, 2)


def test_03_a_key_for_a_program(story: Story, ann: Tab, album: Album, settings: Any) -> None:
    settings.API_AUTH = "key"
    ann.open("/admin/billing/apikey/")
    ann.do(lambda page: page.locator("a.addlink").click())
    ann.arrives("/admin/billing/apikey/add/")
    ann.fill("Consumer", "vision-lab")
    ann.fill("Name", "nightly training")
    ann.click("Make the key")
    ann.sees("only place where this key is")
    secret = ann.do(lambda page: page.locator("code").inner_text())
    keep(album, ann, 3)
    assert Caller(secret)("GET", "/sessions")[0] == 200
    ann.open("/admin/billing/apikey/")
    ann.sees("nightly training")
    assert secret not in ann.do(lambda page: page.content())


def test_04_a_budget_for_its_consumer(story: Story, ann: Tab, album: Album) -> None:
    story.rent("vision-lab")
    ann.open(CONSUMERS)
    ann.enter("vision-lab")
    ann.sees("There is no budget")
    ann.follow("Set budget")
    ann.fill("Dollars a month", "40")
    ann.click("Set the budget")
    ann.sees("The budget of vision-lab is set.")
    ann.sees("$40.00")
    keep(album, ann, 4)
    assert story.api.get("/budgets/vision-lab")["monthly"]["limit"] == 40


def test_05_a_program_rents(story: Story, ann: Tab, album: Album) -> None:
    [session] = story.running("vision-lab", gpu="RTX 4090", hours=6)
    story.advance(minutes=25)
    story.work()
    ann.open("/admin/sessions_app/session/")
    ann.enter(session)
    for words in ("running", "Cost until now", "Copy SSH command", "SSH verified"):
        ann.sees(words)
    keep(album, ann, 5)


def test_06_more_time(story: Story, ann: Tab, album: Album) -> None:
    [session] = story.running("vision-lab", gpu="RTX 4090")
    before = Session.objects.get().expires_at
    ann.open(page_of(session))
    ann.follow("Extend")
    ann.fill("Hours", "4")
    keep(album, ann, 6)
    ann.click("Extend")
    ann.sees("extended by 4 h")
    ann.sees("staff:ann")
    assert (Session.objects.get().expires_at - before).total_seconds() == 4 * 3600


# -- three incidents --------------------------------------------------------------------------------------


def test_07_a_destroy_is_refused(story: Story, ann: Tab, album: Album) -> None:
    [session] = story.running("render-farm", gpu="RTX 3090", hours=4)
    machine = story.machine(session)
    story.market.fault(**trouble(7))
    ann.open(page_of(session))
    ann.follow("Destroy")
    ann.fill("Type", "destroy")
    ann.click("Destroy")
    story.until(lambda: Rental.objects.get().destroy_failures >= 1)
    story.advance(minutes=6)
    story.until(lambda: Rental.objects.get().destroy_failures >= 2)
    ann.open(page_of(session))
    for words in ("stopping", "Its destroy has been owed for", "refused"):
        ann.sees(words)
    keep(album, ann, 7)
    ann.open("/admin/")
    ann.sees("1 thing in the review queue")
    assert story.alive() == {machine}


def test_08_the_destroy_goes_through(story: Story, ann: Tab, album: Album) -> None:
    [session] = story.running("render-farm", gpu="RTX 3090", hours=4)
    story.market.fault(**trouble(7))
    story.api.delete(f"/sessions/{session}", status=202, Prefer="wait=0")
    story.until(lambda: Rental.objects.get().destroy_failures >= 1)
    story.advance(minutes=6)
    story.until(lambda: Rental.objects.get().destroy_failures >= 2)
    story.market.clear_faults()
    ann.open(REVIEW)
    ann.sees("Destroys without a proof")
    ann.click("Try again now")
    ann.click("Try again now")
    ann.sees("tried again")
    story.until_status("stopped", session)
    assert story.alive() == set()
    ann.open(REVIEW)
    ann.sees("Nothing waits for a person.")
    ann.open(page_of(session))
    ann.sees("Proof:")
    keep(album, ann, 8)


def test_09_an_orphan(story: Story, ann: Tab, album: Album) -> None:
    story.running("vision-lab")
    body = trouble(9, DEPLOYMENT="testdep")
    machine = str(story.market.foreign(**body))
    ann.open("/admin/providers/vastai/")
    ann.click("Sweep now")
    story.driver.sweep_now()
    ann.open("/admin/")
    ann.sees("1 thing in the review queue")
    ann.open(REVIEW)
    ann.sees(body["label"])
    keep(album, ann, 9)
    ann.click("Destroy it now")
    ann.click("Destroy it now")
    ann.sees("to be destroyed")
    story.until(lambda: machine not in story.alive())
    assert len(story.alive()) == 1
    ann.open(REVIEW)
    ann.sees("Nothing waits for a person.")


def test_10_a_budget_runs_dry(story: Story, ann: Tab, album: Album) -> None:
    story.running("vision-lab", gpu="RTX 4090", hours=6)
    story.advance(hours=1)
    story.work()
    held = story.reserved("vision-lab")
    story.budget("vision-lab", monthly_limit=round(held + 0.2, 2))
    refused = story.api.create(consumer_id="vision-lab", offer_id=story.offer(), reservation_hours=6, status=402)
    assert refused["error_type"] == "insufficient_budget"
    ann.open("/admin/")
    ann.follow("vision-lab")
    ann.open(spender())
    ann.sees("nearly full")
    keep(album, ann, 10)
    ann.follow("Set budget")
    ann.fill("Dollars a month", "60")
    ann.click("Set the budget")
    ann.sees("The budget of vision-lab is set.")
    story.until_metered(story.rent("vision-lab", hours=6))


def test_11_all_is_well(story: Story, ann: Tab, album: Album) -> None:
    [session, _] = story.running("vision-lab", "speech-team", gpu="RTX 4090", hours=4)
    for button, filled in (("Extend", ("Hours", "2")), ("Destroy", ("Type", "destroy"))):
        ann.open(page_of(session))
        ann.follow(button)
        ann.fill(*filled)
        ann.click(button)
    story.until_status("stopped", session)
    story.work()
    ann.open("/admin/")
    ann.sees("None: every machine that ended is proved gone.")
    assert ann.do(lambda page: page.locator("#alerts").count()) == 0
    ann.open(REVIEW)
    ann.sees("Nothing waits for a person.")
    ann.open("/admin/admin/logentry/")
    ann.sees("extended by 2 h")
    ann.sees("destroy asked for")
    keep(album, ann, 11)


# -- the text ----------------------------------------------------------------------------------------------


def test_each_step_is_a_test_and_has_its_picture() -> None:
    steps = [named(int(number)) for number, _ in STEPS]
    assert steps == sorted(steps)
    tests = [name.removeprefix("test_").replace("_", "-") for name in globals() if re.match(r"test_\d\d_", name)]
    assert tests == steps
    assert re.findall(r"!\[[^\]]+\]\((.+)\)", TOUR) == [f"pictures/tour-{step}.png" for step in steps]


@pytest.mark.parametrize("text", ["README.md", "docs/tour.md"])
def test_every_picture_that_is_shown_is_there(text: str) -> None:
    page = DOCS.parent / text
    shown = re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"]+\.png)", page.read_text())
    assert [name for name in shown if not (page.parent / name).is_file()] == []


def test_the_pictures_are_small() -> None:
    sizes = [picture.stat().st_size for picture in (DOCS / "pictures").glob("*.png")]
    assert len(sizes) >= len(STEPS)
    assert max(sizes) <= LARGEST
    assert sum(sizes) <= ALL
