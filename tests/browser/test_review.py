"""The review queue: what waits for a person, and what comes of a decision."""

from __future__ import annotations

from sessions_app.models import ProviderWatch, SeenOrphan, Session
from tests.browser.story import Story
from tests.browser.tab import Tab

PAGE = "/admin/review/"


def test_a_held_sweep_released(story: Story, ann: Tab) -> None:
    story.running("vision-lab", "speech-team", "bio-fold", "render-farm")
    for contract in story.market.alive():
        story.market.machine_dies(contract["id"])
    result = story.driver.sweep_now()
    assert result is not None
    assert result.held is True
    ann.open(PAGE)
    ann.sees("Sweeps that are held")
    ann.sees("4 of 4 machines")
    ann.click("Let it end what it found")
    ann.fill("Type", "release")
    ann.click("Let it end what it found")
    ann.sees("nothing was changed")
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}
    ann.fill("Type", "release vastai")
    ann.click("Let it end what it found")
    ann.sees("vastai: released.")
    story.until(lambda: Session.objects.filter(status="failed").count() == 4)
    assert ProviderWatch.objects.get().held_reason == ""


def test_an_orphan_left_alone_and_that_taken_back(story: Story, ann: Tab) -> None:
    machine = story.orphan()
    ann.open(PAGE)
    ann.sees(machine)
    ann.click("Leave it alone")
    ann.click("Leave it alone")
    ann.sees("left alone")
    ann.sees("Nothing waits for a person.")
    story.advance(hours=2)
    story.driver.sweep_now()
    story.work()
    assert story.alive() == {machine}
    ann.click("Take that back")
    ann.click("Take that back")
    ann.sees("up to its grace again")
    story.driver.sweep_now()
    story.until(lambda: story.alive() == set())
    story.driver.sweep_now()
    assert SeenOrphan.objects.count() == 0
