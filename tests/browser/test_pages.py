"""Every page that the sidebar leads to, in light and dark and on a phone, with something on it to show."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib import admin
from django.urls import reverse

from gpubroker.console.navigation import GROUPS
from sessions_app.models import Session
from tests.browser.album import Album
from tests.browser.story import Story
from tests.browser.tab import DESKTOP, PHONE, Size, Tab, Theme

#: One process makes the story that they share, where the tests are dealt out by groups.
pytestmark = pytest.mark.xdist_group("console pages")
THEMES: tuple[Theme, ...] = ("dark", "light")
PAGES = [(title, target) for _, entries in GROUPS for title, _, target in entries]
#: Whose rows have a page of their own and are there in the story.
WITH_ROWS = [
    "sessions_app.session", "sessions_app.rental", "sessions_app.event", "offers.offer", "billing.budget",
    "billing.consumer", "billing.metersegment", "billing.providerbalance", "sessions_app.providerwatch",
]  # fmt: skip


#: What is kept of the main pages: name, theme, size.
PICTURES: list[tuple[str, Theme, Size]] = [
    ("start-light", "light", DESKTOP),
    ("start-dark", "dark", DESKTOP),
    ("start-phone", "light", PHONE),
    ("sessions-light", "light", DESKTOP),
    ("sessions-phone", "dark", PHONE),
    ("session-light", "light", DESKTOP),
    ("session-phone", "light", PHONE),
    ("review-dark", "dark", DESKTOP),
    ("review-phone", "light", PHONE),
    ("provider-light", "light", DESKTOP),
    ("offers-dark", "dark", DESKTOP),
    ("ledger-light", "light", DESKTOP),
]


def pictured(story: Story) -> dict[str, str]:
    """Where the pages of the pictures are."""
    shown = Session.objects.filter(status="running", consumer__name="speech-team").latest("created_at")
    return {
        "start": reverse("admin:index"),
        "sessions": link("sessions_app.session"),
        "session": reverse("admin:sessions_app_session_change", args=[shown.pk]),
        "review": reverse("admin:review"),
        "provider": reverse("admin:provider", args=["vastai"]),
        "offers": link("offers.offer"),
        "ledger": link("billing.ledgerrow"),
    }


@pytest.fixture(scope="module", autouse=True)
def db(busy: Story) -> Story:
    """The name by which pytest-django knows that these tests want a database. Its own would put a transaction around
    each test, from which the server's threads see nothing."""
    return busy


def link(target: str) -> str:
    return reverse(target if ":" in target else f"admin:{target.replace('.', '_')}_changelist")


def looks_right(tab: Tab, path: str) -> None:
    for theme in THEMES:
        tab.prefer(theme)
        tab.open(path)
        assert tab.path() == path
        assert tab.is_dark() is (theme == "dark"), theme
        for size in (PHONE, DESKTOP):
            tab.sized(size)
            assert tab.too_wide() <= 0, f"{theme} {size}: {tab.too_wide()} pixels too wide"


def test_the_sidebar_leads_to_all_pages(onlooker: Tab) -> None:
    onlooker.open("/admin/")
    found = onlooker.do(lambda page: page.locator("#nav-sidebar a").evaluate_all("all => all.map(a => a.pathname)"))
    assert [title for title, target in PAGES if link(target) not in found] == []


@pytest.mark.parametrize(("title", "target"), PAGES, ids=[title for title, _ in PAGES])
def test_a_page_of_the_sidebar(onlooker: Tab, title: str, target: str) -> None:
    looks_right(onlooker, link(target))
    onlooker.sees(title)


@pytest.mark.parametrize("target", WITH_ROWS)
def test_the_page_of_a_row(onlooker: Tab, target: str) -> None:
    model = apps.get_model(target)
    assert admin.site.is_registered(model)
    row = model._default_manager.latest("pk")
    looks_right(onlooker, reverse(f"admin:{target.replace('.', '_')}_change", args=[row.pk]))


@pytest.mark.parametrize(("name", "theme", "size"), PICTURES, ids=[name for name, _, _ in PICTURES])
def test_a_picture(busy: Story, onlooker: Tab, album: Album, name: str, theme: Theme, size: Size) -> None:
    """Those of the main pages that the README shows: ``make screenshots`` keeps them."""
    onlooker.prefer(theme)
    onlooker.sized(size)
    onlooker.open(pictured(busy)[name.rpartition("-")[0]])
    album.keep(onlooker, name, size)
