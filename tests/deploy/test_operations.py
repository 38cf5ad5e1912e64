"""docs/operations.md names what there is. ``make operations-check`` carries out its lines."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.deploy import composed, operations
from tests.stack import ROOT

SERVICES = composed.read()["services"]
SHELL = [block.text for block in operations.blocks() if block.language == "sh"]
#: Settings, without a value or with their default.
KNOWN = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


@pytest.mark.parametrize("text", SHELL)
def test_commands_are_complete(text: str) -> None:
    read = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("asked", operations.compose_lines(), ids=lambda asked: asked.text)
def test_compose_is_asked_for_services_that_are_there(asked: operations.Asked) -> None:
    assert set(asked.services) <= set(SERVICES)
    assert (ROOT / asked.options.get("--env-file", "compose.yaml")).is_file()
    profiles = {name for service in SERVICES.values() for name in service.get("profiles", [])}
    assert asked.options.get("--profile", "sandbox") in profiles


def test_the_machines_settings_reach_the_broker() -> None:
    (lines,) = [text for text in SHELL if text.startswith("cat > .env ")]
    given = dict(line.split("=", 1) for line in lines.split("\n") if re.match(r"[A-Z_]+=", line))
    assert set(given) == {"SECURE", "TRUSTED_PROXIES", "ALLOWED_HOSTS"}
    read = composed.read(**given)["services"]
    assert {name: read["web"]["environment"][name] for name in given} == given
    # Caddy's health check comes with this one, Prometheus with the other.
    assert {operations.NAME, "web", "127.0.0.1"} == set(given["ALLOWED_HOSTS"].split(","))


def test_a_file_of_ones_own_settings_is_one_that_compose_reads() -> None:
    own = yaml.safe_load(operations.override())["services"]
    assert set(own) == {"web", "worker", "beat"}
    for service in own.values():
        assert set(service["environment"]) == {"ORPHAN_GRACE_SECONDS"} <= KNOWN


def test_what_caddy_sends_twice_may_be_sent_twice() -> None:
    """No POST without a key; and it looks at a path that answers without a database."""
    text = operations.caddyfile()
    assert operations.PUBLISHED in SERVICES["web"]["ports"][0] + ":"
    assert re.findall(r"lb_retry_match \{\s+(.*)\s+\}", text) == [
        "method GET HEAD PUT PATCH DELETE",
        "header Idempotency-Key *",
    ]
    assert re.findall(r"health_uri (.*)", text) == ["/api/docs"]
    assert re.findall(r"lb_try_duration (\d+)s", text) == ["90"]


def test_the_backups_of_the_document_are_for_nobody_else() -> None:
    dumping = [text for text in SHELL if "pg_dump" in text]
    assert len(dumping) == 3
    assert all("umask 077" in text for text in dumping)
