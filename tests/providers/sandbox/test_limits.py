"""Rate limits (Vast.ai contract, section 1.5)."""

from __future__ import annotations

import pytest

from providers.sandbox.limits import Limits
from providers.sandbox.vast.intervals import INTERVALS
from tests.providers.sandbox.helpers import cheapest, create, eventually, rent, search
from tests.sandbox import SandboxProcess


class Wall:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_interval_runs_from_the_last_call_that_passed() -> None:
    wall = Wall()
    limits = Limits(wall)
    assert limits.check("create", "me", 4.0, 1.0) is None
    wall.now += 3
    held = limits.check("create", "me", 4.0, 1.0)
    assert held is not None
    assert (held.interval, held.wait) == (4.0, 1.0)
    wall.now += 1
    assert limits.check("create", "me", 4.0, 1.0) is None


def test_limits_are_per_operation_and_caller_scaled_and_switchable() -> None:
    wall = Wall()
    limits = Limits(wall)
    assert limits.check("create", "me", 4.0, 1.0) is None
    assert limits.check("create", "you", 4.0, 1.0) is None
    assert limits.check("destroy", "me", 4.0, 1.0) is None
    assert limits.check("create", "me", 4.0, 1.0) is not None
    assert limits.check("create", "me", 4.0, 0.0) is None
    assert [limits.check("attach", "me", 0.0, 1.0) for _ in range(3)] == [None] * 3
    wall.now += 0.5
    assert limits.check("create", "me", 4.0, 0.1) is None


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [("create", 4.5), ("destroy", 3.0), ("list", 1.0), ("get", 2.0), ("update", 1.0), ("bid", 5.5), ("templates", 3.0)],
)
def test_the_published_intervals(operation: str, seconds: float) -> None:
    assert INTERVALS[operation] == seconds


def test_a_create_too_early_is_429_and_makes_nothing(sandbox: SandboxProcess) -> None:
    first, second = (offer["id"] for offer in search(sandbox, num_gpus={"eq": 1}, limit=2))
    sandbox.settings(pace=1)
    assert create(sandbox, first)[0] == 200
    status, answer = create(sandbox, second)
    assert status == 429
    assert answer == {
        "message": "The action could not be performed because there were too many requests by the client.\n\n"
        "API requests too frequent: endpoint threshold=4.5*1.0\n\n",
        "code": "429 Too Many Requests",
        "title": "Too Many Requests",
    }
    assert create(sandbox, second, "other-key")[0] == 200
    assert len(sandbox.ledger()) == 2


@pytest.mark.parametrize(
    ("accept", "kind", "begins"),
    [
        ("application/json", "application/json", '{"message"'),
        ("text/plain", "text/plain", "429 Too Many Requests\n\nThe action could not be performed"),
        ("*/*", "text/html", "<html>"),
    ],
)
def test_the_body_follows_accept_and_there_is_no_retry_after(
    sandbox: SandboxProcess, accept: str, kind: str, begins: str
) -> None:
    sandbox.settings(pace=1)
    headers = {"Accept": accept, "Authorization": "Bearer sandbox-key"}
    assert sandbox.raw("GET", "/api/v1/instances/", None, headers)[0] == 200
    status, answered, text = sandbox.raw("GET", "/api/v1/instances/", None, headers)
    assert (status, answered["Content-Type"].split(";")[0]) == (429, kind)
    assert text.startswith(begins)
    assert "threshold=1.0*1.0" in text
    assert "Retry-After" not in answered


def test_a_destroy_too_early_has_its_own_form_and_destroys_nothing(sandbox: SandboxProcess) -> None:
    ids = [rent(sandbox), rent(sandbox)]
    sandbox.settings(pace=1)
    assert sandbox.api("DELETE", f"/api/v0/instances/{ids[0]}/", {})[0] == 200
    status, answer = sandbox.api("DELETE", f"/api/v0/instances/{ids[1]}/", {})
    assert (status, answer["success"], answer["error"]) == (429, False, "rate_limit_exceeded")
    assert answer["msg"] == "API requests too frequent: endpoint threshold=3.0*1.0"
    assert [contract["id"] for contract in sandbox.alive()] == [ids[1]]


def test_retry_after_can_be_switched_on(sandbox: SandboxProcess) -> None:
    sandbox.settings(pace=1, retry_after=True)
    for _ in range(2):
        status, headers, _ = sandbox.raw("POST", "/api/v0/bundles/", {})
    assert (status, headers["Retry-After"], headers["X-RateLimit-Remaining"]) == (429, "3", "0")


def test_the_pace_scales_the_wait(sandbox: SandboxProcess) -> None:
    sandbox.settings(pace=100)
    assert cheapest(sandbox)["num_gpus"] == 1
    assert sandbox.api("POST", "/api/v0/bundles/", {})[0] == 429
    sandbox.settings(pace=0.01)
    assert eventually(lambda: sandbox.api("POST", "/api/v0/bundles/", {})[0] == 200)
