"""Launch templates: search, create, edit, delete (Vast.ai contract, section 5.1)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from providers.sandbox.engine import Engine
from providers.sandbox.filters import BadFilter, Test, compile_filter, keep, sort_rows
from providers.sandbox.vast import hosting
from providers.sandbox.vast.errors import VastError, invalid_request
from providers.sandbox.vast.gateway import Call, Route
from providers.sandbox.vast.template_seeds import seeds

_FILTERS = frozenset(
    {
        "creator_id", "created_at", "count_created", "default_tag", "docker_login_repo", "id", "image", "jup_direct",
        "hash_id", "name", "private", "recent_create_date", "recommended_disk_space", "recommended", "ssh_direct",
        "tag", "use_ssh",
    }
)  # fmt: skip
#: What a template is made of, with the value of a field that is not given. The hash covers exactly these.
_CONTENT: dict[str, Any] = {
    "name": None, "image": None, "tag": None, "env": "", "onstart": "", "runtype": "args", "args_str": "",
    "use_ssh": False, "ssh_direct": False, "jup_direct": False, "jupyter_dir": None, "use_jupyter_lab": False,
    "docker_login_repo": None, "extra_filters": None, "recommended_disk_space": 8, "desc": "", "readme": "",
    "readme_visible": True, "href": None, "repo": None, "private": True, "volume_info": None,
}  # fmt: skip


def plant(engine: Engine) -> None:
    """What a market begins with, after a start as after a reset: the hosts' machines, and the public templates."""
    hosting.restore(engine)
    if engine.ledger.templates(-1):
        return
    with engine.ledger.together():
        for content in seeds():
            row = _row(content, content["id"], None, engine.clock.now())
            row.update(hash_id=content.get("hash_id", row["hash_id"]), recommended=True, private=False)
            row["count_created"] = content.get("count_created", 0)
            engine.ledger.save_template(row, None)


def _row(content: dict[str, Any], template_id: int, creator: int | None, now: float) -> dict[str, Any]:
    """A row as searches answer it: ``extra_filters`` is a JSON text there."""
    chosen = {name: content[name] if content.get(name) is not None else value for name, value in _CONTENT.items()}
    filters = chosen["extra_filters"]
    chosen["extra_filters"] = filters if isinstance(filters, str) else json.dumps(filters or {})
    digest = hashlib.sha256(json.dumps([chosen, creator], sort_keys=True, default=str).encode()).hexdigest()[:32]
    return {
        "id": template_id,
        "hash_id": digest,
        **chosen,
        "default_tag": chosen["tag"],
        "creator_id": creator if creator is not None else 62_897,
        "created_at": now,
        "recent_create_date": now,
        "count_created": 0,
        "recommended": False,
        "created_from": None,
        "max_cuda": None,
        "min_cuda": None,
    }


def search(call: Call) -> dict[str, Any]:
    """The public templates and one's own; no pages."""
    filters = call.json_query("select_filters", {})
    tests: list[Test] = []
    for column, conditions in filters.items() if isinstance(filters, dict) else ():
        if column not in _FILTERS:
            raise invalid_request(f"Error in query parameters: {column} is not a valid search key")
        try:
            tests += compile_filter(column, conditions)
        except BadFilter as error:
            raise invalid_request(f"Error in query parameters: {error}") from None
    rows = keep(call.engine.ledger.templates(call.account.id), tests)
    order = call.json_query("order_by", [])
    pairs = [(o["col"], o.get("dir") == "desc") for o in order if isinstance(o, dict) and o.get("col") in _FILTERS]
    sort_rows(rows, pairs or [("id", False)])
    columns = call.json_query("select_cols", ["*"])
    if isinstance(columns, list) and "*" not in columns:
        rows = [{name: row.get(name) for name in columns} for row in rows]
    return {"success": True, "templates_found": len(rows), "templates": rows}


def create(call: Call) -> dict[str, Any]:
    """A new template; one with the same content is found instead of made again."""
    if not call.body.get("name"):
        raise VastError(400, "invalid_args", "Template name is required")
    if not call.body.get("image"):
        raise VastError(400, "invalid_args", "Template image is required")
    engine, account = call.engine, call.account
    row = _row(call.body, 0, account.id, engine.clock.now())
    found = next((old for old in engine.ledger.templates(account.id) if old["hash_id"] == row["hash_id"]), None)
    if found is None:
        row["id"] = engine.ledger.next_number("template", 412_000, 5)
        engine.ledger.save_template(row, account.id)
        found = row
    brief = {name: found[name] for name in ("id", "hash_id", "name")}
    return {"success": True, "msg": f"Template Created Successfully! New Template ID: {found['id']}", "template": brief}


def edit(call: Call) -> dict[str, Any]:
    """Changed content gets a new hash; the id stays."""
    own = _own(call)
    wanted = call.body
    old = next((row for row in own if wanted.get("hash_id") in (None, row["hash_id"]) and _same_id(row, wanted)), None)
    if old is None:
        raise VastError(404, "not_found", "Template not found")
    content = {**old, **{name: value for name, value in wanted.items() if name in _CONTENT}}
    row = _row(content, old["id"], call.account.id, old["created_at"])
    call.engine.ledger.save_template(row, call.account.id)
    return {"success": True, "template": {"id": row["id"], "hash_id": row["hash_id"]}}


def _same_id(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if wanted.get("id") is None and wanted.get("hash_id") is None:
        return False
    return wanted.get("id") in (None, row["id"])


def delete(call: Call) -> dict[str, Any]:
    template_id = call.body.get("template_id")
    if template_id is None and call.body.get("hash_id"):
        template_id = next((row["id"] for row in _own(call) if row["hash_id"] == call.body["hash_id"]), None)
    if not isinstance(template_id, int) or not call.engine.ledger.remove_template(call.account.id, template_id):
        raise VastError(404, "not_found", "Template not found")
    return {"success": True}


def _own(call: Call) -> list[dict[str, Any]]:
    return [row for row in call.engine.ledger.templates(call.account.id) if row["creator_id"] == call.account.id]


ROUTES = [
    Route("GET", "/api/v0/template/", "templates", search),
    Route("POST", "/api/v0/template/", "template_create", create),
    Route("PUT", "/api/v0/template/", "template_update", edit),
    Route("PUT", "/api/v1/template/", "template_update", edit),
    Route("DELETE", "/api/v0/template/", "template_delete", delete),
]
