"""The inventory in memory, and the layer that answers from it: what a review of them found, kept as it was found."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.test import Client

from offers import services, snapshot
from tests.interleave import Elsewhere
from tests.offers.factory import apply, row

LOOKED_AT = "offers_providerinventory"


@pytest.mark.django_db(transaction=True)
def test_what_is_known_to_be_wrong_is_shown_to_nobody_while_it_is_loaded_anew() -> None:
    """A create has just found the offer gone. While one request loads the inventory, another must not get the old."""
    apply([row("1"), row("2")])
    snapshot.forget()
    assert len(snapshot.current().offers) == 2
    services.withdraw("vastai-1", "gone at create")
    snapshot.forget()
    seen: list[int] = []
    other = Elsewhere(lambda: seen.append(len(snapshot.current().offers)))

    def loading(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if LOOKED_AT in sql and not other.thread.ident:
            other.start()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(loading):
        assert len(snapshot.current().offers) == 1
    other.finish()
    assert seen == [1]


@pytest.mark.django_db
def test_a_load_that_fails_is_made_at_the_next_question() -> None:
    apply([row("1"), row("2")])
    snapshot.forget()
    before = snapshot.current()

    def refuses(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("away")

    snapshot.forget()
    with connection.execute_wrapper(refuses), pytest.raises(OperationalError):
        snapshot.current()
    assert snapshot.at_hand() is None
    assert snapshot.current() is not before


@pytest.mark.django_db
def test_the_documented_proxy_keeps_the_metrics_to_itself(client: Client) -> None:
    """However they are spelled: they are open, and tell what accounts hold. Caddy's ``*`` is any rest."""
    inside = re.search(r"^\t@inside path (.+)$", (settings.BASE_DIR / "docs/operations.md").read_text(), re.MULTILINE)
    assert inside is not None
    spelled = ["/metrics", "/metrics/", "/metrics/process", "/metrics/process/"]
    assert [path for path in spelled if client.get(path).status_code != 200] == []
    assert [path for path in spelled if not any(fnmatch(path, kept) for kept in inside[1].split())] == []
