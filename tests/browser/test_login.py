"""Coming in, and going out again."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model

from tests.browser.tab import DESKTOP, PHONE, Tab, Theme

RIGHT = "correct-horse-battery"


@pytest.fixture
def root(transactional_db: None) -> None:
    get_user_model().objects.create_superuser("root", password=RIGHT)


def test_with_the_keyboard_alone(root: None, stranger: Tab) -> None:
    stranger.open("/")
    assert stranger.path() == "/admin/login/"
    stranger.tab_to("Username")
    stranger.do(lambda page: page.keyboard.type("root"))
    stranger.tab_to("Password")
    stranger.do(lambda page: page.keyboard.type(RIGHT))
    stranger.press("Enter")
    stranger.arrives("/admin/")


def test_a_wrong_password_opens_nothing(root: None, stranger: Tab) -> None:
    stranger.open("/admin/")
    stranger.fill("Username", "root")
    stranger.fill("Password", "wrong-horse-battery")
    stranger.press("Enter")
    stranger.sees("Please enter the correct")
    stranger.open("/admin/")
    assert stranger.path() == "/admin/login/"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_eyes(stranger: Tab, theme: Theme) -> None:
    stranger.prefer(theme)
    for size in (DESKTOP, PHONE):
        stranger.sized(size)
        stranger.open("/admin/login/")
        assert stranger.is_dark() is (theme == "dark")
        assert stranger.too_wide() <= 0
