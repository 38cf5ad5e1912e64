"""Idle shutdown with evidence: only what was seen to be idle counts, a warning first, and never by what is unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock
from sessions_app import heartbeat, idle, samples
from sessions_app.idle import GRACE, LONGEST_GAP, Known, Seen, Verdict
from sessions_app.models import ActivitySample, Event, Session
from sessions_app.samples import Reading, Source
from sessions_app.states import Status
from tests import keys
from tests.harness import Api, MovableClock
from tests.interleave import Elsewhere, before_sql
from tests.keys import Caller
from tests.sessions_app.test_states import make_session

NOON = datetime(2026, 1, 29, 12, 0, tzinfo=UTC)
TOKEN = "t" * 43
IDLE = Reading(0.0, 1, 0)
BUSY = Reading(93.0, 20_000, 0)

steps = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=400),
        st.sampled_from([None, 0.0, 4.9, 5.0, 80.0]),
        st.sampled_from([None, 0, 1]),
        st.booleans(),
    ),
    max_size=40,
)


def history(told: list[tuple[int, float | None, int | None, bool]]) -> list[Seen]:
    """Samples at growing times, each some seconds after the one before."""
    at, seen = NOON, []
    for seconds, utilization, logins, by_probe in told:
        at += timedelta(seconds=seconds)
        seen.append(Seen(at, utilization, logins, by_probe))
    return seen


def contradicted(seen: list[Seen], place: int) -> bool:
    """A heartbeat shortly after a look that saw activity, or that very look."""
    looks = [sample for sample in seen[: place + 1] if sample.by_probe]
    return bool(looks) and looks[-1].busy and seen[place].at - looks[-1].at <= LONGEST_GAP


def by_definition(seen: list[Seen]) -> datetime | None:
    """The first of the idle samples at the end of the history, between which there is no gap."""
    since = None
    for place in reversed(range(len(seen))):
        if not seen[place].idle or contradicted(seen, place):
            break
        if since is not None and seen[place + 1].at - seen[place].at > LONGEST_GAP:
            break
        since = seen[place].at
    return since


@given(told=steps)
def test_one_sample_after_another_comes_to_what_all_together_say(
    told: list[tuple[int, float | None, int | None, bool]],
) -> None:
    seen = history(told)
    assert idle.after_all(seen).since == by_definition(seen)


@given(told=steps, threshold=st.integers(min_value=0, max_value=20))
def test_an_end_has_a_warning_and_idle_samples_without_a_gap_behind_it(
    told: list[tuple[int, float | None, int | None, bool]], threshold: int
) -> None:
    known, warned_at = Known(), None
    seen = history(told)
    for place, sample in enumerate(seen):
        before, known = known.since, idle.after(known, sample)
        warned_at = warned_at if known.since == before else None
        verdict = idle.verdict(known.since, warned_at, threshold, sample.at)
        if verdict is Verdict.END:
            assert known.since is not None
            assert warned_at is not None
            assert threshold > 0
            assert sample.at - warned_at >= min(GRACE, timedelta(minutes=threshold))
            assert warned_at - known.since >= timedelta(minutes=threshold)
            covering = [each for each in seen[: place + 1] if each.at >= known.since]
            assert all(each.idle for each in covering)
            assert all(later.at - earlier.at <= LONGEST_GAP for earlier, later in pairwise(covering))
            return
        if verdict is Verdict.WARN:
            warned_at = sample.at


@pytest.mark.parametrize(
    ("utilization", "logins", "counts_as_idle"),
    [(0.0, 0, True), (4.99, 0, True), (5.0, 0, False), (0.0, 1, False), (None, 0, False), (0.0, None, False),
     (None, None, False)],
)  # fmt: skip
def test_what_counts_as_idle(utilization: float | None, logins: int | None, counts_as_idle: bool) -> None:
    assert Seen(NOON, utilization, logins).idle is counts_as_idle


def test_a_clock_that_was_set_back_proves_nothing() -> None:
    later = NOON + timedelta(minutes=1)
    known = idle.after_all([Seen(later, 0.0, 0), Seen(NOON, 0.0, 0)])
    assert known.since == NOON


# -- in the books --------------------------------------------------------------------------------------


def running(**changes: Any) -> Session:
    fields = {"idle_threshold_minutes": 10, "agent_token_hash": heartbeat.hashed(TOKEN), **changes}
    hours = {"expires_at": clock.now() + timedelta(hours=6), "reservation_hours": 6}
    return make_session(Status.RUNNING, running_at=clock.now(), **{**hours, **fields})


def told(session: Session) -> list[str]:
    return list(Event.objects.filter(session=session).order_by("id").values_list("kind", flat=True))


def beat(api: Api, session: Session, utilization: float = 0, logins: int = 0) -> str:
    body = {"agent_token": TOKEN, "gpu_utilization": utilization, "memory_used_mb": 1, "ssh_connections": logins}
    status: str = api.post(f"/sessions/{session.id}/heartbeat", body)["status"]
    return status


def minutes_of(time: MovableClock, session: Session, reading: Reading, minutes: int) -> None:
    for _ in range(minutes):
        time.advance(minutes=1)
        samples.take(session.id, Source.PROBE, reading)


@pytest.mark.django_db
@pytest.mark.parametrize("launch_mode", ["ssh", "entrypoint"])
def test_heartbeats_alone_warn_and_then_end(api: Api, time: MovableClock, launch_mode: str) -> None:
    session = running(launch_mode=launch_mode)
    for _ in range(10):
        assert beat(api, session) == "running"
        time.advance(minutes=1)
    assert told(session) == []
    assert beat(api, session) == "running"
    (warning,) = Event.objects.filter(session=session)
    assert warning.kind == "idle_warning"
    fresh = Session.objects.get()
    assert fresh.idle_since is not None
    assert fresh.idle_warned_at is not None
    assert warning.details == {
        "idle_since": clock.iso(fresh.idle_since), "ends_at": clock.iso(fresh.idle_warned_at + GRACE),
        "threshold_minutes": 10,
    }  # fmt: skip
    for _ in range(4):
        time.advance(minutes=1)
        assert beat(api, session) == "running"
    time.advance(minutes=1)
    assert beat(api, session) == "stopped"
    ended = Session.objects.get()
    assert (ended.status, ended.end_reason) == ("stopped", "idle")
    assert ended.end_message == f"idle since {clock.iso(fresh.idle_since)}, for longer than the 10 min allowed"


@pytest.mark.django_db
@pytest.mark.parametrize("reading", [BUSY, Reading(0.0, 1, 1), Reading(), Reading(0.0, 1, None, "who?")])
def test_activity_or_anything_unknown_in_the_grace_takes_it_all_back(time: MovableClock, reading: Reading) -> None:
    session = running()
    minutes_of(time, session, IDLE, 13)
    assert told(session) == ["idle_warning"]
    minutes_of(time, session, reading, 1)
    fresh = Session.objects.get()
    assert (fresh.idle_since, fresh.idle_warned_at) == (None, None)
    minutes_of(time, session, IDLE, 10)
    assert told(session) == ["idle_warning", "idle_over"]
    minutes_of(time, session, IDLE, 1)
    assert told(session) == ["idle_warning", "idle_over", "idle_warning"]
    assert Session.objects.get().status == "running"


@pytest.mark.django_db
def test_a_time_without_samples_is_unknown_so_an_outage_of_ours_ends_nobody(time: MovableClock) -> None:
    session = running()
    minutes_of(time, session, IDLE, 12)
    assert told(session) == ["idle_warning"]
    time.advance(hours=1)
    samples.take(session.id, Source.PROBE, IDLE)
    fresh = Session.objects.get()
    assert (fresh.status, fresh.idle_warned_at) == ("running", None)
    assert fresh.idle_since == ActivitySample.objects.latest("id").at
    assert told(session) == ["idle_warning", "idle_over"]


@pytest.mark.django_db
def test_a_look_that_sees_activity_is_believed_before_heartbeats(api: Api, time: MovableClock) -> None:
    session = running(idle_threshold_minutes=1)
    samples.take(session.id, Source.PROBE, BUSY)
    for _ in range(4):
        time.advance(minutes=1)
        beat(api, session)
    assert Session.objects.get().idle_since is None
    time.advance(seconds=30)
    samples.take(session.id, Source.PROBE, IDLE)
    time.advance(seconds=30)
    beat(api, session)
    assert Session.objects.get().idle_since is not None


@pytest.mark.django_db
def test_an_agent_that_sees_work_is_believed_before_a_look(api: Api, time: MovableClock) -> None:
    session = running(idle_threshold_minutes=2)
    for _ in range(6):
        time.advance(minutes=1)
        samples.take(session.id, Source.PROBE, IDLE)
        beat(api, session, utilization=50)
    assert told(session) == []
    assert Session.objects.get().idle_since is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("status", "threshold"), [(Status.RUNNING, 0), (Status.PROVISIONING, 1), (Status.STOPPING, 1)]
)  # fmt: skip
def test_a_threshold_of_0_and_a_session_that_does_not_run_are_never_idle(
    time: MovableClock, status: Status, threshold: int
) -> None:
    session = running(idle_threshold_minutes=threshold)
    Session.objects.update(status=status)
    minutes_of(time, session, IDLE, 30)
    fresh = Session.objects.get()
    assert (fresh.status, fresh.idle_since) == (status, None)
    assert told(session) == []
    assert ActivitySample.objects.count() == 30


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_warn_once(time: MovableClock) -> None:
    session = running(idle_threshold_minutes=1)
    samples.take(session.id, Source.HEARTBEAT, IDLE)
    time.advance(minutes=1, seconds=1)
    second = Elsewhere(lambda: samples.take(session.id, Source.HEARTBEAT, IDLE))
    with before_sql(r"UPDATE .sessions_app_session", second.start) as happened:
        samples.take(session.id, Source.HEARTBEAT, IDLE)
    second.finish()
    assert happened
    assert told(session) == ["idle_warning"]
    assert ActivitySample.objects.count() == 3


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_work_that_begins_in_the_moment_of_the_end_comes_before_or_after_it(api: Api, time: MovableClock) -> None:
    """Whoever has the row first: here the end. The beat that waited finds a session that is over."""
    session = running(idle_threshold_minutes=1)
    for _ in range(2):
        samples.take(session.id, Source.PROBE, IDLE)
        time.advance(minutes=1, seconds=1)
    late = Elsewhere(lambda: samples.take(session.id, Source.HEARTBEAT, BUSY))
    with before_sql(r"UPDATE .sessions_app_session", late.start) as happened:
        samples.take(session.id, Source.PROBE, IDLE)
    late.finish()
    assert happened
    assert told(session) == ["idle_warning", "session", "session"]
    fresh = Session.objects.get()
    assert (fresh.status, fresh.end_reason) == ("stopped", "idle")


@pytest.mark.django_db
def test_a_threshold_longer_than_the_samples_are_kept(time: MovableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_SAMPLES", 5)
    monkeypatch.setattr(samples, "SLACK", 2)
    session = running(idle_threshold_minutes=20)
    minutes_of(time, session, IDLE, 20)
    assert told(session) == []
    minutes_of(time, session, IDLE, 1)
    assert told(session) == ["idle_warning"]
    minutes_of(time, session, IDLE, 5)
    assert Session.objects.get().end_reason == "idle"


@pytest.mark.django_db
def test_the_samples_are_shown_with_what_follows(api: Api, time: MovableClock) -> None:
    session = running()
    minutes_of(time, session, Reading(None, 5, None, "nvidia-smi does not answer"), 1)
    minutes_of(time, session, IDLE, 2)
    answer = api.get(f"/sessions/{session.id}/samples")
    unknown, *_, last = answer.pop("samples")
    rows = list(ActivitySample.objects.order_by("id"))
    since = rows[1].at
    assert answer == {
        "session_id": session.id, "idle_threshold_minutes": 10, "idle_since": clock.iso(since), "warned_at": None,
        "warns_at": clock.iso(since + timedelta(minutes=10)), "ends_at": clock.iso(since + timedelta(minutes=15)),
        "count": 3, "total": 3,
    }  # fmt: skip
    assert unknown == {
        "at": clock.iso(rows[0].at), "source": "probe", "gpu_utilization": None, "memory_used_mb": 5,
        "ssh_connections": None, "idle": False, "note": "nvidia-smi does not answer",
    }  # fmt: skip
    assert last == {
        "at": clock.iso(rows[2].at), "source": "probe", "gpu_utilization": 0, "memory_used_mb": 1,
        "ssh_connections": 0, "idle": True, "note": "",
    }  # fmt: skip
    page = api.get(f"/sessions/{session.id}/samples", limit=1, offset=2)
    assert (page["samples"], page["count"], page["total"]) == ([last], 1, 3)
    minutes_of(time, session, BUSY, 1)
    assert api.get(f"/sessions/{session.id}/samples")["ends_at"] is None
    assert api.get(f"/sessions/{session.id}/samples", 400, limit="0")["field"] == "limit"


@pytest.mark.django_db
def test_the_samples_are_the_consumers_own(api: Api, settings: Any) -> None:
    session = running()
    mine, other = keys.make("me").secret, keys.make("somebody-else").secret
    settings.API_AUTH = "key"
    path = f"/sessions/{session.id}/samples"
    assert Caller(mine)("GET", path)[0] == 200
    status, answer = Caller(other)("GET", path)
    assert (status, answer["error"]) == (404, f"session {session.id} not found")
    assert Caller()("GET", path)[0] == 401
