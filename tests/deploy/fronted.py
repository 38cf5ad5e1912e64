"""The services of compose.yaml as processes, published as Docker does it, with Debian's Caddy in front; and what the
document's ``docker compose`` lines do to them."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psycopg

from gpubroker.supervisor import ports
from tests.deploy import composed, operations
from tests.deploy.composed import Deployment
from tests.deploy.door import Outside, PublishedPort
from tests.deploy.image_check import say
from tests.deploy.operations import NAME
from tests.deploy.stranger import Docker, Machine
from tests.deploy.test_deployment import postgres_program, until
from tests.servers import Postgres

#: Beside those of the document's .env: the sandbox for a provider, no limit to the calls, and quicker clocks.
VARIABLES = {
    "SANDBOX": "on",
    "PROVIDER_PACE": "0.1",
    "VASTAI_BASE_URL": "http://sandbox:8900",
    "API_RATE_PER_MINUTE": "0",
}
CLOCKS = {"RECONCILE_SECONDS": "2", "ORPHAN_GRACE_SECONDS": "5", "LISTING_LAG_SECONDS": "3"}
OPENS = """
import django; django.setup()
from gpubroker.common.crypto import unseal
from sessions_app.models import Rental
print([unseal(each.broker_key_sealed).startswith("-----BEGIN") for each in Rental.objects.filter(session_id="{}")])
"""


class Fronted:
    ROLES = ("web", "worker", "beat")
    STAFF, PASSWORD = "admin", "a long enough password"
    #: In the root: of Caddy's own certificates, in place of the public ones.
    AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"

    def __init__(self, machine: Machine, folder: Path, database: Postgres, queue_url: str) -> None:
        self.machine, self.folder, self.database = machine, folder, database
        with psycopg.connect(database.url, autocommit=True) as maintenance:
            maintenance.execute("CREATE DATABASE gpubroker")
        self.url = database.url.removesuffix("postgres") + "gpubroker"
        variables = {**composed.env_file(machine.checkout / ".env"), **VARIABLES}
        secrets = machine.checkout / "deploy" / "secrets"
        (folder / "containers").mkdir()
        self.deployment = Deployment(
            folder / "containers", self.url, queue_url, variables, root=machine.checkout, secrets=secrets
        )
        self.deployment.more = CLOCKS
        self.door = PublishedPort(self.deployment.ports["web"])
        self.docker = Docker(folder / "bin", self._compose)
        self.authority = machine.inside(self.AUTHORITY)
        self.http = ports.free_port()
        self.answered_between = False
        self._version = ""
        self._caddy: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Fronted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            for role in self.deployment.processes:
                say(f"-- {role}: {self.deployment.log(role)[-1500:]}")
        self.door.close()
        self.docker.close()
        self.deployment.destroy()
        if self._caddy is not None:
            self._caddy.terminate()
            self._caddy.wait()

    def shell(self, text: str) -> str:
        return self.docker.shell(self.machine.here(text), self.machine.checkout)

    # --- what stands in the place of Docker
    def _compose(self, words: list[str]) -> tuple[list[str], dict[str, str], Path] | None:
        verb, *rest = words[1:]
        if verb == "exec":
            return self._executed([word for word in rest if word != "-T"])
        if verb == "stop":
            for role in rest:
                self._stop(role)
        elif verb == "up":
            self._up()
        elif verb != "build":
            raise ValueError(f"no such command here: {words}")
        return None

    def _executed(self, words: list[str]) -> tuple[list[str], dict[str, str], Path]:
        service, program, *rest = words
        if service == "postgres":
            password = self.database.url.split(":")[2].split("@")[0]
            own = {"PGHOST": "127.0.0.1", "PGPORT": str(self.database.port), "PGPASSWORD": password}
            return [postgres_program(program), *rest], {**os.environ, **own}, Path("/")
        environment = self.deployment.environment(service)
        if program == "django-admin":
            # Somebody who types.
            rest.append("--noinput")
            typed = {"USERNAME": self.STAFF, "EMAIL": "admin@example.com", "PASSWORD": self.PASSWORD}
            environment |= {f"DJANGO_SUPERUSER_{name}": value for name, value in typed.items()}
        module = {"django-admin": "django", "gpubroker": "gpubroker"}[program]
        return [sys.executable, "-m", module, *rest], environment, self.machine.checkout

    def _up(self) -> None:
        """Migrate, then start what does not run, and replace what runs in another version."""
        told = ["git", "rev-parse", "HEAD"]
        version = subprocess.run(told, cwd=self.machine.checkout, check=True, capture_output=True, text=True).stdout
        deployment = self.deployment
        if "sandbox" not in deployment.processes:
            deployment.start("sandbox")
            deployment.wait_well("sandbox")
        migrated = deployment.run("migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        if "web" in deployment.processes:
            self.answered_between = self.inside("GET", "/ready") == 200
        for role in self.ROLES:
            if role in deployment.processes and version != self._version:
                self._stop(role)
            if role not in deployment.processes:
                self._start(role)
        self._version = version
        for role in self.ROLES:
            deployment.wait_well(role, 150)

    def _start(self, role: str) -> None:
        self.deployment.start(role)
        if role == "web":
            self.door.open()

    def _stop(self, role: str) -> None:
        code = self.deployment.stop(role)
        if role == "web":
            self.door.close()
        if code:
            raise RuntimeError(f"{role} ended with {code}")

    def kill_all(self) -> None:
        """As a machine that loses its power."""
        self.door.close()
        for role in self.ROLES:
            process = self.deployment.processes.pop(role)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start_all(self) -> None:
        for role in self.ROLES:
            self._start(role)

    # --- Caddy
    def start_caddy(self, key: str) -> Outside:
        """With the document's file, but for the ports, and certificates of its own for the name."""
        port = ports.free_port()
        site = operations.caddyfile().replace(operations.PUBLISHED, f"127.0.0.1:{self.door.port}")
        site = site.replace(f"{NAME} {{", f"{NAME} {{\n\ttls internal", 1)
        general = f"{{\n\tadmin off\n\thttp_port {self.http}\n\thttps_port {port}\n\tskip_install_trust\n}}\n"
        self.machine.inside("/etc/caddy/walk").write_text(general + site)
        words = ["chroot", "--userspec=caddy:caddy", str(self.machine.root), "/usr/bin/env", "HOME=/var/lib/caddy"]
        with (self.folder / "caddy.log").open("ab") as log:
            self._caddy = subprocess.Popen(
                [*words, "caddy", "run", "--config", "/etc/caddy/walk", "--adapter", "caddyfile"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self.authority.exists, "Caddy makes its certificates")
        outside = Outside(port, self.authority, key)

        def answers() -> bool:
            try:
                return outside("GET", "/ready")[0] == 200
            except OSError:
                return False

        until(answers, "Caddy answers")
        return outside

    def by_http(self, path: str) -> tuple[int, str]:
        """Where Caddy sends one who comes without TLS; its port left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=30)
        connection.request("GET", path, headers={"Host": NAME})
        answer = connection.getresponse()
        connection.close()
        place = str(answer.headers["Location"])
        return answer.status, f"https://{NAME}{place.removeprefix(f'https://{NAME}').partition('/')[1]}{path[1:]}"

    # --- inside
    def inside(self, method: str, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.door.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def opens(self, session: str) -> bool:
        """Can the broker still read its key to this session's machine?"""
        done = subprocess.run(
            [sys.executable, "-c", OPENS.format(session)], env=self.deployment.environment("web"),
            cwd=self.machine.checkout, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip() == "[True]"

    def memory(self) -> dict[str, int]:
        """Megabytes that no other process shares, of each service and of the check that runs beside it."""
        found = {}
        for role in self.ROLES:
            process = self.deployment.processes[role]
            sizes = [_private(path) for path in Path("/proc").glob("[0-9]*") if _of_group(path, process.pid)]
            found[role] = sum(sizes) // 1024
        return found


def _of_group(path: Path, group: int) -> bool:
    try:
        return os.getpgid(int(path.name)) == group
    except ProcessLookupError:
        return False


def _private(path: Path) -> int:
    lines = (path / "status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
