"""A provider's account: swept on a word, and given a rest that touches nothing that runs."""

from __future__ import annotations

from offers.models import ProviderInventory
from sessions_app.models import ProviderWatch, Session
from tests.browser.story import Story
from tests.browser.tab import Tab

PAGE = "/admin/providers/vastai/"


def test_swept_now(story: Story, ann: Tab) -> None:
    story.running("vision-lab")
    story.driver.sweep_now()
    before = ProviderWatch.objects.get().last_sweep_at
    # The next one is not due yet.
    story.until(lambda: ProviderWatch.objects.filter(next_sweep_at__gt=story.time()).exists())
    ann.open(PAGE)
    ann.click("Sweep now")
    ann.sees("A sweep of vastai begins within a second.")
    assert ProviderWatch.objects.get().next_sweep_at <= story.time()
    story.until(lambda: ProviderWatch.objects.get().last_sweep_at != before)
    ann.follow("List them now")
    ann.sees("As the provider said at")
    ann.sees("ours")


def test_a_provider_that_does_not_answer_is_told(story: Story, ann: Tab) -> None:
    story.running("vision-lab")
    story.market.fault("error_5xx", operation="list", times=-1)
    ann.open(f"{PAGE}?ask=instances")
    ann.sees("vastai")
    assert ann.do(lambda page: page.get_by_role("alert").count()) >= 1


def test_maintenance_begun_and_ended(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    ann.open(PAGE)
    ann.click("Begin maintenance")
    ann.fill("Why", "they move their data centre")
    ann.click("Begin maintenance")
    ann.sees("vastai is in maintenance.")
    ann.sees("they move their data centre")
    assert ProviderInventory.objects.get().maintenance_by == "staff:ann"
    refused = story.api.create(offer_id=story.offer(), status=503)
    assert refused["error_type"] == "provider_maintenance"
    story.work()
    assert Session.objects.get().status == "running"

    ann.click("End maintenance")
    ann.click("End maintenance")
    ann.sees("vastai takes new sessions again.")
    story.until_metered(story.rent("speech-team"))
    assert Session.objects.get(id=session).status == "running"
