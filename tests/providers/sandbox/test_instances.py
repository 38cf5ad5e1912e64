"""Listing and looking (Vast.ai contract, sections 4.1 to 4.5)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.providers.sandbox.helpers import boot, cheapest, create, direct_port, listing, rent, row, running, search
from tests.sandbox import SandboxProcess

FIELDS = [
    "id",
    "machine_id",
    "host_id",
    "bundle_id",
    "label",
    "actual_status",
    "cur_state",
    "next_state",
    "intended_status",
    "status_msg",
    "image_uuid",
    "image_args",
    "image_runtype",
    "extra_env",
    "onstart",
    "jupyter_token",
    "template_id",
    "template_hash_id",
    "template_name",
    "ssh_host",
    "ssh_idx",
    "ssh_port",
    "machine_dir_ssh_port",
    "public_ipaddr",
    "local_ipaddrs",
    "ports",
    "direct_port_count",
    "direct_port_start",
    "direct_port_end",
    "start_date",
    "end_date",
    "duration",
    "uptime_mins",
    "dph_base",
    "dph_total",
    "min_bid",
    "is_bid",
    "storage_cost",
    "storage_total_cost",
    "inet_up_cost",
    "inet_down_cost",
    "search",
    "instance",
    "gpu_name",
    "num_gpus",
    "gpu_ram",
    "gpu_totalram",
    "gpu_frac",
    "gpu_util",
    "gpu_temp",
    "gpu_arch",
    "cpu_name",
    "cpu_cores",
    "cpu_cores_effective",
    "cpu_ram",
    "mem_limit",
    "mem_usage",
    "vmem_usage",
    "disk_space",
    "disk_usage",
    "disk_util",
    "inet_up",
    "inet_down",
    "driver_version",
    "cuda_max_good",
    "reliability2",
    "verification",
    "geolocation",
    "country_code",
    "hosting_type",
    "static_ip",
    "credit_balance",
    "credit_discount",
    "credit_discount_max",
    "client_run_time",
    "host_run_time",
    "time_remaining",
    "volume_info",
]


def page(sandbox: SandboxProcess, **query: Any) -> dict[str, Any]:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    return listing(sandbox, f"?{urlencode(texts)}")


def many(sandbox: SandboxProcess, count: int) -> list[int]:
    return [sandbox.foreign(f"m{number % 3}") for number in range(count)]


def test_from_nothing_to_running(sandbox: SandboxProcess) -> None:
    sandbox.settings(boot_seconds=100)
    instance_id = rent(sandbox)
    first = row(sandbox, instance_id)
    assert [name for name in FIELDS if name not in first] == []
    assert (first["actual_status"], first["status_msg"]) == (None, None)
    assert (first["public_ipaddr"], first["ports"]) == (None, None)
    assert (first["intended_status"], first["cur_state"]) == ("running", "running")
    messages = []
    for _ in range(4):
        sandbox.advance(22)
        later = row(sandbox, instance_id)
        assert (later["actual_status"], later["ports"]) == ("loading", None)
        messages.append(later["status_msg"])
    assert len(set(messages)) == 4
    sandbox.advance(22)
    last = row(sandbox, instance_id)
    assert (last["actual_status"], last["status_msg"]) == ("running", "success, running ubuntu:22.04/ssh\n")
    assert last["public_ipaddr"] == "127.0.0.1\n"
    assert last["uptime_mins"] == pytest.approx(10 / 60, abs=0.05)


def test_ports_are_strings_and_doubled_for_ipv6(sandbox: SandboxProcess) -> None:
    instance = running(sandbox, env={"-p 8000:8000": "1"})
    for name in ("22/tcp", "8000/tcp"):
        first, second = instance["ports"][name]
        assert (first["HostIp"], second["HostIp"]) == ("0.0.0.0", "::")
        assert first["HostPort"] == second["HostPort"]
        assert isinstance(first["HostPort"], str)
    assert instance["ssh_host"] == "127.0.0.1"
    assert instance["ssh_port"] != direct_port(instance)


def test_get_and_list_give_the_same_row(sandbox: SandboxProcess) -> None:
    instance = running(sandbox)
    moving = {"duration", "uptime_mins", "time_remaining"}
    listed = listing(sandbox)["instances"][0]
    assert {k: v for k, v in listed.items() if k not in moving} == {
        k: v for k, v in instance.items() if k not in moving
    }


def test_unknown_destroyed_and_other_peoples_instances_are_null(sandbox: SandboxProcess) -> None:
    instance_id = rent(sandbox)
    assert row(sandbox, instance_id, key="other-key") is None
    assert sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {}, key="other-key")[0] == 404
    assert sandbox.api("DELETE", f"/api/v0/instances/{instance_id}/", {})[0] == 200
    assert sandbox.api("GET", f"/api/v0/instances/{instance_id}/?owner=me") == (200, {"instances": None})
    assert sandbox.api("GET", "/api/v0/instances/12345/") == (200, {"instances": None})
    assert listing(sandbox)["instances"] == []
    assert listing(sandbox, key="other-key")["total_instances"] == 0


def test_the_old_list_is_retired(sandbox: SandboxProcess) -> None:
    status, answer = sandbox.api("GET", "/api/v0/instances/?owner=me")
    assert status == 410
    assert answer == {
        "success": False,
        "error": "deprecated_endpoint",
        "msg": "/api/v0/instances/ is deprecated. Use /api/v1/instances/ instead.",
    }


def test_pages_of_25_and_every_row_once(sandbox: SandboxProcess) -> None:
    ids = many(sandbox, 57)
    first = listing(sandbox)
    assert (first["instances_found"], first["total_instances"], len(first["instances"])) == (25, 57, 25)
    assert first["label_counts"] == {"m0": 19, "m1": 19, "m2": 19}
    seen, token, pages = [], None, 0
    while token or not pages:
        answer = page(sandbox, limit=25, **({"after_token": token} if token else {}))
        seen += [instance["id"] for instance in answer["instances"]]
        token, pages = answer["next_token"], pages + 1
    assert (seen, pages) == (ids, 3)


def test_a_page_survives_a_destroy_between_pages(sandbox: SandboxProcess) -> None:
    ids = many(sandbox, 30)
    token = listing(sandbox)["next_token"]
    sandbox.api("DELETE", f"/api/v0/instances/{ids[24]}/", {})
    assert [i["id"] for i in page(sandbox, after_token=token)["instances"]] == ids[25:]


@pytest.mark.parametrize(("limit", "found"), [("3", 3), ("0", 5), ("-2", 5), ("1000", 25), ("", 25)])
def test_limit(sandbox: SandboxProcess, limit: str, found: int) -> None:
    many(sandbox, 26)
    assert listing(sandbox, f"?limit={limit}")["instances_found"] == found


def test_order_filter_and_columns(sandbox: SandboxProcess) -> None:
    ids = many(sandbox, 6)
    down = page(sandbox, order_by=[{"col": "id", "dir": "desc"}], limit=4)
    assert [i["id"] for i in down["instances"]] == ids[:1:-1]
    rest = page(sandbox, order_by=[{"col": "id", "dir": "desc"}], after_token=down["next_token"])
    assert [i["id"] for i in rest["instances"]] == ids[1::-1]
    labelled = page(sandbox, select_filters={"label": {"eq": "m1"}}, select_cols=["id", "label", "nothing"])
    assert labelled["instances"] == [{"id": id_, "label": "m1", "nothing": None} for id_ in (ids[1], ids[4])]
    assert labelled["total_instances"] == 2
    mixed = page(sandbox, order_by=[{"col": "label", "dir": "sideways"}], limit=25)
    assert [i["label"] for i in mixed["instances"]] == ["m0", "m0", "m1", "m1", "m2", "m2"]
    assert page(sandbox, select_filters={"label": {"in": ["m0", "m2"]}})["total_instances"] == 4
    boot(sandbox)
    assert page(sandbox, select_filters={"actual_status": {"eq": "running"}})["total_instances"] == 6


def test_an_instance_without_label_counts_under_the_empty_one(sandbox: SandboxProcess) -> None:
    sandbox.foreign(None)
    assert listing(sandbox)["label_counts"] == {"": 1}
    assert page(sandbox, select_filters={"label": {"in": [None]}})["total_instances"] == 1


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({"select_filters": {"dph_total": {"gt": 1}}}, "invalid_request",
         "Error in query parameters: dph_total is not a valid search key"),
        ({"select_filters": {"num_gpus": {"eq": 1}}}, "invalid_request",
         "Error in query parameters: num_gpus is not a valid search key"),
        ({"select_filters": {"label": {"is": 1}}}, "invalid_request",
         "Error in query parameters: is is not a valid search op"),
        ({"order_by": [{"col": "dph_total"}]}, "invalid_request",
         "Error in query parameters: dph_total is not a valid search key"),
        ({"after_token": "broken"}, "invalid_token", "Invalid pagination token"),
    ],
)  # fmt: skip
def test_refused_queries(sandbox: SandboxProcess, query: dict[str, Any], error: str, message: str) -> None:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    status, answer = sandbox.api("GET", f"/api/v1/instances/?{urlencode(texts)}")
    assert (status, answer["error"], answer["msg"]) == (400, error, message)


def test_the_values_to_filter_by(sandbox: SandboxProcess) -> None:
    many(sandbox, 2)
    status, answer = sandbox.api("GET", "/api/v0/instances/filters/")
    assert status == 200
    assert {"column": "label", "values": ["m0", "m1"]} in answer["filters"]


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [({}, 403, "auth_error"), ({"Authorization": "Bearer nobody"}, 404, "auth_error")],
)
def test_who_is_not_known_sees_nothing(
    sandbox: SandboxProcess, headers: dict[str, str], status: int, error: str
) -> None:
    for method, path in (
        ("GET", "/api/v1/instances/"),
        ("GET", "/api/v0/instances/1/"),
        ("DELETE", "/api/v0/instances/1/"),
        ("PUT", "/api/v0/asks/1/"),
        ("GET", "/api/v0/users/current/"),
        ("GET", "/api/v0/ssh/"),
        ("GET", "/api/v0/template/"),
    ):
        got, _, text = sandbox.raw(method, path, None, headers)
        assert (got, json.loads(text)["error"]) == (status, error)


def test_the_key_may_come_in_the_query_and_its_refusal_is_switchable(sandbox: SandboxProcess) -> None:
    assert sandbox.raw("GET", "/api/v1/instances/?api_key=sandbox-key")[0] == 200
    sandbox.settings(bad_key_status=401)
    assert sandbox.raw("GET", f"/api/v1/instances/?api_key={quote('x y')}")[0] == 401


@pytest.mark.parametrize(
    ("accept", "kind", "words"),
    [
        ("application/json", "application/json", '"code": "404 Not Found"'),
        ("text/plain", "text/plain", "404 Not Found\n\nThe resource could not be found."),
        ("*/*", "text/html", "<h1>404 Not Found</h1>"),
        ("application/json, text/plain, */*", "text/html", "<h1>404 Not Found</h1>"),
    ],
)
def test_errors_of_the_framework_follow_accept(sandbox: SandboxProcess, accept: str, kind: str, words: str) -> None:
    status, headers, text = sandbox.raw("GET", "/api/v0/nothing/", None, {"Accept": accept})
    assert (status, headers["Content-Type"].split(";")[0]) == (404, kind)
    assert words in text
    assert sandbox.raw("DELETE", "/api/v0/bundles/", None, {"Accept": accept})[0] == 405


def test_the_contract_ends_when_the_host_said(sandbox: SandboxProcess) -> None:
    offer = search(sandbox, end_date={"gt": 0}, order=[["end_date", "asc"]], limit=1)[0]
    _, answer = create(sandbox, offer["id"])
    instance = row(sandbox, answer["new_contract"])
    assert instance["end_date"] == offer["end_date"]
    sandbox.credit(10_000)
    sandbox.advance(offer["duration"] + 60)
    assert row(sandbox, answer["new_contract"])["actual_status"] == "stopped"


def test_contract_ids_are_never_used_twice(sandbox: SandboxProcess) -> None:
    first = rent(sandbox)
    sandbox.reset()
    assert rent(sandbox) > first
    assert cheapest(sandbox)["id"] not in (first,)


def test_labels_that_are_no_list_are_refused(sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="labels is a list of texts"):
        sandbox.admin("POST", "instances", {"labels": 5})
    assert sandbox.alive() == []


def test_many_machines_at_once_are_reached_through_the_proxy_alone(sandbox: SandboxProcess) -> None:
    made = sandbox.foreign_all(["a", "b", "b"])
    assert [each["label"] for each in made] == ["a", "b", "b"]
    assert [each["id"] for each in sandbox.alive()] == [each["id"] for each in made]
    boot(sandbox)
    assert [row(sandbox, each["id"])["ports"] for each in made] == [{}, {}, {}]
    assert len({row(sandbox, each["id"])["ssh_port"] for each in made}) == 3
