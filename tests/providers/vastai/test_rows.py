"""Instance rows: phases, addresses, rates (the contract's sections 4.3 to 4.5)."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from providers.base import Instance, Phase, SSHEndpoint
from providers.http import safe_text
from providers.vastai import start_failure
from providers.vastai.instances import phase_of, port_map, read_instance, ssh_endpoints
from tests.providers.vastai.conftest import instance_row


def read(**changes: Any) -> Instance:
    row = json.loads(json.dumps(instance_row(**changes)), parse_float=Decimal)
    instance = read_instance(row, safe_text)
    assert instance is not None
    return instance


def test_a_row_is_read_exactly() -> None:
    assert read() == Instance(
        instance_id="9000001",
        label="gpb-prod-abcdefghijklmn27-1",
        phase=Phase.RUNNING,
        status="running",
        status_message="success, running nvidia/cuda:12.4.1/ssh",
        ssh_endpoints=(
            SSHEndpoint("203.0.113.9", 40022, "root", "direct"),
            SSHEndpoint("ssh5.vast.ai", 31234, "root", "proxy"),
        ),
        ports={22: ("203.0.113.9", 40022)},
        gpu_name="RTX 4090",
        gpu_count=2,
        vram_mb=24564,
        gpu_price_per_hour=Decimal("0.8"),
        storage_price_per_hour=Decimal("0.0138888"),
        created_at=datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC),
        ends_at=datetime.fromtimestamp(1_773_000_000, UTC),
        machine_id="501",
    )


def test_a_row_fresh_from_create_has_next_to_nothing() -> None:
    instance = read_instance({"id": 5, "label": None, "actual_status": None}, safe_text)
    assert instance == Instance("5", "", Phase.BOOTING, "", "")


STOPPED = {"cur_state": "stopped", "next_state": "stopped", "intended_status": "stopped"}
OCI = "Error: OCI runtime create failed: runc create failed"


@pytest.mark.parametrize(
    ("changes", "phase", "note"),
    [
        ({"actual_status": None}, Phase.BOOTING, ""),
        ({"actual_status": ""}, Phase.BOOTING, ""),
        ({"actual_status": "created"}, Phase.BOOTING, ""),
        ({"actual_status": "created", "status_msg": OCI}, Phase.FAILED, ""),
        ({"actual_status": "created", "status_msg": "Error response from daemon: no"}, Phase.FAILED, ""),
        ({"actual_status": "created", "status_msg": None}, Phase.BOOTING, ""),
        ({"actual_status": "loading"}, Phase.BOOTING, ""),
        ({"actual_status": "loading", "status_msg": OCI}, Phase.FAILED, ""),
        ({"actual_status": None, "status_msg": "Error: pull access denied for x"}, Phase.FAILED, ""),
        ({"actual_status": "loading", "status_msg": "write: no space left on device"}, Phase.FAILED, ""),
        ({"actual_status": "loading", "status_msg": "No such image: x:latest"}, Phase.FAILED, ""),
        ({"actual_status": "loading", "status_msg": "error pulling image, retrying: i/o timeout"}, Phase.BOOTING, ""),
        ({"actual_status": "running"}, Phase.RUNNING, ""),
        ({"actual_status": "Running"}, Phase.RUNNING, ""),
        ({"actual_status": "running", "status_msg": OCI}, Phase.RUNNING, ""),
        ({"actual_status": "stopped"}, Phase.STOPPED, ""),
        ({"actual_status": "exited"}, Phase.FAILED, ""),
        ({"actual_status": "offline"}, Phase.FAILED, ""),
        ({"actual_status": "unknown"}, Phase.UNKNOWN, ""),
        ({"actual_status": "rebooting"}, Phase.BOOTING, ""),
        ({"actual_status": "recycling"}, Phase.BOOTING, ""),
        ({"actual_status": "frozen"}, Phase.UNKNOWN, ""),
        ({"actual_status": "dancing"}, Phase.UNKNOWN, ""),
        ({"actual_status": 5}, Phase.BOOTING, ""),
        ({"actual_status": "exited", **STOPPED}, Phase.STOPPED, ""),
        ({"actual_status": "running", **STOPPED}, Phase.STOPPED, ""),
        ({"actual_status": None, **STOPPED}, Phase.STOPPED, ""),
        (
            {"actual_status": "stopped", "intended_status": "running", "cur_state": "stopped"},
            Phase.STOPPED,
            "start queued until a GPU is free",
        ),
        (
            {"actual_status": None, "intended_status": "running", "cur_state": "stopped", "next_state": "running"},
            Phase.STOPPED,
            "start queued until a GPU is free",
        ),
    ],
)
def test_phases(changes: dict[str, Any], phase: Phase, note: str) -> None:
    assert phase_of(instance_row(**changes)) == (phase, note)


def test_the_note_stands_before_the_vendors_words() -> None:
    instance = read(actual_status="stopped", cur_state="stopped", status_msg="waiting")
    assert instance.status_message == "start queued until a GPU is free: waiting"


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        ("loading", "Pull access denied for nobody/nothing", "Pull access denied for nobody/nothing"),
        ("loading", "write: no space left on device", "write: no space left on device"),
        ("created", OCI, OCI),
        ("", "manifest unknown", "manifest unknown"),
        ("loading", "Pulling fs layer 3/12", ""),
        ("loading", "", ""),
        ("running", "error: old news", ""),
        ("exited", "failed", ""),
    ],
)
def test_start_failures(status: str, message: str, reason: str) -> None:
    assert start_failure(status, message) == reason


def test_secrets_in_the_status_message_are_hidden() -> None:
    assert read(status_msg="jupyter_token=abc123 started").status_message == "jupyter_token=[redacted] started"


ANY_IPV4 = "0.0.0.0"
DIRECT = SSHEndpoint("203.0.113.9", 40022, "root", "direct")
PROXY = SSHEndpoint("ssh5.vast.ai", 31234, "root", "proxy")


@pytest.mark.parametrize(
    ("changes", "endpoints"),
    [
        ({}, (DIRECT, PROXY)),
        ({"ports": None}, (PROXY,)),
        ({"ports": {}}, (PROXY,)),
        ({"ports": {"22/tcp": None}}, (PROXY,)),
        ({"ports": {"22/tcp": []}}, (PROXY,)),
        ({"ports": {"22/udp": [{"HostPort": "40022"}]}}, (PROXY,)),
        ({"ports": [22, 8000]}, (PROXY,)),
        ({"ports": "22"}, (PROXY,)),
        ({"public_ipaddr": None}, (PROXY,)),
        ({"public_ipaddr": " \n"}, (PROXY,)),
        ({"public_ipaddr": "-oProxyCommand=sh"}, (PROXY,)),
        ({"public_ipaddr": "1.2.3.4 5.6.7.8"}, (PROXY,)),
        ({"ssh_host": None}, (DIRECT,)),
        ({"ssh_host": "-x"}, (DIRECT,)),
        ({"ssh_port": None}, (DIRECT,)),
        ({"ssh_port": 70_000}, (DIRECT,)),
        ({"ssh_port": "31234"}, (DIRECT, PROXY)),
        ({"ports": None, "ssh_port": None}, ()),
        (
            {"image_runtype": "jupyter_direc ssh_direc ssh_proxy"},
            (DIRECT, SSHEndpoint("ssh5.vast.ai", 31235, "root", "proxy")),
        ),
        ({"image_runtype": None}, (DIRECT, PROXY)),
        ({"public_ipaddr": "2001:db8::1"}, (SSHEndpoint("2001:db8::1", 40022, "root", "direct"), PROXY)),
    ],
)
def test_ssh_endpoints(changes: dict[str, Any], endpoints: tuple[SSHEndpoint, ...]) -> None:
    assert ssh_endpoints(instance_row(**changes)) == endpoints


@pytest.mark.parametrize(
    ("bindings", "outside"),
    [
        ([{"HostIp": ANY_IPV4, "HostPort": "20000"}], 20000),
        ([{"HostIp": "::", "HostPort": "20001"}, {"HostIp": ANY_IPV4, "HostPort": "20000"}], 20000),
        ([{"HostIp": "::", "HostPort": "20001"}], 20001),
        ([{"HostPort": 20000}], 20000),
        ([None, {"HostPort": "x"}, {"HostPort": "20000"}], 20000),
        ([{"HostPort": "0"}], None),
        ([{"HostPort": "65536"}], None),
        ([{"HostPort": ""}], None),
        ({"HostPort": "20000"}, None),
        ("20000", None),
    ],
)
def test_bindings(bindings: Any, outside: int | None) -> None:
    expected = {} if outside is None else {8000: ("203.0.113.9", outside)}
    assert port_map(instance_row(ports={"8000/tcp": bindings})) == expected


def test_odd_port_keys() -> None:
    good = [{"HostPort": "20000"}]
    ports = {"8000/tcp": good, "9000": good, "0/tcp": good, "70001/tcp": good, "x/tcp": good, "": good, "53/udp": good}
    assert set(port_map(instance_row(ports=ports))) == {8000, 9000}


@pytest.mark.parametrize(
    ("changes", "gpu", "storage"),
    [
        ({}, Decimal("0.8"), Decimal("0.0138888")),
        ({"storage_total_cost": None}, Decimal("0.8"), Decimal("0.2") * 50 / 720),
        ({"storage_total_cost": 0}, Decimal("0.8"), Decimal(0)),
        ({"dph_base": None}, Decimal("0.8138888") - Decimal("0.0138888"), Decimal("0.0138888")),
        ({"dph_base": None, "dph_total": None}, None, Decimal("0.0138888")),
        ({"storage_total_cost": None, "storage_cost": None}, Decimal("0.8"), None),
        ({"dph_base": None, "storage_total_cost": None, "disk_space": None}, None, None),
        ({"dph_base": "0.25"}, Decimal("0.25"), Decimal("0.0138888")),
        ({"dph_base": -1, "dph_total": 0.001}, Decimal(0), Decimal("0.0138888")),
    ],
)
def test_rates(changes: dict[str, Any], gpu: Decimal | None, storage: Decimal | None) -> None:
    instance = read(**changes)
    assert (instance.gpu_price_per_hour, instance.storage_price_per_hour) == (gpu, storage)


@pytest.mark.parametrize("value", [None, 0, -1, "soon", 1e20, True, [], {}])
def test_odd_times(value: Any) -> None:
    instance = read(start_date=value, end_date=value)
    assert (instance.created_at, instance.ends_at) == (None, None)


def test_a_label_keeps_its_blanks() -> None:
    assert read(label=" gpb-x ").label == " gpb-x "
    assert read(label="a\x00b").label == "a\ufffdb"
