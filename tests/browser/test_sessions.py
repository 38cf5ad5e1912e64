"""What somebody on call does to sessions, from the page to the marketplace's own books."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse

from gpubroker.common import sshkeys
from sessions_app.models import Event, Rental, Session
from tests.browser.conftest import Person
from tests.browser.story import Story
from tests.browser.tab import Tab

LIST = "/admin/sessions_app/session/"


def page_of(session: str) -> str:
    return reverse("admin:sessions_app_session_change", args=[session])


def audited(tab: Tab, *sentences: str) -> None:
    """The audit log says so, in this person's name."""
    tab.open("/admin/admin/logentry/")
    for sentence in ("ann", *sentences):
        tab.sees(sentence)


def test_destroyed_with_a_typed_word(story: Story, ann: Tab) -> None:
    [session, other] = story.running("vision-lab", "speech-team")
    machine, kept = story.machine(session), story.machine(other)
    ann.open(page_of(session))
    ann.follow("Destroy")
    ann.fill("Type", "yes")
    ann.click("Destroy")
    ann.sees("Type “destroy”, exactly so; nothing was changed.")
    assert story.alive() == {machine, kept}
    assert set(Session.objects.values_list("status", flat=True)) == {"running"}

    ann.fill("Type", "destroy")
    ann.click("Destroy")
    ann.sees(f"{session}: destroy asked for.")
    story.until_status("stopped", session)
    assert story.alive() == {kept}
    ann.open(page_of(session))
    ann.sees("Proof:")
    audited(ann, session, "destroy asked for")


def test_several_destroyed_from_the_list(story: Story, ann: Tab) -> None:
    made = story.running("vision-lab", "speech-team")
    ann.open(LIST)
    ann.act("Destroy: end now, and drop a kept disk", *made)
    ann.fill("Type", "destroy 1")
    ann.click("Destroy")
    ann.sees("Type “destroy 2”")
    assert len(story.alive()) == 2
    ann.fill("Type", "destroy 2")
    ann.click("Destroy")
    ann.sees("Destroy: 2 sessions.")
    story.until_status("stopped", *made)
    assert story.alive() == set()


def test_asked_and_then_left_alone(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    before = Event.objects.count()
    ann.open(page_of(session))
    ann.follow("Destroy")
    ann.follow("No, go back")
    assert ann.path() == page_of(session)
    assert (Event.objects.count(), Session.objects.get().status) == (before, "running")


def test_said_to_be_done(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    ann.open(page_of(session))
    ann.follow("Done")
    ann.click("Done")
    ann.sees("said to be done")
    story.until_status("stopped", session)
    assert (Session.objects.get().end_reason, story.alive()) == ("done", set())


def test_extended(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    before = Session.objects.get().expires_at
    ann.open(page_of(session))
    ann.follow("Extend")
    ann.fill("Hours", "3")
    ann.click("Extend")
    ann.sees("extended by 3 h")
    assert Session.objects.get().expires_at == before + timedelta(hours=3)
    ann.follow("Extend")
    ann.fill("Hours", "100")
    ann.click("Extend")
    ann.sees("hard maximum")
    assert Session.objects.get().expires_at == before + timedelta(hours=3)
    audited(ann, "extended by 3 h")


def test_its_hard_maximum_overridden(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    later = (Session.objects.get().hard_max_at + timedelta(hours=5)).replace(second=0, microsecond=0)
    ann.open(page_of(session))
    ann.follow("Hard maximum")
    ann.fill("Hard maximum (UTC)", f"{later:%Y-%m-%dT%H:%M}")
    ann.click("Hard maximum")
    ann.sees("This field is required")
    assert Session.objects.get().hard_max_at != later
    ann.fill("Reason", "the paper is due on Monday")
    ann.click("Hard maximum")
    ann.sees("hard maximum set to")
    found = Session.objects.get()
    assert (found.hard_max_at, found.hard_max_reason) == (later, "the paper is due on Monday")
    audited(ann, "the paper is due on Monday")


def test_a_refused_destroy_tried_again_at_once(story: Story, ann: Tab) -> None:
    [session] = story.running("render-farm")
    story.refused_destroy(session, times=6)
    story.until(lambda: Rental.objects.get().destroy_failures == 7)
    story.market.clear_faults()
    # By itself it is tried again in a while only.
    assert (Rental.objects.get().next_check_at or story.time()) > story.time() + timedelta(seconds=20)
    ann.open(page_of(session))
    ann.sees("refused")
    ann.follow("Retry now")
    ann.click("Retry now")
    ann.sees("tried again now")
    story.until_status("stopped", session)
    assert story.alive() == set()


def test_given_another_key(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    pair = sshkeys.generate("ed25519", "new")
    ann.open(page_of(session))
    ann.follow("Rekey")
    ann.fill("New public key", "ssh-rsa nonsense")
    ann.click("Rekey")
    ann.sees("key")
    assert Session.objects.get().ssh_public_key != pair.public
    ann.fill("New public key", pair.public)
    ann.click("Rekey")
    ann.sees("the old key was taken off")
    [contract] = story.market.alive()
    assert pair.public.split()[1] in {key.split()[1] for key in contract["keys"]}


def test_its_ssh_command_copied(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    ann.do(lambda page: page.context.grant_permissions(["clipboard-read", "clipboard-write"]))
    ann.open(page_of(session))
    ann.click("Copy SSH command")
    ann.sees("Copied")
    found = Session.objects.get()
    command = ann.do(lambda page: page.evaluate("navigator.clipboard.readText()"))
    assert command == f"ssh -p {found.ssh_port} {found.ssh_user}@{found.ssh_host}"


def test_destroyed_with_the_keyboard_alone(story: Story, ann: Tab) -> None:
    [session] = story.running("vision-lab")
    ann.open(page_of(session))
    ann.tab_to("Destroy")
    ann.press("Enter")
    ann.arrives(f"{LIST}{session}/destroy/")
    ann.tab_to("Type destroy to go on")
    ann.do(lambda page: page.keyboard.type("destroy"))
    ann.tab_to("Destroy")
    ann.press("Enter")
    ann.sees(f"{session}: destroy asked for.")
    story.until_status("stopped", session)
    assert story.alive() == set()


def test_who_may_only_look_is_offered_nothing(story: Story, person: Person) -> None:
    [session] = story.running("vision-lab")
    with person("vera", "viewer") as vera:
        vera.open(page_of(session))
        vera.sees(session)
        for name in ("Destroy", "Extend", "Done", "Rekey"):
            vera.lacks(name)
        vera.open(f"{LIST}{session}/destroy/")
        vera.forgive("403")
        vera.lacks("Destroy")
    assert Session.objects.get().status == "running"


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_who_may_operate_is_offered_it(story: Story, person: Person, role: str) -> None:
    session = story.rent("vision-lab")
    with person("olga", role) as olga:
        olga.open(page_of(session))
        olga.follow("Done")
        olga.click("Done")
        olga.sees("said to be done")
    assert Session.objects.get().end_reason == "done"
