"""Looks at running machines over real SSH: use, keys and their repair, silence, and a stranger at the door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock, sshkeys
from sessions_app import drive, glance, verify, watch
from sessions_app.models import ActivitySample, Door, Event, Rental, Session
from sessions_app.samples import Reading
from sessions_app.states import Debt, Status
from tests.harness import Api, Driver, MovableClock
from tests.interleave import on_the_wire
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

ATTACH = r"/api/v0/instances/\d+/ssh/$"


@pytest.fixture
def running(market: SandboxProcess, api: Api, driver: Driver) -> dict[str, Any]:
    created: dict[str, Any] = api.create(idle_threshold_minutes=2)
    driver.until_status(created["session"]["id"], "running")
    return created


def look(logins: int = 0) -> ActivitySample:
    """One look now, whatever the schedule says, with so many logins held open by the test."""
    hung_up(logins)
    watch.look(Session.objects.get().id)
    return ActivitySample.objects.latest("id")


def hung_up(logins: int = 0) -> None:
    """Wait until the machine has closed its side of what came before: here a look comes in no time after the last one,
    not a minute later, and would take that for somebody else's login."""
    mine = f":{Session.objects.get().ssh_port or 0:04X}"
    deadline = monotonic() + 10
    while monotonic() < deadline:
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # 01: established; 08: closed by the other side only.
        if sum(row[1].endswith(mine) and row[3] in ("01", "08") for row in rows) <= logins:
            return
        clock.pause(0.02)


def kinds() -> list[str]:
    """The events since it ran."""
    last = Event.objects.filter(to_state=Status.RUNNING).latest("id")
    return list(Event.objects.filter(id__gt=last.id).order_by("id").values_list("kind", flat=True))


def nobody_answers() -> None:
    """Neither where the session says that its machine is, nor anywhere that the provider tells."""
    Session.objects.update(ssh_port=1)
    Rental.objects.update(ssh_endpoints=[])


def diagnosed(api: Api) -> Any:
    return api.get(f"/sessions/{Session.objects.get().id}/diagnostics")


def machine(market: SandboxProcess) -> str:
    return str(market.alive()[0]["id"])


def bodies(keys: list[str]) -> set[str]:
    return {" ".join(key.split()[:2]) for key in keys}


@contextmanager
def logged_in(private_key: str) -> Iterator[None]:
    session = Session.objects.get()
    with verify.login(verify.Endpoint(session.ssh_host, session.ssh_port or 0, session.ssh_user), private_key):
        yield


# -- use -------------------------------------------------------------------------------------------------


def test_a_look_tells_the_use_and_does_not_count_itself(
    market: SandboxProcess, api: Api, running: dict[str, Any], time: MovableClock
) -> None:
    time.advance(minutes=1)
    quiet = look()
    assert (quiet.source, quiet.gpu_utilization, quiet.memory_used_mb, quiet.ssh_connections) == ("probe", 0, 1, 0)
    market.admin("POST", f"instances/{machine(market)}/load", {"utilization": 87, "memory_used": 20_480})
    with logged_in(running["ssh_private_key"]):
        busy = look(logins=1)
    assert (busy.gpu_utilization, busy.memory_used_mb, busy.ssh_connections, busy.note) == (87, 20_480, 1, "")
    rental = Rental.objects.get()
    assert rental.key_checked_at is not None
    assert clock.now() - rental.key_checked_at < timedelta(seconds=30)
    assert kinds() == []
    answer = diagnosed(api)
    assert (answer["ssh_available"], answer["ssh_checked_at"]) == (True, clock.iso(rental.key_checked_at))


def test_idle_by_our_own_looks_to_the_proof(
    market: SandboxProcess, running: dict[str, Any], driver: Driver, time: MovableClock
) -> None:
    """The schedule's own looks, a minute apart: two minutes idle, two of grace, and the machine is given back."""
    session_id = running["session"]["id"]
    for _ in range(6):
        time.advance(seconds=60)
        for due in watch.claim_due():
            hung_up()
            watch.look(due)
    assert kinds()[:2] == ["idle_warning", "session"]
    session = driver.until_status(session_id, "stopped")
    assert session.end_reason == "idle"
    assert session.next_probe_at is None
    assert market.alive() == []


def test_a_login_keeps_an_idle_gpu(market: SandboxProcess, running: dict[str, Any], time: MovableClock) -> None:
    with logged_in(running["ssh_private_key"]):
        for _ in range(6):
            time.advance(seconds=60)
            look(logins=1)
    assert kinds() == []
    assert Session.objects.get().status == "running"


