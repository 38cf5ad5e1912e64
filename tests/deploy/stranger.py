"""The empty machine of docs/operations.md: a Debian root in which its packages are installed, and a ``docker`` that
carries out the document's lines on processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from tests.deploy import composed, operations
from tests.deploy.image_check import CARRIED, debian, say
from tests.stack import ROOT

SUITE = "trixie"
FOLDER, BACKUPS, HOURLY = "/opt/gpubroker", "/var/backups", "/etc/cron.hourly"
#: Where the root finds what the document clones.
ORIGIN = "/srv/gpubroker"
IDENTITY = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")


def show(text: str) -> None:
    for line in text.strip().splitlines():
        say(f"  $ {re.sub('gpb_[a-z0-9_]+', operations.PRESENTED, line)}")


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkout = self.inside(FOLDER)

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def chrooted(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
        own = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
        }
        done = subprocess.run(
            ["chroot", str(self.root), *words], env={**own, **carried, **environment}, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done

    def shell(self, text: str, folder: str = FOLDER) -> str:
        """The document's commands, in the root."""
        show(text)
        return self.chrooted("sh", "-euc", f"cd {folder}\n{text}", DEBIAN_FRONTEND="noninteractive").stdout

    def publish(self) -> None:
        """This work tree as the repository that the document clones."""
        origin = self.inside(ORIGIN)
        origin.mkdir(parents=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout.split(b"\0"):
            path = Path(os.fsdecode(name))
            if name and (ROOT / path).is_file():
                (origin / path).parent.mkdir(parents=True, exist_ok=True)
                (origin / path).write_bytes((ROOT / path).read_bytes())
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=origin, check=True)
        self.commit("What is here")

    def commit(self, message: str) -> None:
        for words in (["add", "--all"], [*IDENTITY, "commit", "--quiet", f"--message={message}"]):
            subprocess.run(["git", *words], cwd=self.inside(ORIGIN), check=True)

    def here(self, text: str) -> str:
        """The document's commands with their paths as this machine sees them."""
        for path in (FOLDER, BACKUPS, HOURLY):
            text = text.replace(path, str(self.inside(path)))
        return text


def empty_machine(root: Path) -> Machine:
    debian(root, SUITE, "ca-certificates")
    return Machine(root)


class Docker:
    """``docker`` on the PATH: ``handler`` gets what stands after ``compose`` and says what to run in its place."""

    def __init__(
        self, folder: Path, handler: Callable[[list[str]], tuple[list[str], dict[str, str], Path] | None]
    ) -> None:
        self.folder, self._handler = folder, handler
        folder.mkdir()
        self._listener = Listener(str(folder / "socket"))
        program = folder / "docker"
        lines = [f"#!{sys.executable}", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
        lines += ["from tests.deploy.stranger import as_docker", f"as_docker({str(folder / 'socket')!r})", ""]
        program.write_text("\n".join(lines))
        program.chmod(0o755)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                with self._listener.accept() as caller:
                    caller.send(self._answer(caller.recv()))

    def close(self) -> None:
        self._listener.close()

    def _answer(self, words: list[str]) -> Any:
        try:
            return self._handler(words)
        except BaseException:  # noqa: BLE001 - told to whoever asked, as a command that fails
            return traceback.format_exc()

    def shell(self, text: str, folder: Path, **environment: str) -> str:
        """Commands of the document on this machine, word for word, with this ``docker``."""
        show(text)
        path = f"{self.folder}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-euc", text], cwd=folder, env={**os.environ, "PATH": path, **environment}, text=True,
            stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"failed with {done.returncode}: {text}\n{done.stdout}")
        return done.stdout


def as_docker(address: str) -> None:
    """What the program ``docker`` does."""
    with Client(address) as serving:
        serving.send(sys.argv[1:])
        answer = serving.recv()
    if isinstance(answer, str):
        sys.exit(answer)
    if answer is not None:
        command, environment, folder = answer
        os.chdir(folder)
        os.execvpe(command[0], command, environment)  # noqa: S606 - in our place, with our input and output


def check_compose(machine: Machine) -> None:
    """Debian's own Compose reads the file in every way that the document names, and knows every flag; and the processes
    of this check get the commands and environments that it would give to containers."""
    for asked in operations.compose_lines():
        known = machine.chrooted("docker", "compose", asked.verb, "--help").stdout
        unknown = [flag for flag in asked.flags if flag not in known]
        if unknown:
            raise SystemExit(f"docker compose {asked.verb} has no {unknown}")
    read = json.loads(machine.shell("docker compose config --format json"))["services"]
    ours = composed.read(**composed.env_file(machine.checkout / ".env"))["services"]
    for name, service in read.items():
        for part in ("command", "environment"):
            # It writes the file anew, so that a dollar is two again.
            real, own = (json.dumps(each.get(part), sort_keys=True) for each in (service, ours[name]))
            if real.replace("$$", "$") != own:
                raise SystemExit(f"{part} of {name}: Compose reads {real}, and we {own}")
    machine.inside(f"{FOLDER}/compose.override.yaml").write_text(operations.override())
    for options in ("", "--env-file deploy/docker/sandbox.env", "--profile monitoring"):
        told = machine.shell(f"docker compose {options} config --services")
        say(f"    {' '.join(sorted(told.split()))}")
    machine.inside(f"{FOLDER}/compose.override.yaml").unlink()
