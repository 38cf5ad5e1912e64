"""Bodies that are not what they say, or say nothing: media types, charsets, encodings, nesting, repeated keys."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from tests.attacks.conftest import World
from tests.attacks.surface import WITH_BODY, Operation, assert_refused, books, through_wsgi

ORDER = {"consumer_id": "me", "offer_id": "vastai-3", "workload_type": "llm", "reservation_hours": 1}
#: Ten megabytes in ten kilobytes.
BOMB = gzip.compress(json.dumps({**ORDER, "on_start_cmd": "x" * 10_000_000}).encode())
#: Python can decode with all of these, or fails in ways of its own.
CHARSETS = [
    "utf-7", "utf-16", "utf-32", "cp037", "rot13", "base64", "zlib", "hex", "bz2", "undefined", "idna", "punycode",
    "unicode_escape", "raw_unicode_escape", "mbcs", "no-such-thing", "../../etc/passwd", "ÿ", "x" * 5_000,
]  # fmt: skip
PARAMETERS = [
    *(f"charset={name}" for name in CHARSETS), "charset*=bogus''x", "charset*=utf-8''%00", "charset*=utf-8''%ff",
    "charset*=rot13''x", "charset*0*=a''b", "q*=''", "'", '"', '="', "boundary*=bogus''x", "x" * 100_000, ";" * 1_000,
]  # fmt: skip


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_what_is_no_object_is_refused(world: World, operation: Operation) -> None:
    before, path = books(), operation.at(**world.ids)
    for text, kind in (
        ("[]", "list"),
        ("null", "NoneType"),
        ("1", "int"),
        ('"{}"', "str"),
        ("true", "bool"),
        ("[{}]", "list"),
    ):
        answer = world.staff(operation.method, path, text)
        assert_refused(answer, 400, error=f"the body must be a JSON object, not {kind}")
    for raw in (
        b"{",
        b"{}{}",
        b'{"a":1,}',
        b"{'a':1}",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"{}\x00",
        b"// {}",
        b"<a/>",
    ):
        answer = world.staff(operation.method, path, raw)
        assert_refused(answer, 400)
        assert answer.json()["error"].startswith("malformed JSON: ")
    assert books() == before


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda each: each.name)
def test_only_json_is_read(world: World, operation: Operation) -> None:
    before, path, body = books(), operation.at(**world.ids), json.dumps(operation.body())
    for media in (
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data",
        "text/xml", "application/xml", "application/merge-patch+json", "application/jsonx",
        "application/json, text/plain",
        "application/x-yaml", "application/octet-stream", "json", "application/json\x00",
    ):  # fmt: skip
        assert_refused(world.staff(operation.method, path, body, media), 415)
    assert books() == before


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda text: text[:24])
def test_a_charset_changes_nothing(world: World, parameters: str) -> None:
    """Neither what a body means nor what a query means; least of all does it take the request down."""
    auth: dict[str, Any] = {"HTTP_X_API_KEY": world.secrets[0], "CONTENT_TYPE": f"application/json; {parameters}"}
    status, answer = through_wsgi(query="consumer_id=me&limit=1", **auth)
    assert (status, [each["id"] for each in answer["sessions"]]) == (200, [world.mine])
    # In UTF-7 and UTF-16 this is another name.
    assert through_wsgi(query="consumer_id=%2BAG0AZQ-", **auth)[0] == 403
    assert through_wsgi(query="consumer_id=%FF%FEm%00e%00", **auth)[0] == 400
    status, answer = through_wsgi(
        "POST", f"/api/v1/sessions/{world.mine}/extend", body='{"additional_hours": "é"}'.encode(), **auth
    )
    assert (status, answer["field"]) == (400, "additional_hours")
    assert through_wsgi(path="/health", CONTENT_TYPE=auth["CONTENT_TYPE"])[0] in (200, 503)


@pytest.mark.parametrize("parameters", PARAMETERS[::3], ids=lambda text: text[:24])
def test_nor_does_it_in_the_admins_login(db: None, parameters: str) -> None:
    for media in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        status, page = through_wsgi(
            "POST", "/admin/login/", body=b"username=a&password=b", CONTENT_TYPE=f"{media}; {parameters}",
        )  # fmt: skip
        assert status == 403  # no CSRF token
        assert "Traceback" not in str(page)


def test_packed_bodies_are_not_unpacked(world: World) -> None:
    """A megabyte could hold a thousand."""
    assert len(BOMB) < 20_000
    before = books()
    for coding in ("gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "GZIP", "x-gzip", "bogus"):
        for body in (BOMB, zlib.compress(json.dumps(ORDER).encode()), json.dumps(ORDER)):
            answer = world.me("POST", "/api/v1/sessions", body, **{"Content-Encoding": coding})
            assert_refused(answer, 415, error="send the body plain: a Content-Encoding is not understood")
    assert_refused(world.me("POST", "/api/v1/sessions", BOMB), 400, error="malformed JSON: the body is not UTF-8")
    assert books() == before


@pytest.mark.parametrize("opener", ["[", '{"a":', "[[", '[{"a":'])
def test_nesting_is_refused_or_harmless_at_every_depth(world: World, opener: str) -> None:
    closer = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opener) if mark in "[{")
    before = books()
    seen = set()
    for depth in [1, 100, 300, 450, *range(470, 500, 5), *range(900, 1000, 5), 50_000]:
        inner = "1" if opener.endswith(":") else ""
        deep = opener * depth + inner + closer * depth
        for field in ("additional_hours", "nobody_knows"):
            answer = world.me(
                "POST", f"/api/v1/sessions/{world.mine}/extend", f'{{"{field}": {deep}}}',
                **{"Idempotency-Key": f"{depth}-{field}"},
            )  # fmt: skip
            assert_refused(answer, 400)
            seen.add(answer.json()["error"])
    assert seen == {
        "malformed JSON: the body is nested too deeply", "additional_hours: must be a whole number",
        "additional_hours: This field is required.",
    }  # fmt: skip
    assert books() == before


def test_many_small_things_in_a_body_are_read_in_time(world: World) -> None:
    """Hash-flooding names, hundreds of thousands of keys, long texts: each up to the size limit."""
    names = json.dumps({f"field_{number}": 0 for number in range(50_000)})
    collisions = json.dumps({str(number * (2**61 - 1)): 0 for number in range(1, 30_000)})
    for body in (
        names,
        collisions,
        json.dumps({"consumer_id": "x" * 1_000_000}),
        '{"a":' + "[" + "1," * 500_000 + "1]}",
    ):
        assert len(body) < 1_048_576
        assert_refused(world.me("POST", "/api/v1/sessions", body), 400)


def test_the_last_of_repeated_keys_counts_everywhere(world: World) -> None:
    """What is checked is what is done: see also another consumer's id, in test_foreign_ids."""
    path = f"/api/v1/sessions/{world.mine}/extend"
    before = books()
    assert_refused(world.me("POST", path, '{"additional_hours": 1, "additional_hours": 13}'), 400)
    assert_refused(world.me("POST", path, '{"additional_hours": 1, "\\u0061dditional_hours": null}'), 400)
    assert books() == before
    status, answer = world.me.json("POST", path, '{"additional_hours": 13, "additional_hours": 1}')
    assert status == 200, answer


@pytest.mark.parametrize(
    "name", ["__proto__", "constructor", "__class__", "__init__", "self", "", " ", "a.b", "a[0]", "$where"]
)
def test_odd_names_of_fields_are_unknown_ones(world: World, name: str) -> None:
    value: dict[str, Any] = {"status": "running", "is_staff": True}
    body = {"additional_hours": 1, name: value}
    status, answer = world.me.json("POST", f"/api/v1/sessions/{world.mine}/extend", body)
    assert (status, set(answer)) == (200, {"message", "session_id", "new_expires_at"})