# -- keys ------------------------------------------------------------------------------------------------


def test_wiped_keys_are_put_back_and_seen_to_work(
    market: SandboxProcess, api: Api, running: dict[str, Any], time: MovableClock
) -> None:
    """Vendors rewrite the list of keys after hours."""
    before = bodies(market.alive()[0]["keys"])
    time.advance(hours=1)
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")
    sample = look()
    assert (sample.gpu_utilization, sample.ssh_connections) == (None, None)
    assert kinds() == ["keys_lost", "keys_repaired"]
    assert diagnosed(api)["ssh_available"] is False
    assert bodies(market.alive()[0]["keys"]) == before
    rental = Rental.objects.get()
    assert (rental.key_repairs, rental.door) == (1, Door.LOCKED)
    soon = Session.objects.get().next_probe_at
    assert soon is not None
    assert soon - clock.now() <= timedelta(seconds=watch.SOON_SECONDS)
    look()
    assert kinds() == ["keys_lost", "keys_repaired", "ssh_reachable"]
    assert diagnosed(api)["ssh_available"] is True
    with logged_in(running["ssh_private_key"]):
        assert Session.objects.get().status == "running"


def test_a_repair_that_the_provider_refuses_is_tried_again(market: SandboxProcess, running: dict[str, Any]) -> None:
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")
    market.fault("ssh_attach_fail")
    look()
    assert kinds() == ["keys_lost"]
    rental = Rental.objects.get()
    assert rental.key_repairs == 0
    assert rental.last_error != ""
    look()
    assert kinds() == ["keys_lost", "keys_repaired"]


def test_a_provider_that_cannot_attach_keys_is_told(
    market: SandboxProcess, running: dict[str, Any], settings: Any
) -> None:
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")
    Rental.objects.update(provider="elsewhere")
    look()
    look()
    (event,) = Event.objects.filter(kind="keys_lost")
    assert event.reason == (
        "the machine no longer accepts the broker's key; elsewhere cannot put keys on a running machine"
    )
    assert kinds() == ["keys_lost"]
    assert market.alive()[0]["keys"] == []


def test_a_key_replaced_in_the_middle_of_a_repair_is_taken_off_again(
    market: SandboxProcess, running: dict[str, Any]
) -> None:
    old = Session.objects.get().ssh_public_key
    new = sshkeys.generate("ed25519", "new").public
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")

    def rekeyed_meanwhile(request: Any, number: int) -> None:
        Session.objects.update(ssh_public_key=new)

    with on_the_wire(market, ("POST", ATTACH, rekeyed_meanwhile)) as calls:
        look()
    assert len(calls) == 2
    assert kinds() == ["keys_lost"]
    assert bodies([old]) & bodies(market.alive()[0]["keys"]) == set()
    look()
    look()
    assert kinds() == ["keys_lost", "ssh_reachable"]


def test_an_end_in_the_middle_of_a_repair_wins(market: SandboxProcess, api: Api, running: dict[str, Any]) -> None:
    session_id = running["session"]["id"]
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")

    def ended_meanwhile(request: Any, number: int) -> None:
        api.post(f"/sessions/{session_id}/done")

    with on_the_wire(market, ("POST", ATTACH, ended_meanwhile)):
        look()
    assert "keys_repaired" not in kinds()
    assert Rental.objects.get().key_repairs == 0
    session = Session.objects.get()
    assert (session.status, session.next_probe_at) == ("stopping", None)


# -- silence and strangers ---------------------------------------------------------------------------------


def test_silence_is_told_when_it_is_sure_and_when_it_is_over_and_ends_nothing(
    market: SandboxProcess, api: Api, running: dict[str, Any]
) -> None:
    port = Session.objects.get().ssh_port
    nobody_answers()
    sample = look()
    assert (sample.gpu_utilization, sample.ssh_connections) == (None, None)
    assert sample.note.startswith("127.0.0.1:1 does not accept connections")
    assert kinds() == []
    look()
    look()
    assert kinds() == ["ssh_unreachable"]
    assert diagnosed(api)["ssh_available"] is False
    Session.objects.update(ssh_port=port)
    look()
    assert kinds() == ["ssh_unreachable", "ssh_reachable"]
    assert diagnosed(api)["ssh_available"] is True
    assert Session.objects.get().status == "running"
    assert len(market.alive()) == 1


