"""``python -m tests.deploy.operations_check [--keep FOLDER]`` (``make operations-check``): docs/operations.md, walked.

Needs Debian, root, debootstrap and git. In a root of Debian 13 the document's packages are installed, its files
written, and its commands carried out as they stand there. Containers are processes of this machine; in front of them
stand Docker's proxy of the published port (imitated) and Debian's own Caddy with the document's Caddyfile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests import servers
from tests.deploy import operations
from tests.deploy.door import ADDRESS, Outside, Visitors
from tests.deploy.fronted import Fronted
from tests.deploy.image_check import say
from tests.deploy.login import log_in
from tests.deploy.operations import NAME, shell
from tests.deploy.stranger import BACKUPS, FOLDER, HOURLY, ORIGIN, Machine, check_compose, empty_machine
from tests.deploy.test_deployment import Caller, alive, offers, status_of, until

FIRST, BACKUP, RESTORE, UPGRADE = "On an empty machine", "Backup", "Restore", "Upgrade"
MEGABYTE = 1_048_576
#: For whom the document makes a key.
CONSUMER = "my-team"
#: In which Caddy has noticed that the container leaves: it looks every second, and is refused a second later; doubled.
NOTICED_SECONDS = 5
#: Of a version to come: it fits the code before it, as the document's rules ask.
NEXT = """from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "{last}")]
    operations = [migrations.RunSQL("ALTER TABLE billing_apikey ADD COLUMN of_next_version text")]
