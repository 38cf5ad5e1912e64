"""The runbook as a page: every alert's section is there, and nothing of the file is taken for markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.test import Client

from gpubroker.console import runbook
from tests.console.people import person, text

PAGE = "/admin/runbook/"


@pytest.mark.django_db
def test_every_alert_has_its_section() -> None:
    rules = (Path(project.BASE_DIR) / "deploy" / "prometheus" / "rules").glob("*.yml")
    wanted = {
        anchor for path in rules for anchor in re.findall(r"runbook_url: docs/runbook.md#(\w+)", path.read_text())
    }
    assert len(wanted) > 20
    page = person("viewer").get(PAGE)
    assert wanted - set(re.findall(r'id="(\w+)"', page.content.decode())) == set()
    assert "Look at" in text(page)
    assert Client().get(PAGE).headers["Location"].startswith("/admin/login/")


@pytest.mark.django_db
def test_an_installation_without_the_file_says_so(settings: Any, tmp_path: Path) -> None:
    settings.BASE_DIR = tmp_path
    assert "The runbook does not come with this installation." in text(person("viewer").get(PAGE))


def test_what_is_read() -> None:
    alert = "## Alert\n*Warning.* Words of\ntwo lines.\n- **Look** [here](x.md)\n  on\n- Press\n"
    told = f"# Title\nOne `<b>` and **two**.\n\n{alert}"
    first, second = runbook.read(told)
    assert first == {
        "level": 1, "title": "Title", "anchor": "title",
        "blocks": [{"text": "One <code>&lt;b&gt;</code> and <strong>two</strong>."}],
    }  # fmt: skip
    assert second == {
        "level": 2, "title": "Alert", "anchor": "alert",
        "blocks": [
            {"text": "<em>Warning.</em> Words of two lines."},
            {"points": ["<strong>Look</strong> here on", "Press"]},
        ],
    }  # fmt: skip