def test_a_hiccup_is_no_event(market: SandboxProcess, running: dict[str, Any]) -> None:
    port = Session.objects.get().ssh_port
    nobody_answers()
    look()
    Session.objects.update(ssh_port=port)
    look()
    assert kinds() == []


def test_another_host_key_gets_no_login_and_no_keys(
    market: SandboxProcess, api: Api, running: dict[str, Any], time: MovableClock
) -> None:
    pinned = Rental.objects.get().host_key
    stranger = " ".join(sshkeys.generate("ed25519", "x").public.split()[:2])
    Rental.objects.update(host_key=stranger)
    checked = Rental.objects.get().key_checked_at
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")
    time.advance(minutes=1)
    sample = look()
    look()
    assert (sample.gpu_utilization, sample.note) == (None, "another host key")
    assert kinds() == ["host_key_changed"]
    event = Event.objects.get(kind="host_key_changed")
    assert verify.fingerprint(stranger) in event.reason
    assert verify.fingerprint(pinned) in event.reason
    assert market.alive()[0]["keys"] == []
    assert Rental.objects.get().key_checked_at == checked
    answer = diagnosed(api)
    assert (answer["ssh_available"], answer["status"]) == (False, "running")


def test_a_session_that_ended_meanwhile_is_left_alone(market: SandboxProcess, api: Api, running: Any) -> None:
    session_id = running["session"]["id"]
    market.admin("POST", f"instances/{machine(market)}/wipe-keys")
    api.post(f"/sessions/{session_id}/done")
    watch.look(session_id)
    assert not ActivitySample.objects.exists()
    assert market.alive()[0]["keys"] == []
    assert Session.objects.get().next_probe_at is None


# -- when ------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_due_session_is_claimed_once_the_longest_due_first(time: MovableClock) -> None:
    now = clock.now()
    made = [
        make_session(Status.RUNNING, offer_id=f"vastai-{n}", next_probe_at=now - timedelta(seconds=n)) for n in range(5)
    ]
    later = make_session(Status.RUNNING, offer_id="vastai-9", next_probe_at=now + timedelta(seconds=9))
    assert watch.claim_due(2) == [made[4].id, made[3].id]
    assert set(watch.claim_due()) == {session.id for session in made[:3]}
    assert watch.claim_due() == []
    time.advance(seconds=10)
    assert watch.claim_due() == [later.id]
    time.advance(seconds=55)
    assert len(watch.claim_due()) == 5  # whoever had claimed them died


@pytest.mark.django_db
def test_the_tick_hands_looks_on(settings: Any) -> None:
    session = make_session(Status.RUNNING, next_probe_at=clock.now())
    before = clock.now()
    assert drive.tick() >= 1
    claimed = Session.objects.get(id=session.id).next_probe_at
    assert claimed is not None
    assert claimed >= before + watch.LEASE


@pytest.mark.django_db
def test_a_session_from_before_there_were_looks_is_watched_once_it_is_driven() -> None:
    session = make_session(Status.RUNNING)
    entrypoint = make_session(Status.RUNNING, offer_id="vastai-2", launch_mode="entrypoint")
    for each in (session, entrypoint):
        drive.drive_session(each.id)
    assert Session.objects.get(id=session.id).next_probe_at is not None
    assert Session.objects.get(id=entrypoint.id).next_probe_at is None


@pytest.mark.django_db
def test_no_room_for_a_look_puts_it_off(settings: Any) -> None:
    session = make_session(Status.RUNNING, next_probe_at=clock.now())
    make_rental(session, Debt.LIVE)
    taken = [watch._slots.acquire(blocking=False) for _ in range(watch.MOST_AT_ONCE)]
    try:
        watch.look(session.id)
    finally:
        for _ in taken:
            watch._slots.release()
    assert all(taken)
    again = Session.objects.get().next_probe_at
    assert again is not None
    assert again - clock.now() > timedelta(seconds=4)
    assert not ActivitySample.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("threshold", "period"), [(0, 1800), (30, 60)])
def test_ten_thousand_do_not_fall_due_together(threshold: int, period: int) -> None:
    session = make_session(Status.RUNNING, idle_threshold_minutes=threshold)
    start = clock.now()
    tenths = [0] * 10
    for number in range(2000):
        session.id = f"sess-{number}"
        at = watch.first_look(session)
        assert at is not None
        wait = (at - start).total_seconds()
        assert 0 < wait <= period + 5
        tenths[min(int(wait * 10 / period), 9)] += 1
    assert min(tenths) > 120
    assert max(tenths) < 280


