"""The fixtures of the console's tests in a browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client
from pytest_django.plugin import DjangoDbBlocker

from tests.browser.album import INTO, Album
from tests.browser.server import Server, serving
from tests.browser.story import Story, told
from tests.browser.tab import Browser, Tab
from tests.harness import MovableClock
from tests.sandbox import SandboxProcess

#: Of history behind the present of :func:`busy`: pictures that are kept show a month.
DAYS = 30 if os.environ.get(INTO) else 1
#: ``person("olga", "operator")``: a tab of somebody who is logged in and has these roles.
Person = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests of this process."""
    started = Browser()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def visit(browser: Browser, server: Server) -> Callable[[], AbstractContextManager[Tab]]:
    """A tab of somebody who has not logged in. At the end of the block no page may have gone wrong."""

    @contextmanager
    def opened() -> Iterator[Tab]:
        try:
            with browser.tab(server.url) as tab:
                yield tab
                tab.clean()
        finally:
            server.settle()

    return opened


@pytest.fixture
def stranger(visit: Callable[[], AbstractContextManager[Tab]], transactional_db: None) -> Iterator[Tab]:
    with visit() as tab:
        yield tab


@pytest.fixture
def ann(stranger: Tab) -> Tab:
    """Logged in, and may do everything."""
    enter(stranger, "ann", superuser=True)
    return stranger


@pytest.fixture
def person(visit: Callable[[], AbstractContextManager[Tab]], transactional_db: None) -> Person:
    @contextmanager
    def somebody(name: str, *roles: str) -> Iterator[Tab]:
        with visit() as tab:
            enter(tab, name, *roles)
            yield tab

    return somebody


@pytest.fixture
def story(sandbox_process: SandboxProcess, time: MovableClock, transactional_db: None) -> Iterator[Story]:
    with told(sandbox_process, time) as begun:
        yield begun


@pytest.fixture(scope="module")
def busy(
    sandbox_process: SandboxProcess, server: Server, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Story]:
    """A deployment with a bit of everything, for all tests of a module, which only look."""
    with django_db_blocker.unblock():
        try:
            with told(sandbox_process, MovableClock()) as story:
                story.busy(DAYS)
                yield story
        finally:
            server.settle()
            call_command("flush", verbosity=0, interactive=False)


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path)


@pytest.fixture(scope="module")
def window(busy: Story, visit: Callable[[], AbstractContextManager[Tab]]) -> Iterator[Tab]:
    """One for all tests of a module: its files are loaded once."""
    with visit() as tab:
        enter(tab, "ann", superuser=True)
        yield tab


@pytest.fixture
def onlooker(window: Tab) -> Iterator[Tab]:
    """Somebody who may see everything there, people included, and changes nothing."""
    yield window
    window.clean()


def enter(tab: Tab, name: str, *roles: str, superuser: bool = False) -> None:
    user = get_user_model().objects.create_user(name, is_staff=True, is_superuser=superuser)
    user.groups.set(Group.objects.filter(name__in=roles))
    client = Client()
    client.force_login(user)
    tab.log_in(client.cookies["sessionid"].value)
