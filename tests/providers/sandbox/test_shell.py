"""The little bash and its nvidia-smi, without a network."""

from __future__ import annotations

import pytest

from providers.sandbox.instances import Contract
from providers.sandbox.nvidia import gpus_of
from providers.sandbox.shell import Answer, Session
from providers.sandbox.sockets import Socket

NOW = 1_790_000_000.0


def machine(**changes: object) -> Contract:
    model = {"driver_name": "NVIDIA GeForce RTX 4090", "memory_mb": 24564, "compute_cap": 890}
    offer = {"model": model, "driver_version": "550.54.15", "cuda_max_good": 12.4}
    contract = Contract(
        id=42, account_id=1, ask_id=2, machine_id=3, num_gpus=2, label=None, created_at=NOW - 7300, ends_at=NOW,
        offer=offer, image="a:1", runtype="ssh", disk=20.0, gpu_rate=1.0, disk_rate=0.1, ports={}, proxy_port=1,
        host_key="", instance_key="", jupyter_token="", boot_at=NOW - 7300, boot_seconds=100.0,
    )  # fmt: skip
    for name, value in changes.items():
        setattr(contract, name, value)
    return contract


def run(
    line: str, keys: list[str] | None = None, logins: int = 0, contract: Contract | None = None
) -> tuple[str, str, int]:
    answer = Session(contract or machine(), NOW, keys or [], logins).run(line)
    return answer.out, answer.err, answer.code


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("echo hi", ("hi\n", "", 0)),
        ("echo -n hi", ("hi", "", 0)),
        ("echo 'a; b' && echo \"c && d\"", ("a; b\nc && d\n", "", 0)),
        ("true", ("", "", 0)),
        ("false", ("", "", 1)),
        ("false && echo no", ("", "", 1)),
        ("false || echo yes", ("yes\n", "", 0)),
        ("false; echo $?", ("1\n", "", 0)),
        ("sh -c 'echo a; echo b'", ("a\nb\n", "", 0)),
        ("bash -lc 'exit 3'", ("", "", 3)),
        ("exit 4; echo never", ("", "", 4)),
        ("nothing", ("", "bash: line 1: nothing: command not found\n", 127)),
        ("nothing 2>/dev/null", ("", "", 127)),
        ("echo quiet >/dev/null 2>&1", ("", "", 0)),
        ("/usr/bin/whoami", ("root\n", "", 0)),
        ("hostname", ("C.42\n", "", 0)),
        ("who", ("", "", 0)),
        ("cat /nope", ("", "cat: /nope: No such file or directory\n", 1)),
        ("", ("", "", 0)),
    ],
)
def test_commands(line: str, expected: tuple[str, str, int]) -> None:
    assert run(line) == expected


def test_the_kernels_table_of_connections() -> None:
    session = Session(machine(), NOW, [], 0)
    session.came_by = Socket(("10.0.0.1", 40_000), ("172.17.0.2", 22))
    session.sockets = [session.came_by, Socket(("10.0.0.2", 40_001), ("172.17.0.2", 22))]
    assert session.run("echo $SSH_CONNECTION").out == "10.0.0.1 40000 172.17.0.2 22\n"
    ours, theirs = session.run("grep -hs ' 01 ' /proc/net/tcp /proc/net/tcp6").out.splitlines()
    assert ours.split()[1:4] == ["020011AC:0016", "0100000A:9C40", "01"]
    assert theirs.split()[1:4] == ["020011AC:0016", "0200000A:9C41", "01"]
    head = session.run("cat /proc/net/tcp").out.splitlines()[0].split()
    assert head[:4] == ["sl", "local_address", "rem_address", "st"]
    assert session.run("grep -l address /proc/net/tcp").out == "/proc/net/tcp\n"
    assert session.run("grep address /proc/net/tcp6") == Answer(
        err="grep: /proc/net/tcp6: No such file or directory\n", code=2
    )
    assert session.run("grep nothing /etc/hostname").code == 1


def test_uptime_and_who_count_logins() -> None:
    out, _, _ = run("uptime", logins=1)
    assert " up 2:00,  1 user,  load average: 0.00" in out
    assert run("who", logins=2)[0].count("pts/") == 2


def test_df_shows_the_disk_that_was_ordered() -> None:
    assert "overlay          20G" in run("df -h")[0]


def test_authorized_keys() -> None:
    assert run("cat ~/.ssh/authorized_keys", ["one", "two"]) == ("one\ntwo\n", "", 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--query-gpu=name,memory.total --format=csv,noheader", "NVIDIA GeForce RTX 4090, 24564 MiB\n" * 2),
        ("--query-gpu=memory.total --format=csv,noheader,nounits", "24564\n24564\n"),
        ("--query-gpu index,count --format csv,noheader", "0, 2\n1, 2\n"),
        ("--query-gpu=utilization.gpu,pstate --format=csv", "utilization.gpu [%], pstate\n0 %, P8\n0 %, P8\n"),
        ("--query-gpu=driver_version,power.draw --format=csv,noheader -i 0", "550.54.15, 27.00 W\n"),
    ],
)  # fmt: skip
def test_queries(arguments: str, expected: str) -> None:
    assert run(f"nvidia-smi {arguments}") == (expected, "", 0)


def test_list_of_gpus_has_distinct_uuids() -> None:
    out, _, code = run("nvidia-smi -L")
    assert (code, out.count("NVIDIA GeForce RTX 4090 (UUID: GPU-")) == (0, 2)
    assert len(set(out.splitlines())) == 2


def test_wrong_questions_fail_as_the_real_one_does() -> None:
    assert run("nvidia-smi --query-gpu=colour --format=csv") == (
        'Field "colour" is not a valid field to query.\n\n',
        "",
        2,
    )
    assert run("nvidia-smi --query-gpu=name")[2] == 2
    assert run("nvidia-smi --frobnicate")[2] == 2


def test_the_table_is_straight() -> None:
    lines = run("nvidia-smi")[0].splitlines()
    assert {len(line) for line in lines if line.startswith(("|", "+"))} == {91}
    assert sum("NVIDIA GeForce RTX 4090" in line for line in lines) == 2
    assert sum("24564MiB" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("wrong", "count", "memory"),
    [({}, 2, 12282), ({"count": 1}, 1, 24564), ({"memory_mb": 8192}, 2, 8192), ({"count": 0}, 0, None)],
)
def test_wrong_gpus(wrong: dict[str, int], count: int, memory: int | None) -> None:
    gpus = gpus_of(machine(quirks={"wrong_gpu": wrong}))
    assert [gpu.memory_mb for gpu in gpus] == [memory] * count


def test_no_gpus_at_all() -> None:
    assert run("nvidia-smi", contract=machine(quirks={"wrong_gpu": {"count": 0}})) == ("No devices were found\n", "", 6)