@pytest.mark.django_db
def test_a_look_comes_when_it_decides() -> None:
    session = make_session(Status.RUNNING, idle_threshold_minutes=10)
    now = clock.now()
    with clock.use(lambda: now):
        usual = watch.first_look(session)
        assert usual is not None
        warns_at = now + (usual - now) / 2
        session.idle_since = warns_at - timedelta(minutes=10)
        assert watch.first_look(session) == warns_at


# -- what the command prints -----------------------------------------------------------------------------

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#: 22 from 40000 (ours), 22 from 40001 (somebody's), 8000 from 40002, and the listening socket.
OURS = "   0: 020011AC:0016 0100000A:9C40 01 0 0\n"
THEIRS = "   1: 0000000000000000FFFF0000020011AC:0016 0000000000000000FFFF00000200000A:9C41 01 0 0\n"
OTHER = "   2: 020011AC:1F40 0100000A:9C42 01 0 0\n"
LISTENING = "   3: 00000000:0016 00000000:0000 0A 0 0\n"
CAME_BY = "10.0.0.1 40000 172.17.0.2 22\n"
NET = "/proc/77/cmdline\n"


def printed(gpus: str = "0, 1\n", came_by: str = CAME_BY, who: str = "", net: str = "", tcp: str = HEAD + OURS) -> str:
    mark = "@gpubroker\n"
    return "a banner, of two lines\nor more\n" + mark + "".join(part + mark for part in (gpus, came_by, who, net, tcp))


@pytest.mark.parametrize(
    ("output", "gpu_count", "reading"),
    [
        (printed(), 1, Reading(0, 1, 0)),
        (printed("0, 1\n63, 800\n"), 2, Reading(63, 800, 0)),
        (printed("0, 1\n[N/A], 800\n"), 2, Reading(None, 800, 0, "nvidia-smi tells of 1 of 2 GPUs")),
        (printed("63, 1\n[N/A], 800\n"), 2, Reading(63, 800, 0)),
        (printed("0, 1\n"), 2, Reading(None, 1, 0, "nvidia-smi tells of 1 of 2 GPUs")),
        (printed(""), 1, Reading(None, None, 0, "nvidia-smi tells of 0 of 1 GPUs")),
        (printed("No devices were found\n"), 1, Reading(None, None, 0, "nvidia-smi tells of 0 of 1 GPUs")),
        (printed(tcp=HEAD + OURS + OTHER + LISTENING), 1, Reading(0, 1, 0)),
        (printed(tcp=HEAD + OURS + THEIRS), 1, Reading(0, 1, 1)),
        (printed(tcp=HEAD + OURS + THEIRS, net=NET), 1, Reading(0, 1, 0)),
        (printed(who="me pts/0 today\nme pts/1 today\n"), 1, Reading(0, 1, 2)),
        (printed(tcp="", who="me pts/0 today\n"), 1, Reading(0, 1, 1)),
        (printed(tcp=""), 1, Reading(0, 1, None, "our own connection is not in /proc/net/tcp, so nobody else's can be counted")),  # noqa: E501
        (printed(tcp=HEAD + THEIRS), 1, Reading(0, 1, None, "our own connection is not in /proc/net/tcp, so nobody else's can be counted")),  # noqa: E501
        (printed(came_by="\n"), 1, Reading(0, 1, None, "our own connection is not in /proc/net/tcp, so nobody else's can be counted")),  # noqa: E501
        (printed()[:-12], 1, Reading(note="the machine's answer is not complete")),
        ("", 1, Reading(note="the machine's answer is not complete")),
    ],
)  # fmt: skip
def test_readings(output: str, gpu_count: int, reading: Reading) -> None:
    assert glance.read(output, gpu_count) == reading


@given(text=st.text(max_size=300), who=st.text(max_size=40), gpus=st.text(alphabet="0123456789,. \n[N/A]", max_size=60))
def test_whatever_a_machine_prints_is_a_reading(text: str, who: str, gpus: str) -> None:
    for output in (text, printed(gpus, text, who, text, text)):
        reading = glance.read(output, 1)
        assert reading.gpu_utilization is None or reading.gpu_utilization >= 0
        assert reading.ssh_connections is None or reading.ssh_connections >= 0
        assert reading.note or (reading.gpu_utilization is not None and reading.ssh_connections is not None)
