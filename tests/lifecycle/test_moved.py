"""A running machine gets another SSH port or host: the session follows it there, and nobody else anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from gpubroker.common import providers as configured
from sessions_app import moved, watch
from sessions_app.models import Rental, Session
from tests.lifecycle.life import Life

#: Another loopback address, which only Linux has from the start.
ELSEWHERE = "127.78.0.9"


def move(life: Life, **how: Any) -> None:
    life.market.admin("POST", f"instances/{life.machine()['id']}/move", how)
    # A process that has not looked lately: TensorDock's addresses are kept for two minutes.
    configured.configured.cache_clear()


def told(life: Life, session_id: str) -> tuple[str, int]:
    session = life.api.get(f"/sessions/{session_id}")
    return session["ssh_host"], session["ssh_port"]


def followed(life: Life, session_id: str) -> dict[str, Any]:
    """Work until it is told somewhere else: the details of the one event."""
    before = told(life, session_id)
    life.until(lambda: told(life, session_id) != before, step=10)
    (event,) = life.events(session_id, "address_changed")
    host, port = told(life, session_id)
    user = life.session(session_id).ssh_user
    assert event.details["before"] == f"{user}@{before[0]}:{before[1]}"
    assert event.details["now"] == f"{user}@{host}:{port}"
    details: dict[str, Any] = event.details
    return details


def kinds(life: Life, session_id: str) -> set[str]:
    return set(life.session(session_id).events.values_list("kind", flat=True))


@pytest.mark.parametrize("how", [{}, {"address": ELSEWHERE}], ids=["port", "host"])
def test_a_session_follows_its_machine(life: Life, how: dict[str, Any], settings: Any) -> None:
    begun = life.begun()
    session_id = begun["session"]["id"]
    life.until_status(session_id, "running")
    pinned = life.rental(session_id).host_key
    move(life, **how)
    details = followed(life, session_id)
    machine = life.machine()
    assert told(life, session_id)[0] == (machine["address"] or "127.0.0.1")
    assert told(life, session_id)[1] in machine["ssh_ports"]
    assert set(details) == {"before", "now", "host_key"}
    assert life.rental(session_id).host_key == pinned
    assert "NVIDIA-SMI" in life.log_in(session_id, begun["ssh_private_key"], "nvidia-smi")

    # It is looked after where it is now, and that is told once.
    life.work(2, step=settings.KEY_CHECK_SECONDS)
    assert len(life.events(session_id, "address_changed")) == 1
    diagnosed = life.api.get(f"/sessions/{session_id}/diagnostics")
    assert (diagnosed["ssh_available"], diagnosed["host_key"]) == (True, details["host_key"])
    assert kinds(life, session_id) & {"ssh_unreachable", "host_key_changed", "keys_lost"} == set()


def test_a_machine_made_anew_elsewhere_proves_itself_and_is_pinned_again(life: Life) -> None:
    session_id = life.running()
    before = life.api.get(f"/sessions/{session_id}/diagnostics")["host_key"]
    move(life, new_key=True)
    details = followed(life, session_id)
    assert details["host_key_before"] == before
    assert details["host_key"] != before
    assert life.api.get(f"/sessions/{session_id}/diagnostics")["host_key"] == details["host_key"]
    assert "host_key_changed" not in kinds(life, session_id)


def test_a_machine_that_moved_and_lost_its_keys_is_still_itself(life: Life) -> None:
    session_id = life.running()
    life.market.admin("POST", f"instances/{life.machine()['id']}/wipe-keys")
    move(life)
    followed(life, session_id)
    assert "keys_lost" in kinds(life, session_id)


def test_an_address_that_is_somebody_elses_is_not_followed(life: Life) -> None:
    session_id = life.running()
    before, pinned = told(life, session_id), life.rental(session_id).host_key
    stranger = life.stranger("my notebook")
    life.advance(5)
    (port, *_) = next(each["ssh_ports"] for each in life.market.ledger() if str(each["id"]) == stranger)
    move(life, port=port)
    life.work(12, step=15)
    assert life.rental(session_id).ssh_endpoints[0]["port"] == port
    assert (told(life, session_id), life.rental(session_id).host_key) == (before, pinned)
    assert kinds(life, session_id) & {"address_changed", "ssh_unreachable"} == {"ssh_unreachable"}
    assert life.session(session_id).status == "running"
    # What is told at last is where it is.
    move(life)
    followed(life, session_id)
    assert life.rental(session_id).host_key == pinned


def test_a_door_that_is_open_to_everybody_proves_nothing(life: Life) -> None:
    session_id = life.running()
    before, pinned = told(life, session_id), life.rental(session_id).host_key
    life.market.fault("open_door", instance_id=life.machine()["id"])
    move(life, new_key=True)
    life.work(12, step=15)
    assert (told(life, session_id), life.rental(session_id).host_key) == (before, pinned)
    assert "address_changed" not in kinds(life, session_id)


def test_another_host_key_where_it_was_gets_nothing(life: Life) -> None:
    """The provider has not moved it: whoever answers there now is not followed, and not believed."""
    session_id = life.running()
    before = told(life, session_id)
    Rental.objects.update(host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl")
    watch.look(session_id)
    assert told(life, session_id) == before
    assert kinds(life, session_id) & {"address_changed", "host_key_changed"} == {"host_key_changed"}


def test_an_address_that_still_opens_is_kept(life: Life) -> None:
    """Whatever else is told: a listing may leave an endpoint out for a moment."""
    session_id = life.running()
    before = told(life, session_id)
    Rental.objects.update(ssh_endpoints=[{"host": "127.0.0.1", "port": 1, "user": "root", "kind": "proxy"}])
    watch.look(session_id)
    assert told(life, session_id) == before
    assert kinds(life, session_id) & {"address_changed", "ssh_unreachable"} == set()


def test_an_end_meanwhile_wins(life: Life) -> None:
    session_id = life.running()
    move(life)
    life.workers.sweep_now()
    session, rental = life.session(session_id), life.rental(session_id)
    before = told(life, session_id)
    life.end(session_id)
    assert not moved.follow(session, rental)
    assert told(life, session_id) == before
    assert Session.objects.get().status == "stopping"
