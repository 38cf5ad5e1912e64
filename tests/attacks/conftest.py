"""A closed API, two consumers with a session each, and who attacks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from pytest_django.plugin import DjangoDbBlocker

from billing import webhooks
from gpubroker.common import providers as configured
from tests import keys
from tests.attacks.surface import Attacker
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess


@dataclass(frozen=True)
class World:
    #: Session ids.
    mine: str
    theirs: str
    #: The prefix of a key of theirs.
    prefix: str
    #: A webhook of theirs.
    webhook: str
    #: The owner of ``mine``.
    me: Attacker
    staff: Attacker
    #: The secrets of the two.
    secrets: tuple[str, str]

    @property
    def ids(self) -> dict[str, str]:
        """For every id in a path: of what is not mine."""
        return {
            "session_id": self.theirs, "offer_id": "vastai-3", "prefix": self.prefix, "hash_id": "a8a44c7363cb",
            "provider": "vastai", "key_id": "7001", "template_id": "338630", "machine_id": "28441",
            "consumer": "them", "webhook_id": self.webhook, "delivery_id": "b1c6a2de-52f0-4c0f-9c11-6a0d6a1f7f5e",
        }  # fmt: skip


@pytest.fixture(scope="module")
def world_of_module(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, sandbox_process: SandboxProcess
) -> Iterator[World]:
    """Made once and taken back at the end: each test's own changes are undone within this transaction."""
    with django_db_blocker.unblock(), transaction.atomic():
        with override_settings(API_AUTH="key", VASTAI_API_KEY="sandbox-key", VASTAI_BASE_URL=sandbox_process.url):
            configured.configured.cache_clear()
            made = build()
        yield made
        transaction.set_rollback(True)


@pytest.fixture
def world(sandbox: SandboxProcess, world_of_module: World, db: None, settings: Any) -> World:
    settings.API_AUTH = "key"
    return world_of_module


def build() -> World:
    apply([row("1"), row("2"), row("3")])
    mine, boss, their_key = keys.make("me"), keys.staff(), keys.make("them")
    made = []
    for secret, consumer, offer in ((mine.secret, "me", "vastai-1"), (their_key.secret, "them", "vastai-2")):
        order = {"consumer_id": consumer, "offer_id": offer, "workload_type": "llm", "reservation_hours": 2}
        status, answer = Attacker(secret).json("POST", "/api/v1/sessions", {**order, "ssh_key_type": "ed25519"})
        assert status == 201, answer
        made.append(answer["session"]["id"])
    webhook = webhooks.make("them", "https://hooks.example.com/gpu", by="them").endpoint.id
    return World(
        made[0], made[1], their_key.key.prefix, webhook, Attacker(mine.secret), Attacker(boss.secret),
        (mine.secret, boss.secret),
    )  # fmt: skip
