"""compose.yaml and the Dockerfile say what they promise. ``make image-check`` also runs every step of the image."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpubroker import leaving, roles
from tests.deploy import composed
from tests.deploy.dockerfile import parse
from tests.stack import ROOT

FILE = composed.read()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
#: Those that run our image.
BROKER = sorted(name for name, service in SERVICES.items() if service["image"].startswith("gpubroker:"))
#: What the Dockerfile sets for all roles.
OF_THE_IMAGE = {"PGOPTIONS"}


def test_who_is_there_and_when() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "migrate": [], "web": [], "worker": [], "beat": [], "postgres": [], "redis": [], "sandbox": ["sandbox"],
        "prometheus": ["monitoring"], "grafana": ["monitoring"],
    }  # fmt: skip
    assert BROKER == ["beat", "migrate", "sandbox", "web", "worker"]
    assert {SERVICES[name]["image"] for name in BROKER} == {"gpubroker:latest"}


def test_the_command_decides_the_role_and_each_role_exists() -> None:
    source = (ROOT / "gpubroker" / "cli.py").read_text()
    for name in BROKER:
        assert f"def {SERVICES[name]['command'][0]}(" in source


def test_nobody_starts_before_the_schema_is_there() -> None:
    for name in ("web", "worker", "beat"):
        assert SERVICES[name]["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "redis": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
    assert SERVICES["migrate"]["restart"] == "on-failure:5"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_restarts_has_limits_and_bounded_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] in ("unless-stopped", "on-failure:5")
    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    lasting = name != "migrate"
    assert sorted(service.get("deploy", {}).get("resources", {}).get("limits", {})) == (
        ["cpus", "memory", "pids"] if lasting else []
    )
    assert re.fullmatch(r"[a-z/]+:[a-z0-9.-]+", service["image"])
    assert not service.get("privileged")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nobody_has_more_rights_than_are_named(name: str) -> None:
    """PostgreSQL's are what its entry point needs before it becomes another user; it fails without any of them."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    needed = {"postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]}
    assert service.get("cap_add", []) == needed.get(name, [])


@pytest.mark.parametrize("name", BROKER)
def test_a_broker_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "user" not in service  # the image's own, which is not root


def test_whoever_is_stopped_has_the_time_that_it_takes() -> None:
    def grace(name: str) -> int:
        return int(SERVICES[name]["stop_grace_period"].removesuffix("s"))

    assert grace("web") > roles.STOP_SECONDS + leaving.SECONDS
    # No machine is ended while the worker is away, so it is not waited for: leases bring back what it had in hand.
    assert grace("worker") == grace("beat") == 15
    assert grace("postgres") >= 60


def test_ports_are_open_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "web": ["127.0.0.1:8080:8080"], "prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"],
    }  # fmt: skip


def test_everything_that_is_named_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(FILE["secrets"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in FILE["volumes"] or source.startswith("./deploy/"), volume


@pytest.mark.parametrize("name", BROKER)
def test_settings_are_ours_and_secrets_are_files(name: str) -> None:
    known = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)) | OF_THE_IMAGE
    environment = SERVICES[name].get("environment") or {}
    for setting, value in environment.items():
        assert setting.removesuffix("_FILE") in known, setting
        if setting.endswith("_FILE"):
            assert value == f"/run/secrets/{setting.removesuffix('_FILE').lower()}"
            assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]
    secret = [setting for setting in environment if re.search(r"(KEY|KEYS|TOKEN|PASSWORD|_URL)$", setting)]
    assert set(secret) <= {"VASTAI_BASE_URL"}
    assert environment.get("API_AUTH", "key") == "key"


def test_the_sandbox_file_names_only_what_compose_asks_for() -> None:
    given = composed.env_file(ROOT / "deploy" / "docker" / "sandbox.env")
    assert given.pop("COMPOSE_PROFILES") == "sandbox"
    asked = set(re.findall(r"\$\{([A-Z_]+)", composed.FILE.read_text()))
    assert set(given) <= asked
    assert (ROOT / given["VASTAI_API_KEY_FILE"]).read_text().strip() == "sandbox-key"


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "docker" / "make-secrets.sh"
    folder = tmp_path / "secrets"
    subprocess.run(["sh", script, folder], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(FILE["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    assert made["postgres_password"].strip() in made["database_url"]
    assert len({made[name] for name in ("secret_key", "postgres_password", "redis_password", "grafana_password")}) == 4
    subprocess.run(["sh", script, folder], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_the_image_holds_every_package_and_nothing_secret() -> None:
    instructions = parse((ROOT / "Dockerfile").read_text())
    copied = {word for each in instructions if each.name == "COPY" and "--from" not in each.text
              for word in each.text.split()[:-1]}  # fmt: skip
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) <= copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    instructions = parse((ROOT / "Dockerfile").read_text())
    names = [each.name for each in instructions]
    assert names.count("FROM") == 2
    last = {each.name: each.text for each in instructions[len(names) - names[::-1].index("FROM") :]}
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"] == '["gpubroker"]'
    assert '"gpubroker.healthy", "web"' in last["HEALTHCHECK"]
    version = re.search(r"^UV_VERSION := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert f"uv=={version[1]}" in (ROOT / "Dockerfile").read_text()


def test_monitoring_finds_what_it_is_told_of() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["web:8080"]}]
    assert sorted(ROOT.glob("deploy/prometheus/rules/*.yml"))
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (boards,) = yaml.safe_load((provisioning / "dashboards" / "gpubroker.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == boards["options"]["path"]
    assert sorted(ROOT.glob("deploy/grafana/dashboards/*.json"))
