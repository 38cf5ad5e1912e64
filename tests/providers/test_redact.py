import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.http import safe_text

KEY = "0123456789abcdef" * 4
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"no such user {KEY}!", KEY),
        (f"Authorization: Bearer {KEY[:20]}", KEY[:20]),
        ("Bearer abc.def-ghi", "abc.def"),
        ("GET /x?api_key=s3cr3t&y=1", "s3cr3t"),
        ("/bids?api_token=at_0123456789", "at_0123456789"),
        ("your token at_0123456789 is unknown", "at_0123456789"),
        ('{"instance_api_key": "d15a99"}', "d15a99"),
        ('{\\"api_key\\": \\"d15a99\\"}', "d15a99"),
        ("jupyter_token: 'abc123'", "abc123"),
        ("AGENT_TOKEN=abc123", "abc123"),
        ("password = hunter22", "hunter22"),
        (f"key was {PEM} thanks", "b3BlbnNz"),
        ("key was -----BEGIN RSA PRIVATE KEY-----\nMIIE and cut off", "MIIE"),
        ("the configured one: tr1cky/value+", "tr1cky/value+"),
        (f"{'x' * 290} {KEY}", KEY[:8]),
    ],
)
def test_secrets_are_gone(text: str, hidden: str) -> None:
    shown = safe_text(text, ["tr1cky/value+"])
    assert hidden not in shown
    assert "[redacted]" in shown or shown.endswith("…")


def test_the_rest_stays() -> None:
    assert safe_text("error 404/3603: no_such_ask  Instance type by id 29907796 is not available.") == (
        "error 404/3603: no_such_ask Instance type by id 29907796 is not available."
    )


def test_a_page_becomes_its_words() -> None:
    page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502</h1></body></html>"
    assert safe_text(page) == "502 Bad Gateway 502"


@given(st.text(max_size=2_000))
def test_always_one_short_clean_line(text: str) -> None:
    shown = safe_text(text)
    assert len(shown) <= 300
    assert shown == " ".join(shown.split())
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)
    shown.encode()


@given(st.text(max_size=400), st.text(max_size=400), st.text("abcXYZ012/+=._-", min_size=8, max_size=80))
def test_the_configured_secret_never_shows(before: str, after: str, secret: str) -> None:
    assert secret not in safe_text(before + secret + after, [secret])


@pytest.mark.parametrize(
    "part", ["9", "a-", "<a", "<", "token", "bearer ", "-----BEGIN RSA PRIVATE KEY-----", "f", "=", "\x00"]
)
def test_a_hostile_text_costs_little(part: str) -> None:
    started = time.process_time()
    safe_text(part * 40_000)
    assert time.process_time() - started < 0.2
