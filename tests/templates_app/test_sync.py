"""The template sync over the marketplace's wire: edits, deletions, failures, and lists that cannot be believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpubroker.common import providers as configured
from templates_app import services
from templates_app.models import Template, TemplateSync
from tests.harness import Api, MovableClock
from tests.sandbox import SandboxProcess
from tests.templates_app.factory import template

pytestmark = pytest.mark.django_db
OLLAMA = "a8a44c7363cbca20056020397e3bf072"


def hashes() -> set[str]:
    return set(Template.objects.values_list("hash_id", flat=True))


def create(market: SandboxProcess, name: str, **more: Any) -> str:
    body = {"name": name, "image": "me/mine", "extra_filters": {"num_gpus": {"eq": "1"}}, **more}
    status, answer = market.api("POST", "/api/v0/template/", body)
    assert status == 200, answer
    return str(answer["template"]["hash_id"])


def test_the_marketplaces_templates_are_listed_as_the_seed_prints_them(sandbox: SandboxProcess, api: Api) -> None:
    assert services.sync("vastai") == 12
    answer = api.get("/templates", name="oLLaM")
    (found,) = answer["templates"]
    assert answer["count"] == 1
    assert found.pop("created_at").endswith("Z")
    assert found == {
        "id": 338630, "hash_id": OLLAMA, "name": "Ollama", "image": "vastai/ollama", "tag": "@vastai-automatic-tag",
        "env": found["env"], "onstart": "entrypoint.sh", "runtype": "jupyter", "use_ssh": True, "ssh_direct": True,
        "recommended": True, "recommended_disk_space": 32, "creator_id": 62897, "count_created": 48120,
        "extra_filters": '{"gpu_ram": {"gte": "12000"}, "cuda_max_good": {"gte": "12.4"}}',
    }  # fmt: skip
    assert found["env"].startswith("-p 11434:11434 ")
    one = api.get(f"/templates/{OLLAMA}")
    assert one.pop("created_at").endswith("Z")
    assert one == found
    assert api.get("/templates/nope", 404)["error"] == "template nope not found"
    assert api.get("/templates", name="%")["count"] == 0


def test_names_match_in_any_case_of_any_alphabet(api: Api) -> None:
    template("1", name="Größe ÜBER alles")
    template("2", name="100% _plain_")
    assert [item["hash_id"] for item in api.get("/templates", name="über")["templates"]] == ["1"]
    assert [item["hash_id"] for item in api.get("/templates", name="GRÖSSE")["templates"]] == ["1"]
    assert [item["hash_id"] for item in api.get("/templates", name="0% _P")["templates"]] == ["2"]
    assert api.get("/templates", 400, name="x" * 257)["field"] == "name"


def test_whatever_the_vendor_wrote_the_types_are_the_seeds(api: Api) -> None:
    odd = {
        "tag": None,
        "env": 5,
        "use_ssh": None,
        "recommended_disk_space": "16.5",
        "creator_id": "7x",
        "created_at": 0,
    }
    template("odd", {"num_gpus": {"eq": 1}}, raw=odd)
    found = api.get("/templates/odd")
    assert found == {
        "id": 338630, "hash_id": "odd", "name": "Ollama", "image": "vastai/ollama", "tag": "", "env": "5",
        "onstart": "", "runtype": "", "use_ssh": False, "ssh_direct": False, "recommended": False,
        "recommended_disk_space": 16.5, "extra_filters": '{"num_gpus": {"eq": 1}}', "creator_id": 0,
        "created_at": "1970-01-01T00:00:00Z", "count_created": 0,
    }  # fmt: skip


def test_an_edited_template_replaces_its_old_row(sandbox: SandboxProcess) -> None:
    old = create(sandbox, "mine")
    services.sync("vastai")
    before = Template.objects.get(hash_id=old)
    status, answer = sandbox.api("PUT", "/api/v0/template/", {"hash_id": old, "image": "me/newer"})
    assert status == 200, answer
    new = answer["template"]["hash_id"]
    assert new != old
    assert services.sync("vastai") == 13
    assert old not in hashes()
    after = Template.objects.get(hash_id=new)
    assert (after.provider_id, after.image) == (before.provider_id, "me/newer")


def test_a_deleted_template_goes(sandbox: SandboxProcess) -> None:
    mine = create(sandbox, "mine")
    services.sync("vastai")
    assert mine in hashes()
    number = Template.objects.get(hash_id=mine).provider_id
    assert sandbox.api("DELETE", "/api/v0/template/", {"template_id": number})[0] == 200
    services.sync("vastai")
    assert mine not in hashes()


@pytest.mark.parametrize("fault", ["error_5xx", "malformed", "truncated_json", "rate_limited", "auth_error"])
def test_a_failing_sync_keeps_what_there_is_and_comes_back(
    sandbox: SandboxProcess, time: MovableClock, fault: str
) -> None:
    assert services.claim_due() == ["vastai"]
    services.sync("vastai")
    before = list(Template.objects.order_by("hash_id").values())
    time.advance(minutes=31)
    assert services.claim_due() == ["vastai"]
    sandbox.fault(fault, operation="templates", times=-1)
    assert services.sync("vastai") is None
    assert list(Template.objects.order_by("hash_id").values()) == before
    assert TemplateSync.objects.get().last_error != ""
    assert services.claim_due() == []
    sandbox.clear_faults()
    time.advance(minutes=3)
    assert services.claim_due() == ["vastai"]
    assert services.sync("vastai") == 12
    assert TemplateSync.objects.get().last_error == ""


def test_a_new_deployment_asks_again_within_seconds(sandbox: SandboxProcess, time: MovableClock) -> None:
    assert services.claim_due() == ["vastai"]
    sandbox.fault("error_5xx", operation="templates", times=-1)
    assert services.sync("vastai") is None
    assert services.claim_due() == []
    sandbox.clear_faults()
    time.advance(seconds=10)
    assert services.claim_due() == ["vastai"]
    assert services.sync("vastai") == 12


def test_other_providers_templates_are_left_alone(sandbox: SandboxProcess) -> None:
    template("theirs", provider="tensordock")
    template("gone", provider_id=1)
    services.sync("vastai")
    assert "theirs" in hashes()
    assert "gone" not in hashes()
    assert len(hashes()) == 13


class Listed:
    """A provider as far as the sync knows it, over the real one's rows: the wire has no fault for a short list."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def list_templates(self) -> tuple[Any, ...]:
        return tuple(self.rows)


def test_a_collapsed_list_is_believed_only_the_second_time(sandbox: SandboxProcess, monkeypatch: Any) -> None:
    assert services.claim_due() == ["vastai"]
    services.sync("vastai")
    rows = list(configured.get("vastai").list_templates())
    renamed = [replace(rows[0], name="Only one")]
    monkeypatch.setitem(configured.configured(), "vastai", Listed(renamed))
    assert services.sync("vastai") is None
    assert TemplateSync.objects.get().last_error == "not believed yet: 1 templates where there were 12"
    assert len(hashes()) == 12
    monkeypatch.setitem(configured.configured(), "vastai", Listed(rows))
    assert services.sync("vastai") == 12
    monkeypatch.setitem(configured.configured(), "vastai", Listed([]))
    assert services.sync("vastai") is None
    assert len(hashes()) == 12
    assert services.sync("vastai") == 0
    assert hashes() == set()


def test_a_sync_is_claimed_by_one_only(sandbox: SandboxProcess) -> None:
    assert services.claim_due() == ["vastai"]
    assert services.claim_due() == []
