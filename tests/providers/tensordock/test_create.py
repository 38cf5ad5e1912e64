"""What a create sends, tries and makes of the answer (TensorDock contract, sections 5, 7 and 10)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from providers.base import Created
from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    NotFound,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
)
from tests.providers.tensordock.conftest import (
    BASE,
    GPU,
    KEY_ONE,
    KEY_TWO,
    LABEL,
    PLACE,
    PORTS_ONLY,
    VM,
    Vendor,
    embedded,
    issue,
    listed_row,
    made,
    order,
)

NO_IP = embedded("No available public IPs on this hostnode")
BAD_IMAGE = [issue("invalid_enum_value", "Invalid enum value. Expected 'ubuntu2204'", "image")]


def test_what_is_sent(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", made())
    created = vendor.client.create(
        order(env={"GPUBROKER_SESSION_ID": "sess-1"}, ports=(8000,), onstart="nohup serve &")
    )
    assert created == Created(VM)
    (sent,) = vendor.created
    assert sent == {
        "name": LABEL,
        "type": "virtualmachine",
        "image": "ubuntu2404",
        "resources": {"vcpu_count": 8, "ram_gb": 32, "storage_gb": 120, "gpus": {GPU: {"count": 1}}},
        "location_id": PLACE,
        "useDedicatedIp": True,
        "ssh_key": KEY_ONE,
        "cloud_init": {
            "runcmd": [
                "install -d -m 700 -o user -g user /home/user/.ssh",
                f"printf '\\n%s\\n' '{KEY_ONE}' >> /home/user/.ssh/authorized_keys",
                f"printf '\\n%s\\n' '{KEY_TWO}' >> /home/user/.ssh/authorized_keys",
                "chown user:user /home/user/.ssh/authorized_keys && chmod 600 /home/user/.ssh/authorized_keys",
                "install -d -m 700 -o root -g root /root/.ssh",
                f"printf '\\n%s\\n' '{KEY_ONE}' >> /root/.ssh/authorized_keys",
                f"printf '\\n%s\\n' '{KEY_TWO}' >> /root/.ssh/authorized_keys",
                "chown root:root /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys",
                "printf '%s\\n' 'GPUBROKER_SESSION_ID=\"sess-1\"' >> /etc/environment",
                "set -a; . /etc/environment; set +a\nnohup serve &",
            ]
        },
    }


def test_ports_are_forwarded_where_there_is_no_address(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", made(), 201)
    vendor.client.create(order(PORTS_ONLY, ports=(8000, 22, 8000)))
    (sent,) = vendor.created
    assert "useDedicatedIp" not in sent
    assert sent["port_forwards"] == [
        {"internal_port": 22, "external_port": 22},
        {"internal_port": 8000, "external_port": 8000},
    ]


@pytest.mark.parametrize(("asked", "sent"), [(8, 100), (100, 100), (101, 101)])
def test_a_disk_has_a_hundred_gb_at_least(vendor: Vendor, asked: int, sent: int) -> None:
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order(disk_gb=asked))
    assert vendor.created[0]["resources"]["storage_gb"] == sent


def test_the_commands_install_keys_and_variables(tmp_path: Path, vendor: Vendor) -> None:
    """Run for real by a shell, over files of ours, and with nobody to own them."""
    (tmp_path / "keys").write_text("ssh-rsa AAAAold without-newline")
    for tool in ("install", "chown"):
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    vendor.answer("POST", "/instances", made())
    vendor.client.create(order(env={"A": "it is 100% (fine) & well", "B": ""}, onstart='printf %s "$A" > out'))
    script = "\n".join(vendor.created[0]["cloud_init"]["runcmd"])
    for path, here in (
        ("/home/user/.ssh/authorized_keys", "keys"),
        ("/root/.ssh/authorized_keys", "root-keys"),
        ("/etc/environment", "./environment"),
    ):
        script = script.replace(path, here)
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (tmp_path / "root-keys").read_text() == f"\n{KEY_ONE}\n\n{KEY_TWO}\n"
    assert (tmp_path / "root-keys").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").read_text() == f"ssh-rsa AAAAold without-newline\n{KEY_ONE}\n\n{KEY_TWO}\n"
    assert (tmp_path / "environment").read_text() == 'A="it is 100% (fine) & well"\nB=""\n'
    assert (tmp_path / "out").read_text() == "it is 100% (fine) & well"


@pytest.mark.parametrize(
    "body",
    [
        made(),
        {"data": {"attributes": {"id": VM, "name": LABEL, "status": "queued"}}},
        {"id": VM, "name": LABEL, "status": "running"},
        {"data": {"id": VM}, "error": None},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_every_shape_of_success(vendor: Vendor, body: Any, status: int) -> None:
    vendor.answer("POST", "/instances", body, status)
    assert vendor.client.create(order()) == Created(VM)


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"type": "virtualmachine", "name": LABEL, "status": "running"}},
        {"data": {"id": "", "status": "running"}},
        {"data": {"id": None}},
        {"data": {"id": "../x"}},
        {"data": []},
        {},
        [],
        "",
        "<html>ok</html>",
        "null",
    ],
)
def test_a_success_without_an_id_is_unclear(vendor: Vendor, body: Any) -> None:
    vendor.answer("POST", "/instances", body)
    error = vendor.refuses(OutcomeUnknown, vendor.client.create, order())
    assert error.may_have_happened


@pytest.mark.parametrize(
    "fault",
    [
        requests.ReadTimeout("slow"),
        requests.ConnectionError("dropped"),
        requests.exceptions.ChunkedEncodingError("cut off"),
    ],
)
def test_a_create_whose_answer_is_lost(vendor: Vendor, fault: Exception) -> None:
    vendor.answer("POST", "/instances", fault)
    vendor.refuses(OutcomeUnknown, vendor.client.create, order())
    assert len(vendor.sent) == 1


REFUSALS: list[tuple[int, Any, type[ProviderError]]] = [
    (400, {"error": "No available nodes found for the requested configuration"}, OfferGone),
    (409, {"error": "Hostnode unavailable"}, OfferGone),
    (400, {"error": "RAM per GPU exceeds ratio limit"}, OfferGone),
    (400, {"message": "insufficient capacity"}, OfferGone),
    (400, {"error": {"message": "not enough capacity in this location"}}, OfferGone),
    (400, {"error": "resource_error"}, OfferGone),
    (400, {"error": "Out of stock"}, OfferGone),
    (404, {"error": "Location 8dd95ff0 not found"}, OfferGone),
    (402, {"error": "Payment required"}, InsufficientCredit),
    (400, {"error": "You need at least $1.00 to deploy"}, InsufficientCredit),
    (400, {"error": "Insufficient balance"}, InsufficientCredit),
    (401, {"error": "Unauthorized"}, AuthError),
    (403, {"error": "Forbidden"}, AuthError),
    (401, "Unauthorized", AuthError),
    (
        400,
        [issue("too_small", "Number must be greater than or equal to 100", "resources", "storage_gb")],
        InvalidRequest,
    ),
    (400, [issue("custom", "SSH port (22) must be forwarded", "port_forwards")], InvalidRequest),
    (400, [issue("custom", "odd", "resources", "vcpu_count"), issue("invalid_type", "x", "name")], InvalidRequest),
    (400, [], InvalidRequest),
    (400, {"error": "Something is wrong"}, InvalidRequest),
    (422, "what?", InvalidRequest),
    (404, "<html>404</html>", NotFound),
    (404, {"error": "Not found"}, NotFound),
    (400, {"error": "The deployment failed"}, OutcomeUnknown),
    (500, {"error": "No available nodes found"}, OutcomeUnknown),
    (502, "<html>Bad Gateway</html>", OutcomeUnknown),
    (429, {"error": "Too many requests"}, RateLimited),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
def test_a_refusal_by_status(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    """One call: nothing was made, or the caller looks for it."""
    vendor.answer("POST", "/instances", body, status)
    vendor.refuses(kind, vendor.client.create, order())
    assert len(vendor.sent) == 1


INSIDE: list[tuple[Any, type[ProviderError]]] = [
    (embedded("No available nodes found"), OfferGone),
    (embedded("Hostnode unavailable", 500), OfferGone),
    (embedded("RAM per GPU exceeds ratio limit"), OfferGone),
    (embedded("You need at least $1.00 in your account balance"), InsufficientCredit),
    (embedded("insufficient capacity"), OfferGone),
    (embedded("Unauthorized", 401), AuthError),
    (embedded("no", 422), InvalidRequest),
    ({"status": 404, "message": "Location not found"}, OfferGone),
    ([issue("custom", "odd number", "resources", "vcpu_count")], InvalidRequest),
    ({"error": "No available nodes found"}, OfferGone),
]


@pytest.mark.parametrize(("body", "kind"), INSIDE)
def test_a_refusal_inside_of_a_success_is_looked_behind(vendor: Vendor, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("POST", "/instances", body)
    vendor.listed(listed_row(name="gpb-prod-abcdefghijklmn27-11"))
    vendor.refuses(kind, vendor.client.create, order())
    assert vendor.sent == [("POST", "/instances"), ("GET", "/instances")]


@pytest.mark.parametrize(("body", "kind"), INSIDE)
def test_a_machine_that_was_made_in_spite_of_the_refusal_is_owed(
    vendor: Vendor, body: Any, kind: type[ProviderError]
) -> None:
    vendor.answer("POST", "/instances", body)
    vendor.listed(listed_row(status="failed"))
    created = vendor.client.create(order())
    assert (created.instance_id, created.accepted) == (VM, False)
    assert created.note


@pytest.mark.parametrize(
    ("listing", "status"), [({"data": {}}, 200), ("<html>", 502), ({"error": "Unauthorized"}, 401), ("", 429)]
)
def test_a_refusal_that_cannot_be_looked_behind_is_unclear(vendor: Vendor, listing: Any, status: int) -> None:
    vendor.answer("POST", "/instances", embedded("No available nodes found"))
    vendor.answer("GET", "/instances", listing, status)
    error = vendor.refuses(OutcomeUnknown, vendor.client.create, order())
    assert "No available nodes found" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        embedded("An unexpected error during deployment occurred"),
        embedded("deployment failed", 500),
        embedded("Internal", 500),
        {"error": "Something went wrong"},
        {"errors": ["what"]},
        {"success": False},
    ],
)
def test_a_create_that_broke_off_is_unclear(vendor: Vendor, body: Any) -> None:
    vendor.answer("POST", "/instances", body)
    vendor.refuses(OutcomeUnknown, vendor.client.create, order())
    assert len(vendor.sent) == 1


def test_a_refusal_that_names_its_machine_leaves_it_to_be_destroyed(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", {**made(), "status": 400, "error": "need at least $1.00"})
    assert vendor.client.create(order()) == Created(VM, accepted=False, note="need at least $1.00")


@pytest.mark.parametrize("name", ["gpb-prod", "", None])
def test_a_machine_with_another_name_is_not_used(vendor: Vendor, name: str | None) -> None:
    """It could not be found in listings if our books lost its id."""
    body = made()
    body["data"]["name"] = name
    vendor.answer("POST", "/instances", body)
    created = vendor.client.create(order())
    assert (created.instance_id, created.accepted) == (VM, False)


def test_images_are_tried_in_turn(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", BAD_IMAGE, 400)
    vendor.answer("POST", "/instances", {"error": "invalid_enum_value: image"}, 400)
    vendor.answer("POST", "/instances", made())
    assert vendor.client.create(order()) == Created(VM)
    assert [sent["image"] for sent in vendor.created] == [
        "ubuntu2404",
        "ubuntu2404_ml_everything",
        "ubuntu2404_ml_pytorch",
    ]
    waits = [wait for key, _, wait in vendor.gate.taken if key == "tensordock:create"]
    assert waits == [0.0, 15.0, 15.0]


def test_the_preferred_image_comes_first_and_once(vendor: Vendor) -> None:
    vendor.client = vendor.build("ubuntu2204")
    for _ in range(5):
        vendor.answer("POST", "/instances", BAD_IMAGE, 400)
    vendor.refuses(InvalidRequest, vendor.client.create, order())
    assert [sent["image"] for sent in vendor.created] == [
        "ubuntu2204",
        "ubuntu2404_ml_everything",
        "ubuntu2404_ml_pytorch",
        "ubuntu2404_nvidia_570",
        "ubuntu2404",
    ]


@pytest.mark.parametrize("name", ["ubuntu2404_ml_pytorch", "ubuntu2404_ml_pytorch:latest"])
def test_an_image_that_the_order_names_is_the_only_one(vendor: Vendor, name: str) -> None:
    vendor.answer("POST", "/instances", BAD_IMAGE, 400)
    vendor.refuses(InvalidRequest, vendor.client.create, order(image=name))
    assert [sent["image"] for sent in vendor.created] == ["ubuntu2404_ml_pytorch"]


def test_another_fault_beside_the_image_ends_the_attempts(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", [*BAD_IMAGE, issue("too_small", "too small", "resources", "ram_gb")], 400)
    vendor.refuses(InvalidRequest, vendor.client.create, order())
    assert len(vendor.created) == 1


def test_ports_are_forwarded_when_no_address_is_free(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", NO_IP)
    vendor.listed()
    vendor.answer("POST", "/instances", made())
    assert vendor.client.create(order()) == Created(VM)
    assert [sent.get("useDedicatedIp", False) for sent in vendor.created] == [True, False]
    assert vendor.created[1]["port_forwards"] == [{"internal_port": 22, "external_port": 22}]


def test_no_address_and_no_ports_to_forward(vendor: Vendor) -> None:
    vendor.answer("POST", "/instances", NO_IP)
    vendor.listed()
    vendor.refuses(OfferGone, vendor.client.create, order(PORTS_ONLY.removesuffix("p") + "d"))
    assert len(vendor.created) == 1


def test_no_second_form_is_tried_late(vendor: Vendor) -> None:
    """Whoever called holds a lease: a slow refusal is handed back as it is."""

    def slowly(_: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        vendor.clock.seconds += 30
        return 400, {}, '[{"code": "invalid_enum_value", "message": "no", "path": ["data", "attributes", "image"]}]'

    vendor.wire.add_callback("POST", f"{BASE}/instances", slowly)
    vendor.refuses(InvalidRequest, vendor.client.create, order())
    assert len(vendor.created) == 1
