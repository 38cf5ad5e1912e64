"""One machine: what its detail says, the proof that it is gone, destroy, start and stop (sections 6.2 to 6.4, 9)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import requests

from providers.base import DestroysMany, KeepsDisks, Phase, RemovesKeys
from providers.errors import (
    AuthError,
    InvalidRequest,
    MalformedAnswer,
    NotFound,
    NotSupported,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from tests.providers.tensordock.conftest import GPU, LABEL, MISSING, VM, Vendor, detail, embedded, listed_row

PATH = f"/instances/{VM}"


@pytest.mark.parametrize(
    "body",
    [
        detail(),
        {"data": detail()},
        {"data": {"type": "instance", "id": VM, "attributes": {**detail(), "id": None}}},
        detail(rateHourly="0.4896"),
    ],
)
def test_every_shape_of_a_detail(vendor: Vendor, body: Any) -> None:
    vendor.answer("GET", PATH, body)
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert (found.instance_id, found.label, found.phase) == (VM, LABEL, Phase.RUNNING)
    assert (found.gpu_name, found.gpu_count) == (GPU, 1)
    assert found.ports == {22: ("174.94.145.71", 20456)}
    assert [(each.host, each.port, each.user) for each in found.ssh_endpoints] == [
        ("174.94.145.71", 20456, "user"),
        ("174.94.145.71", 20456, "root"),
    ]
    assert (found.gpu_price_per_hour, found.storage_price_per_hour) == (Decimal("0.4846"), Decimal("0.005"))


STATUSES = [
    *((word, Phase.BOOTING) for word in ("queued", "Pending", "creating", "DEPLOYING", "provisioning", "starting")),
    *((word, Phase.RUNNING) for word in ("running", "Running")),
    *((word, Phase.FAILED) for word in ("stopped", "error", "failed", "outbid", "relocating", "terminated", "deleted")),
    *((word, Phase.STOPPED) for word in ("StoppedDisassociated", "stopped_disassociated", "stopped-disassociated")),
    *((word, Phase.UNKNOWN) for word in ("stopping", "deleting", "frozen", "", None, 200)),
]


@pytest.mark.parametrize(("word", "phase"), STATUSES)
def test_every_status(vendor: Vendor, word: Any, phase: Phase) -> None:
    vendor.answer("GET", PATH, detail(status=word))
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert found.phase is phase


@pytest.mark.parametrize(("word", "said"), [("Stopped", "billed in full"), ("error", "the provider says error")])
def test_a_lost_machine_says_why(vendor: Vendor, word: str, said: str) -> None:
    vendor.answer("GET", PATH, detail(status=word))
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert said in found.status_message


@pytest.mark.parametrize(
    ("changes", "ssh", "ports"),
    [
        ({"portForwards": []}, ("174.94.145.71", 22), {}),
        ({"portForwards": None}, ("174.94.145.71", 22), {}),
        (
            {
                "portForwards": [
                    {"internal_port": 8000, "external_port": 30100},
                    {"internal_port": 22.0, "external_port": 1},
                ]
            },
            ("174.94.145.71", 1),
            {8000: ("174.94.145.71", 30100), 22: ("174.94.145.71", 1)},
        ),
        (
            {"portForwards": [{"internal_port": "22", "external_port": "20456"}, "x", {"internal_port": 80}]},
            ("174.94.145.71", 20456),
            {22: ("174.94.145.71", 20456)},
        ),
    ],
)
def test_addresses(vendor: Vendor, changes: dict[str, Any], ssh: tuple[str, int], ports: dict[int, Any]) -> None:
    vendor.answer("GET", PATH, detail(**changes))
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert (found.ssh_endpoints[0].host, found.ssh_endpoints[0].port) == ssh
    assert found.ports == ports


@pytest.mark.parametrize(
    "changes",
    [
        {"ipAddress": None},
        {"ipAddress": ""},
        {"ipAddress": "-oProxyCommand=x"},
        {"ipAddress": 5},
        {"portForwards": [{"internal_port": 8000, "external_port": 30100}]},
        {"portForwards": [{"internal_port": 22, "external_port": 99999}, {"internal_port": 80, "external_port": 81}]},
    ],
)
def test_no_address_yet(vendor: Vendor, changes: dict[str, Any]) -> None:
    vendor.answer("GET", PATH, detail(**changes))
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert found.ssh_endpoints == ()


@pytest.mark.parametrize(
    ("changes", "gpu", "disk"),
    [
        ({"rateHourly": None}, None, None),
        ({"rateHourly": 0}, None, None),
        ({"rateHourly": "much"}, None, None),
        ({"resources": None}, Decimal("0.4896"), Decimal(0)),
        ({"rateHourly": 0.272999, "resources": {"storage_gb": 200}}, Decimal("0.262999"), Decimal("0.01")),
        ({"rateHourly": 0.001}, Decimal(0), Decimal("0.001")),
    ],
)
def test_the_rate_is_divided_and_never_counted_twice(
    vendor: Vendor, changes: dict[str, Any], gpu: Decimal | None, disk: Decimal | None
) -> None:
    vendor.answer("GET", PATH, detail(**changes))
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert (found.gpu_price_per_hour, found.storage_price_per_hour) == (gpu, disk)


def test_almost_everything_may_be_absent(vendor: Vendor) -> None:
    vendor.answer("GET", PATH, {"id": VM})
    found = vendor.client.get_instance(VM)
    assert found is not None
    assert (found.label, found.phase, found.gpu_count, found.ports) == ("", Phase.UNKNOWN, 0, {})


# Gone, or not


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, MISSING),
        (404, {"error": "Instance 5b0c7a52 not found"}),
        (404, {"message": "No such instance"}),
        (404, {"error": {"message": "This VM does not exist"}}),
        (200, embedded("Virtual machine instance not found", 404)),
        (200, {"status": 404, "message": "Instance not found"}),
        (200, {"error": "instance not found"}),
        (410, {"error": "Instance no longer exists"}),
    ],
)
def test_the_vendor_says_that_it_is_gone(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", PATH, body, status)
    assert vendor.client.get_instance(VM) is None
    assert len(vendor.sent) == 1


BARE = [
    (404, "<html>404</html>"),
    (404, ""),
    (404, {"error": "Not found"}),
    (200, embedded("Not found", 404)),
    (404, {}),
]


@pytest.mark.parametrize(("status", "body"), BARE)
def test_a_bare_404_counts_with_a_listing_that_has_it_not(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", PATH, body, status)
    vendor.listed(listed_row("another"))
    assert vendor.client.get_instance(VM) is None


@pytest.mark.parametrize(("status", "body"), BARE)
def test_a_bare_404_for_a_machine_that_is_listed_proves_nothing(vendor: Vendor, status: int, body: Any) -> None:
    vendor.answer("GET", PATH, body, status)
    vendor.listed(listed_row())
    vendor.refuses(MalformedAnswer, vendor.client.get_instance, VM)


@pytest.mark.parametrize(("status", "listing"), [(404, "<html>404</html>"), (404, {"error": "Not found"})])
def test_a_wrong_base_url_proves_nothing(vendor: Vendor, status: int, listing: Any) -> None:
    """Every path is a 404 then."""
    vendor.answer("GET", PATH, {"error": "Not found"}, 404)
    vendor.answer("GET", "/instances", listing, status)
    vendor.refuses(NotFound, vendor.client.get_instance, VM)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {}, MalformedAnswer),
        (200, {"data": None}, MalformedAnswer),
        (200, detail("another"), MalformedAnswer),
        (200, [], MalformedAnswer),
        (200, "", MalformedAnswer),
        (200, "<html>", MalformedAnswer),
        (200, embedded("Internal", 500), Unavailable),
        (200, {"error": "Something went wrong"}, Unavailable),
        (400, {"error": "Invalid id"}, InvalidRequest),
        (401, {"error": "Unauthorized"}, AuthError),
        (403, "no", AuthError),
        (429, "", RateLimited),
        (502, "<html>instance not found</html>", Unavailable),
    ],
)
def test_a_look_that_proves_nothing(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("GET", PATH, body, status)
    vendor.refuses(kind, vendor.client.get_instance, VM)


@pytest.mark.parametrize("call", ["get_instance", "destroy", "power_on", "power_off"])
@pytest.mark.parametrize("instance_id", ["", "a/b", "../x", "a b", "x" * 65])
def test_what_is_no_instance_id(vendor: Vendor, call: str, instance_id: str) -> None:
    vendor.refuses(InvalidRequest, getattr(vendor.client, call), instance_id)
    assert vendor.sent == []


# Destroy


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"data": {"type": "success", "attributes": {"message": "Deleted"}}}, "Deleted"),
        (200, {"data": {"type": "success"}}, "accepted"),
        (200, {}, "accepted"),
        (200, "", "accepted"),
        (204, "", "accepted"),
        (202, {"data": None}, "accepted"),
        (404, MISSING, "already gone"),
        (200, embedded("Instance not found", 404), "already gone"),
        (400, {"error": "already terminated"}, "already gone"),
        (409, {"error": "This machine has already been deleted"}, "already gone"),
    ],
)
def test_destroy(vendor: Vendor, status: int, body: Any, answer: str) -> None:
    vendor.answer("DELETE", PATH, body, status)
    assert vendor.client.destroy(VM) == answer


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, embedded("Internal", 500), OutcomeUnknown),
        (200, {"error": "Something went wrong"}, OutcomeUnknown),
        (200, embedded("cannot be deleted now"), InvalidRequest),
        (200, "<html>ok</html>", OutcomeUnknown),
        (200, '{"data": {"ty', OutcomeUnknown),
        (404, "<html>404</html>", NotFound),
        (404, {"error": "Not found"}, NotFound),
        (400, {"error": "no"}, InvalidRequest),
        (401, {"error": "Unauthorized"}, AuthError),
        (429, "", RateLimited),
        (500, {"error": "Failed to delete virtual machine"}, OutcomeUnknown),
        (502, "<html>", OutcomeUnknown),
    ],
)
def test_a_destroy_that_failed(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("DELETE", PATH, body, status)
    vendor.refuses(kind, vendor.client.destroy, VM)


def test_a_destroy_that_goes_on_after_we_stopped_waiting(vendor: Vendor) -> None:
    vendor.answer("DELETE", PATH, requests.ReadTimeout("slow"))
    assert vendor.refuses(OutcomeUnknown, vendor.client.destroy, VM).may_have_happened
    vendor.answer("GET", PATH, MISSING, 404)
    assert vendor.client.get_instance(VM) is None


# Start and stop


@pytest.mark.parametrize(("what", "path"), [("power_on", "start"), ("power_off", "stop")])
@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"data": {"type": "instance", "id": VM, "attributes": {"status": "starting"}}}, "starting"),
        (200, {"data": {}}, "accepted"),
        (409, {"error": "no change"}, "no change"),
        (400, {"error": "The instance is already running"}, "The instance is already running"),
        (200, embedded("must be stopped"), "must be stopped"),
    ],
)
def test_start_and_stop(vendor: Vendor, what: str, path: str, status: int, body: Any, answer: str) -> None:
    vendor.answer("POST", f"{PATH}/{path}", body, status)
    assert getattr(vendor.client, what)(VM) == answer


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "No GPU available"}, InvalidRequest),
        (404, MISSING, NotFound),
        (200, "", OutcomeUnknown),
        (502, "<html>", OutcomeUnknown),
    ],
)
def test_a_start_that_failed(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("POST", f"{PATH}/start", body, status)
    vendor.refuses(kind, vendor.client.power_on, VM)


# What there is not


def test_what_the_provider_does_not_have(vendor: Vendor) -> None:
    capabilities = vendor.client.capabilities
    assert not any(
        getattr(capabilities, name)
        for name in ("templates", "interruptible", "preserve_disk", "attach_ssh_key", "custom_image", "entrypoint")
    )
    assert capabilities.label_length == 60
    assert not isinstance(vendor.client, KeepsDisks | RemovesKeys | DestroysMany)
    vendor.refuses(NotSupported, vendor.client.balance)
    vendor.refuses(NotSupported, vendor.client.list_templates)
    vendor.refuses(NotSupported, vendor.client.attach_ssh_key, VM, "ssh-ed25519 AAAA")
    assert vendor.sent == []
