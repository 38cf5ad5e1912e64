import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.labels import MAX_LENGTH, Label, is_ours, make_label, parse_label

deployments = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=4, max_size=20)
sessions = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=16, max_size=16).map(lambda part: f"sess-{part}")
attempts = st.integers(1, 999_999_999)

SESSION = "sess-abcdefghijklmn27"


@given(deployments, sessions, attempts)
def test_round_trip(deployment: str, session: str, attempt: int) -> None:
    label = make_label(deployment, session, attempt)
    assert parse_label(label) == Label(deployment, session, attempt)
    assert str(parse_label(label)) == label
    assert len(label) <= MAX_LENGTH


@given(deployments, deployments, sessions, attempts)
def test_a_label_is_of_one_deployment_only(one: str, other: str, session: str, attempt: int) -> None:
    assert is_ours(make_label(one, session, attempt), other) == (one == other)


@given(deployments, st.text("abc019", min_size=1, max_size=4), sessions)
def test_a_deployment_that_begins_like_another_stays_apart(short: str, more: str, session: str) -> None:
    longer = (short + more)[:20]
    assert is_ours(make_label(longer, session, 1), short) is (longer == short)
    assert is_ours(make_label(short, session, 1), longer) is (longer == short)


@given(st.text())
def test_foreign_text_is_nobodys(text: str) -> None:
    assert parse_label(text) is None
    assert not is_ours(text, "prod")


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "gpb-prod-abcdefghijklmn27",
        "gpb-prod-abcdefghijklmn27-0",
        "gpb-prod-abcdefghijklmn27-01",
        "gpb-prod-abcdefghijklmn27-1 ",
        " gpb-prod-abcdefghijklmn27-1",
        "gpb-prod-abcdefghijklmn27-1\n",
        "gpb-prod-abcdefghijklmn27-1-2",
        "GPB-prod-abcdefghijklmn27-1",
        "gpb-Prod-abcdefghijklmn27-1",
        "gpb-pr-abcdefghijklmn27-1",
        "gpb-prod-abcdefghijklmn2-1",
        "gpb-prod-abcdefghijklmn28-1",
        "gpb-prod-abcdefghijklmn27-\u0661",
        "gpb-prod-x-abcdefghijklmn27-1",
    ],
)
def test_what_is_almost_a_label_is_none(text: str | None) -> None:
    assert parse_label(text) is None
    assert not is_ours(text, "prod")


@pytest.mark.parametrize(
    ("deployment", "session", "attempt"),
    [
        ("abc", SESSION, 1),
        ("a" * 21, SESSION, 1),
        ("pro-d", SESSION, 1),
        ("PROD", SESSION, 1),
        ("prod", "abcdefghijklmn27", 1),
        ("prod", "sess-abc", 1),
        ("prod", "sess-ABCDEFGHIJKLMN27", 1),
        ("prod", SESSION, 0),
        ("prod", SESSION, -1),
        ("prod", SESSION, 1_000_000_000),
    ],
)
def test_malformed_parts_are_refused(deployment: str, session: str, attempt: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        make_label(deployment, session, attempt)
