"""Launch templates over the wire (Vast.ai contract, section 5.1)."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.providers.sandbox.helpers import cheapest, create, row
from tests.sandbox import SandboxProcess

OLLAMA = "a8a44c7363cbca20056020397e3bf072"
MINE = {
    "name": "mine",
    "image": "me/image",
    "tag": "1",
    "env": "-e A=1 -p 8000:8000",
    "runtype": "ssh",
    "ssh_direct": True,
}


def find(sandbox: SandboxProcess, filters: dict[str, Any], key: str | None = None) -> list[dict[str, Any]]:
    columns = quote('["*"]')
    path = f"/api/v0/template/?select_cols={columns}&select_filters={quote(json.dumps(filters))}"
    status, answer = sandbox.api("GET", path, key=key)
    assert (status, answer["success"], answer["templates_found"]) == (200, True, len(answer["templates"]))
    found: list[dict[str, Any]] = answer["templates"]
    return found


def test_the_public_templates(sandbox: SandboxProcess) -> None:
    rows = find(sandbox, {})
    assert len(rows) >= 12
    assert {"Ollama", "vLLM", "ComfyUI", "PyTorch (Vast)"} <= {row["name"] for row in rows}
    for template in rows:
        assert re.fullmatch(r"[0-9a-f]{32}", template["hash_id"])
        assert isinstance(json.loads(template["extra_filters"]), dict)
        assert isinstance(template["env"], str)
        assert template["recommended_disk_space"] >= 8
    ollama = find(sandbox, {"hash_id": {"eq": OLLAMA}})[0]
    assert (ollama["id"], ollama["image"], ollama["recommended"]) == (338630, "vastai/ollama", True)
    assert json.loads(ollama["extra_filters"])["gpu_ram"] == {"gte": "12000"}


def test_every_public_template_can_be_launched(sandbox: SandboxProcess) -> None:
    for template in find(sandbox, {"recommended": {"eq": True}}):
        status, answer = create(
            sandbox, cheapest(sandbox, disk_space={"gte": 200})["id"], image=None, disk=None,
            template_hash_id=template["hash_id"],
        )  # fmt: skip
        assert (status, answer["success"]) == (200, True)
        assert row(sandbox, answer["new_contract"])["template_id"] == template["id"]


def test_create_edit_delete(sandbox: SandboxProcess) -> None:
    filters = {"num_gpus": {"eq": "2"}}
    status, answer = sandbox.api("POST", "/api/v0/template/", {**MINE, "extra_filters": filters})
    made = answer["template"]
    assert (status, answer["msg"]) == (200, f"Template Created Successfully! New Template ID: {made['id']}")
    assert find(sandbox, {"id": {"eq": made["id"]}})[0]["extra_filters"] == json.dumps(filters)
    _, again = sandbox.api("POST", "/api/v0/template/", {**MINE, "extra_filters": filters})
    assert again["template"] == made
    status, answer = sandbox.api("PUT", "/api/v0/template/", {"hash_id": made["hash_id"], "image": "me/other"})
    changed = answer["template"]
    assert (status, changed["id"]) == (200, made["id"])
    assert changed["hash_id"] != made["hash_id"]
    assert find(sandbox, {"hash_id": {"eq": made["hash_id"]}}) == []
    row_ = find(sandbox, {"hash_id": {"eq": changed["hash_id"]}})[0]
    assert (row_["image"], row_["env"], row_["extra_filters"]) == ("me/other", MINE["env"], json.dumps(filters))
    assert sandbox.api("DELETE", "/api/v0/template/", {"template_id": made["id"]}) == (200, {"success": True})
    assert sandbox.api("DELETE", "/api/v0/template/", {"template_id": made["id"]})[0] == 404
    assert find(sandbox, {"id": {"eq": made["id"]}}) == []


def test_templates_of_others_are_not_mine(sandbox: SandboxProcess) -> None:
    _, answer = sandbox.api("POST", "/api/v0/template/", MINE)
    by_id = {"id": {"eq": answer["template"]["id"]}}
    assert find(sandbox, by_id, key="other-key") == []
    assert sandbox.api("DELETE", "/api/v0/template/", {"template_id": 338630})[0] == 404
    assert sandbox.api("PUT", "/api/v0/template/", {"hash_id": OLLAMA, "name": "x"})[0] == 404


def test_a_template_of_mine_launches(sandbox: SandboxProcess) -> None:
    _, answer = sandbox.api("POST", "/api/v0/template/", MINE)
    _, made = create(sandbox, cheapest(sandbox)["id"], image=None, template_hash_id=answer["template"]["hash_id"])
    instance = row(sandbox, made["new_contract"])
    assert instance["image_uuid"] == "me/image:1"
    assert instance["image_runtype"] == "ssh ssh_direc ssh_proxy"
    assert instance["extra_env"] == [["A", "1"], ["-p 8000:8000", "1"]]


@pytest.mark.parametrize(
    ("body", "message"),
    [({"image": "a:1"}, "Template name is required"), ({"name": "a"}, "Template image is required")],
)
def test_what_a_template_needs(sandbox: SandboxProcess, body: dict[str, Any], message: str) -> None:
    expected = {"success": False, "error": "invalid_args", "msg": message}
    assert sandbox.api("POST", "/api/v0/template/", body) == (400, expected)


def test_unknown_filter_columns_are_refused(sandbox: SandboxProcess) -> None:
    query = quote(json.dumps({"colour": {"eq": 1}}))
    assert sandbox.api("GET", f"/api/v0/template/?select_filters={query}")[0] == 400
