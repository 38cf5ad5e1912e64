"""No secret and no forged line in the logs, in text and in JSON."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from hypothesis import example, given
from hypothesis import strategies as st

from billing import keys
from gpubroker.common import logs, sshkeys

LINE = re.compile(r"\d\d:\d\d:\d\d (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) +[\w.]+: .*")
PEM = sshkeys.generate("ed25519", "me").private
RSA = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
base32 = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=40, max_size=40)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
#: (the text as it may stand in a line, the part of it that must not)
secrets = st.one_of(
    base32.map(lambda secret: (f"gpb_abcdefgh_{secret}", secret)),
    base32.map(lambda secret: (f"Authorization: Bearer {secret}", secret)),
    base32.map(lambda secret: (f"X-API-Key: gpb_abcdefgh_{secret}", secret)),
    base32.map(lambda secret: (f'{{"agent_token": "{secret}"}}', secret)),
    base32.map(lambda secret: (f"redis password={secret}", secret)),
    hexadecimal.map(lambda secret: (f" {secret} ", secret)),
    st.sampled_from([PEM, RSA]).map(lambda pem: (pem, pem.splitlines()[1])),
)
#: What may stand around it: anything but letters and digits, which could make it part of another word.
around = st.text(st.characters(exclude_categories=("L", "N", "Cs")), max_size=30)


class Sink:
    """A logger of its own, configured as ours are, and what it wrote."""

    def __init__(self, form: str) -> None:
        self.written = io.StringIO()
        handler = logging.StreamHandler(self.written)
        handler.setFormatter({"text": TEXT, "json": JSON}[form])
        handler.addFilter(logs.ContextFilter())
        self.log = logging.Logger("test.sink", logging.DEBUG)
        self.log.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()


TEXT = logs.TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(ids)s", datefmt="%H:%M:%S")
JSON = logs.JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")


class Odd(Exception):
    """An exception as a vendor's library raises it."""


def write_everywhere(log: logging.Logger, text: str) -> None:
    log.warning(text)
    log.info("%s", text)
    log.info("%(word)s", {"word": text})
    log.info("an object: %r", Odd(text))
    log.info("an extra", extra={"headers": {"x": text}, "body": text})
    log.info({"a dict": text})
    log.info("too few %s %s", text)
    log.info(text, stack_info=True)
    with logs.context(session_id=text):
        log.info("context")
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise Odd(f"again {text}") from error
    except Odd:
        log.exception("failed with %s", text)


@pytest.mark.parametrize("form", ["text", "json"])
@given(secret=secrets, before=around, after=around)
def test_no_secret_is_written(form: str, secret: tuple[str, str], before: str, after: str) -> None:
    sink = Sink(form)
    text, hidden = secret
    write_everywhere(sink.log, f"{before} {text} {after}")
    assert hidden not in sink.written.getvalue()
    assert sink.written.getvalue().count("[redacted]") >= 8


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_visible_part_of_a_key_stays(form: str) -> None:
    sink, new = Sink(form), keys.generate()
    sink.log.info("used %s twice", new.secret)
    assert f"used {new.prefix}_[redacted] twice" in sink.lines[0]


@given(st.text(max_size=200))
@example("\n12:00:00 INFO    billing: API key made\r\n12:00:01 ERROR   x: y")
@example("\x0b12:00:00 ERROR   x: y\x1c12:00:00 ERROR   x: y\x85\u2028\u2029\x1b[31m\udc80")
def test_no_text_is_more_than_one_line_of_text(text: str) -> None:
    sink = Sink("text")
    write_everywhere(sink.log, text)
    written = sink.written.getvalue()
    written.encode()
    assert written.count("\n") == len(written.splitlines())
    records = [line for line in written.splitlines() if not line.startswith("    ")]
    assert len(records) == 10
    assert [line for line in records if not LINE.fullmatch(line)] == []


@given(st.text(max_size=200))
def test_json_is_one_object_a_line(text: str) -> None:
    sink = Sink("json")
    write_everywhere(sink.log, text)
    assert [json.loads(line)["name"] for line in sink.lines] == ["test.sink"] * 10


def test_what_other_handlers_see_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%s\n", ("Bearer abcdefgh",), None)
    record.ids = ""
    assert "abcdefgh" not in TEXT.format(record)
    assert (record.msg, record.args) == ("%s\n", ("Bearer abcdefgh",))


def test_numbers_stay_numbers_in_json() -> None:
    sink = Sink("json")
    sink.log.info("served", extra={"status_code": 200, "seconds": 0.5, "cached": True, "nothing": None})
    line = json.loads(sink.lines[0])
    assert (line["status_code"], line["seconds"], line["cached"], line["nothing"]) == (200, 0.5, True, None)


@pytest.fixture
def web(settings: Any) -> Iterator[Sink]:
    """What the root logger's handler of a web process writes, in text."""
    sink = Sink("text")
    handler = sink.log.handlers[0]
    root = logging.getLogger()
    root.addHandler(handler)
    yield sink
    root.removeHandler(handler)


@pytest.mark.django_db
def test_a_request_cannot_forge_a_line(web: Sink) -> None:
    forged = "x\r\n12:00:00 ERROR   billing: everything is paid"
    client = Client(raise_request_exception=False)
    client.get("/api/v1/none\n12:00:00 ERROR   billing: forged", headers={"X-Request-ID": forged, "User-Agent": forged})
    client.get("/api/v1/sessions", {"consumer_id": forged}, headers={"Authorization": f"Bearer {forged}"})
    client.post("/api/v1/keys", {"consumer_id": forged}, content_type="application/json", headers={"Prefer": forged})
    client.post(
        "/api/v1/sessions", {"consumer_id": forged, "offer_id": forged, "workload_type": "llm", "reservation_hours": 1},
        content_type="application/json",
    )  # fmt: skip
    assert [line for line in web.lines if re.match(r"12:00:0\d ERROR", line)] == []
    assert [line for line in web.lines if not line.startswith("    ") and not LINE.fullmatch(line)] == []
