"""``gpubroker budget ...``."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from billing.budget_models import Budget
from billing.services import ensure_consumer
from gpubroker.cli import app
from sessions_app.models import Event

pytestmark = pytest.mark.django_db
NO_AMOUNT = "is no amount of dollars: 0 or more, at most six decimals.\n"
PERCENTS = "--thresholds takes whole percents with commas, such as 50,80,95.\n"
OUT_OF_RANGE = "thresholds: at most 10 whole percents from 1 to 100\n"


def test_set_and_shown() -> None:
    ensure_consumer("me")
    made = CliRunner().invoke(app, ["budget", "set", "me", "--monthly", "12.5", "--soft", "--thresholds", "90, 10"])
    assert made.exit_code == 0
    found = json.loads(made.stdout)
    assert (found["mode"], found["thresholds"], found["total"]) == ("soft", [10, 90], None)
    assert (found["monthly"]["limit"], found["updated_by"]) == (12.5, "command")
    assert json.loads(CliRunner().invoke(app, ["budget", "show", "me"]).stdout) == found
    assert Event.objects.get(kind="budget_changed").actor == "command"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["set", "me"], 1, "monthly_limit: give monthly_limit, total_limit or both; DELETE takes a budget away\n"),
        (["set", "nobody", "--total", "1"], 1, "consumer nobody not found\n"),
        (["set", "me", "--total", "much"], 2, f"'much' {NO_AMOUNT}"),
        (["set", "me", "--total", "NaN"], 2, f"'NaN' {NO_AMOUNT}"),
        (["set", "me", "--total", "-1"], 2, f"'-1' {NO_AMOUNT}"),
        (["set", "me", "--total", "0.0000001"], 2, f"'0.0000001' {NO_AMOUNT}"),
        (["set", "me", "--total", "1", "--thresholds", "50%"], 2, PERCENTS),
        (["set", "me", "--total", "1", "--thresholds", "0"], 1, OUT_OF_RANGE),
        (["show", "me"], 1, "budget of me not found\n"),
    ],
)  # fmt: skip
def test_what_cannot_be(arguments: list[str], code: int, sentence: str) -> None:
    ensure_consumer("me")
    done = CliRunner().invoke(app, ["budget", *arguments])
    assert (done.exit_code, done.stderr) == (code, sentence)
    assert not Budget.objects.exists()
