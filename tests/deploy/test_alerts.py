"""Alert rules: valid, each fires when it should and is quiet when it should, and each has its page in the runbook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.promtool import promtool

ROOT = Path(__file__).resolve().parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
CASES = sorted((Path(__file__).parent / "alerts").glob("*.yml"))


def rules() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    found = [rule for group in groups for rule in group["rules"]]
    by_name = {rule["alert"]: rule for rule in found}
    assert len(by_name) == len(found)
    return by_name


def test_the_configuration_and_its_rules_are_valid() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_and_is_quiet_as_its_file_says() -> None:
    assert [path.stem for path in CASES] == sorted(rules())
    tested = promtool("test", "rules", *CASES)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_file_shows_both(path: Path) -> None:
    cases = yaml.safe_load(path.read_text())["tests"]
    looks = [each["alert_rule_test"] for each in cases]
    assert [[look["alertname"] for look in each] for each in looks] == [[path.stem], [path.stem]]
    assert [[len(look["exp_alerts"]) for look in each] for each in looks] == [[1], [0]]


def test_the_check_can_fail(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path / "deploy" / "prometheus")
    case = tmp_path / "tests" / "deploy" / "alerts" / "MachinePastItsEnd.yml"
    case.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "alerts" / case.name, case)
    changed = tmp_path / "deploy" / "prometheus" / "rules" / "lifecycle.yml"
    changed.write_text(changed.read_text().replace("max(gpu_session_past_end_seconds) > 120", "vector(0) > 1"))
    tested = promtool("test", "rules", case)
    assert tested.returncode == 1
    assert "MachinePastItsEnd" in tested.stdout + tested.stderr


def test_every_alert_has_its_page_in_the_runbook_and_every_page_its_alert() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    pages = dict(re.findall(r"^## (\w+)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    found = rules()
    assert sorted(pages) == sorted(found)
    for name, page in pages.items():
        rule = found[name]
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert page.startswith(f"*{rule['labels']['severity'].capitalize()}.* "), name
        assert re.findall(r"\*\*(look at|press|over)\*\*", page.lower()) == ["look at", "press", "over"], name