"""


def expect(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise SystemExit(f"{what}: {got!r}, not {wanted!r}")
    say(f"  {what}: {wanted!r}")


def prepared(machine: Machine) -> None:
    """Up to the moment before the first ``docker compose up``."""
    say("== the packages, the clone and the secrets")
    machine.publish()
    packages, key, environment = shell(FIRST)[:3]
    machine.shell(packages.replace(operations.CLONED, ORIGIN), folder="/")
    for program in ("docker compose", "docker buildx", "caddy", "git", "curl"):
        words = [*program.split(), "version" if program not in ("git", "curl") else "--version"]
        say(f"    {machine.chrooted(*words).stdout.splitlines()[0]}")
    secrets = machine.inside(f"{FOLDER}/deploy/secrets")
    expect("who may enter the secrets", stat.S_IMODE(secrets.stat().st_mode), 0o700)
    machine.shell(key.replace(operations.KEY, "sandbox-key"))
    machine.shell(environment.replace("docker compose up", "docker compose config --quiet #"))
    say("== compose.yaml as Debian's Compose reads it")
    check_compose(machine)
    machine.inside("/etc/caddy/Caddyfile").write_text(operations.caddyfile())
    machine.chrooted("caddy", "validate", "--config", "/etc/caddy/Caddyfile")
    say("  the Caddyfile is valid as it stands")


def brought_up(walk: Fronted) -> Outside:
    say("== up")
    walk.shell("docker compose up" + shell(FIRST)[2].partition("docker compose up")[2])
    printed = walk.shell(shell(FIRST)[3])
    key = next(word for word in printed.split() if word.startswith("gpb_"))
    outside = walk.start_caddy(key)
    reload, *asking = shell(FIRST)[4].strip().splitlines()
    expect("the line before the first requests", reload, "systemctl reload caddy")
    walk.machine.inside("/root/.curlrc").write_text(
        f'connect-to = "{NAME}:443:127.0.0.1:{outside.port}"\ncacert = "{walk.AUTHORITY}"\n'
    )
    for line in asking:
        say(f"    {walk.machine.shell(line.replace(operations.PRESENTED, key))[:90]}")
    return outside


def looked_at(walk: Fronted, outside: Outside) -> None:
    say("== from outside")
    for path in ("/metrics", "/metrics/", "//metrics", "/metrics/process", "/%6detrics", "/x/../metrics", "/METRICS"):
        expect(path, outside("GET", path)[0], 404)
    expect("/metrics inside", walk.inside("GET", "/metrics"), 200)
    expect("no key", Outside(outside.port, walk.authority)("GET", "/api/v1/inventory")[0], 401)
    status, _, body = outside("GET", "/api/v1/inventory", name="other.example.com")
    expect("another Host, from outside", (status, body), (200, b""))  # Caddy's own, for names that it does not have
    expect("another Host, at the broker", walk.inside("GET", "/api/v1/inventory", Host="other.example.com"), 400)
    expect("http", walk.by_http("/ready"), (308, f"https://{NAME}/ready"))
    headers = outside("GET", "/ready")[1]
    expect("HSTS", headers["Strict-Transport-Security"], "max-age=31536000")
    for size, wanted in ((MEGABYTE, 400), (MEGABYTE + 1, 413)):
        body = b'{"consumer_id":"' + b"x" * (size - 18) + b'"}'
        expect(f"a body of {len(body)} bytes", outside("POST", "/api/v1/sessions", body)[0], wanted)
    # A cross-site check that passes proves that X-Forwarded-Proto is believed, the failure's address X-Forwarded-For.
    expect("staff logs in over https", log_in(outside, walk.STAFF, walk.PASSWORD), (302, "/admin/"))
    expect("with a wrong password", log_in(outside, walk.STAFF, "wrong", forwarded="192.0.2.7"), (200, None))
    with psycopg.connect(walk.url) as database:
        seen = database.execute("SELECT address FROM common_loginfailure").fetchall()
    expect("whose address is Caddy's word, not the caller's", seen, [(ADDRESS,)])


def rented(outside: Outside, call: Caller, offer: str) -> str:
    """From outside, by a create that waits for its verdict; until it runs."""
    began = time.monotonic()
    body = {"consumer_id": CONSUMER, "offer_id": offer, "workload_type": "batch", "reservation_hours": 1}
    status, made = outside.json("POST", "/api/v1/sessions", body, Prefer="wait=20")
    if status != 201:
        raise SystemExit(f"no session: {status} {made}")
    say(f"  a create had its verdict after {time.monotonic() - began:.1f} s: {made['session']['status']}")
    session = str(made["session"]["id"])
    until(lambda: status_of(call, session) == "running", "the session runs", 120)
    return session


def backed_up_and_restored(walk: Fronted, outside: Outside) -> None:
    say("== backup")
    call = Caller(walk.deployment, outside.key)
    one, two, three = offers(call)[:3]
    kept, ended = rented(outside, call, one), rented(outside, call, two)
    by_hand, hourly = shell(BACKUP)
    walk.shell(by_hand)
    walk.machine.inside(HOURLY).mkdir(exist_ok=True)
    walk.shell(hourly)
    walk.shell(f"{HOURLY}/gpubroker-backup")
    dumps = sorted(walk.machine.inside(BACKUPS).glob("gpubroker*"))
    expect("the dumps are nobody else's", [stat.S_IMODE(path.stat().st_mode) for path in dumps], [0o600, 0o600])
    expect("the session that ends after it", call("DELETE", f"/api/v1/sessions/{ended}")[0] in (200, 202), True)
    until(lambda: status_of(call, ended) == "stopped", "it is over", 120)
    unknown = rented(outside, call, three)
    expect("machines", alive(walk.deployment), 2)

    say("== restore, with a new secret_key")
    for name in ("secret_key", "grafana_password"):
        (walk.deployment.secrets / name).unlink()
    walk.shell(f"sh {FOLDER}/deploy/docker/make-secrets.sh")
    walk.shell(shell(RESTORE)[0])
    expect("the machine rented after the dump is in no book", call("GET", f"/api/v1/sessions/{unknown}")[0], 404)
    until(lambda: status_of(call, ended) in ("stopped", "failed"), "the sweep finds the ended one gone", 120)
    until(lambda: alive(walk.deployment) == 1, "the sweep destroys the machine that nobody knows", 120)
    expect(
        "the session of the dump, from outside", outside.json("GET", f"/api/v1/sessions/{kept}")[1]["status"], "running"
    )
    expect("its private key is sealed with the old key, and opens", walk.opens(kept), True)


def upgraded(walk: Fronted, outside: Outside) -> None:
    say("== upgrade, while others ask")
    last = sorted(walk.machine.inside(f"{ORIGIN}/billing/migrations").glob("0*.py"))[-1].stem
    number = int(last[:4]) + 1
    walk.machine.inside(f"{ORIGIN}/billing/migrations/{number:04}_next.py").write_text(NEXT.format(last=last))
    walk.machine.commit("The version after")
    with Visitors(outside) as visitors:
        walk.shell(shell(UPGRADE)[0].replace("git pull", f"git pull --quiet {walk.machine.inside(ORIGIN)} main"))
    with psycopg.connect(walk.url) as database:
        found = database.execute(
            "SELECT count(*) FROM information_schema.columns WHERE column_name = 'of_next_version'"
        )
        expect("the new version's column", found.fetchone(), (1,))
    expect("the old version answered while it was added", walk.answered_between, True)
    first = min((at for _, at, _, status in visitors.seen if status in (502, 503)), default=0)
    counts = visitors.statuses()
    for kind, of_kind in counts.items():
        slowest = max(seconds for name, _, seconds, _ in visitors.seen if name == kind)
        say(f"  {kind}: {dict(of_kind)}, {slowest:.1f} s at most")
        refused = [at - first for name, at, _, status in visitors.seen if name == kind and status in (502, 503)]
        say(f"    refused {len(refused)}, the last one {max(refused, default=0):.1f} s after the first")
    expect("GET", set(counts["GET"]), {200})
    expect("DELETE", set(counts["DELETE"]), {404})
    expect("POST with a key, or refused by Caddy", set(counts["POST with a key"]) <= {400, 502}, True)
    late = [at - first for name, at, _, status in visitors.seen if name == "POST with a key" and status == 502]
    expect("refused only at first, for less than so many seconds", max(late, default=0) < NOTICED_SECONDS, True)


def restarted(walk: Fronted, outside: Outside) -> None:
    say("== the machine restarts: everything at once, in any order")
    walk.kill_all()
    walk.database.stop()
    walk.start_all()
    time.sleep(5)
    walk.database.start()
    for role in walk.ROLES:
        walk.deployment.wait_well(role, 150)
    until(lambda: outside("GET", "/ready")[0] == 200, "ready again")
    for role, megabytes in walk.memory().items():
        say(f"  {role}: {megabytes} MB")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.operations_check")
    parser.add_argument("--keep", type=Path, help="work there and leave everything")
    asked = parser.parse_args(arguments)
    if os.geteuid() or shutil.which("debootstrap") is None:
        say("this needs root and debootstrap (apt-get install debootstrap)")
        return 1
    # Leaving by an exception ends the processes; the default action of these signals would not.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="gpubroker-operations-") as own:
        folder = asked.keep or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        machine = empty_machine(folder / "root")
        prepared(machine)
        with (
            servers.postgres_server(synchronous_commit="on", max_connections="300") as database,
            servers.valkey() as queue,
            Fronted(machine, folder, database, queue) as walk,
        ):
            outside = brought_up(walk)
            steps: list[Callable[[Fronted, Outside], None]] = [looked_at, backed_up_and_restored, upgraded, restarted]
            for step in steps:
                step(walk, outside)
    say("== the document holds")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
