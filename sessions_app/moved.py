"""A running machine that its provider tells at another address than its session has: the session follows.

Outside ports and addresses that are not fixed change while machines run (Vast.ai contract, section 6, no. 30;
TensorDock contract, section 12, no. 8). The provider's complete listing alone says where our machine is now; but a port
that we had may be somebody else's by then, so an address is followed only when whoever answers there proves to be our
machine, and the old address no longer opens:

* It shows the host key that was pinned: only our machine can. That is enough, even if it has lost our keys.
* It shows another host key, as a machine does whose disk was made anew. Then it must refuse a key that no machine has,
  so that a server which lets in everybody is none; accept ours, which is on this machine alone; and show the GPUs that
  were promised. That is what a fresh boot must show and a little more, and its host key is pinned from then on. It is
  no proof against somebody who sits between us and an address that the provider itself has just told us, and guesses
  which of two keys is ours; nor is the first sight of any machine.

At an address that the provider did not change, another host key gets nothing (:mod:`sessions_app.watch`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from gpubroker.common import clock, crypto, sshkeys
from sessions_app import verify
from sessions_app.launch_modes import SSH
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, Status
from sessions_app.transitions import record

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """Where the machine has proved itself, and the host key that it showed there."""

    endpoint: verify.Endpoint
    host_key: str


def elsewhere(session: Session, rental: Rental) -> list[verify.Endpoint]:
    """Where the provider tells the machine to be; empty while the session's own address is among it."""
    told = [verify.Endpoint(item["host"], item["port"], item["user"]) for item in rental.ssh_endpoints]
    if (session.ssh_host, session.ssh_port) in {(each.host, each.port) for each in told}:
        return []
    return [each for each in told if each.user == session.ssh_user] or told


def wake(machines: Sequence[tuple[Session, Rental]]) -> None:
    """Have those that the provider has moved looked at now. Called inside the sweep's transaction, which has the
    sessions locked."""
    ids = [s.id for s, r in machines if s.status == Status.RUNNING and s.launch_mode == SSH and elsewhere(s, r)]
    if ids:
        Session.objects.filter(id__in=ids, next_probe_at__isnull=False).update(next_probe_at=clock.now())


def follow(session: Session, rental: Rental) -> bool:
    """Look for the machine where the provider tells it to be, and write down where it proved itself. ``False``:
    nowhere, or the session ended meanwhile."""
    found = _seek(session, rental)
    return found is not None and _write_down(session, rental, found)


def _seek(session: Session, rental: Rental) -> Found | None:
    for endpoint in elsewhere(session, rental):
        try:
            return _prove(endpoint, session, rental)
        except (verify.NotYet, verify.WrongMachine) as error:
            log.info("session %s is not at %s:%d: %s", session.id, endpoint.host, endpoint.port, error)
    return None


def _prove(endpoint: verify.Endpoint, session: Session, rental: Rental) -> Found:
    ours = crypto.unseal(rental.broker_key_sealed)
    try:
        with verify.login(endpoint, ours, rental.host_key):
            return Found(endpoint, rental.host_key)
    except verify.KeyRefused:
        # No key is offered to any other host key: it is our machine, and its keys can be mended there.
        return Found(endpoint, rental.host_key)
    except verify.OtherHostKey:
        _refuses_strangers(endpoint)
    promise = verify.Promise(session.gpu_count, session.vram_mb)
    return Found(endpoint, verify.verify([endpoint], ours, promise).host_key)


def _refuses_strangers(endpoint: verify.Endpoint) -> None:
    try:
        with verify.login(endpoint, sshkeys.generate("ed25519", "nobody").private):
            raise verify.WrongMachine("lets in anybody, so it proves nothing that it lets us in")
    except verify.KeyRefused:
        return


def _write_down(session: Session, rental: Rental, found: Found) -> bool:
    before, now = _shown(session.ssh_user, session.ssh_host, session.ssh_port or 0), found.endpoint
    with transaction.atomic():
        # The session's row first, as everybody does.
        same = Session.objects.select_for_update(no_key=True).filter(
            id=session.id, status=Status.RUNNING, ssh_host=session.ssh_host, ssh_port=session.ssh_port
        )  # fmt: skip
        machine = Rental.objects.select_for_update(no_key=True).filter(
            id=rental.id, state=Debt.LIVE, host_key=rental.host_key
        )  # fmt: skip
        if not (same.exists() and machine.exists()):
            return False
        machine.update(host_key=found.host_key)
        Session.objects.filter(id=session.id).update(ssh_host=now.host, ssh_port=now.port, ssh_user=now.user)
        record(
            "address_changed", session_id=session.id, rental_id=rental.id,
            reason="the provider tells another address, and the machine has proved itself there",
            details={"before": before, "now": _shown(now.user, now.host, now.port), **_host_keys(rental, found)},
        )  # fmt: skip
    log.info("session %s is at %s:%d now", session.id, now.host, now.port)
    return True


def _shown(user: str, host: str, port: int) -> str:
    return f"{user}@{host}:{port}"


def _host_keys(rental: Rental, found: Found) -> dict[str, str]:
    now = {"host_key": verify.fingerprint(found.host_key)}
    return now if found.host_key == rental.host_key else {"host_key_before": verify.fingerprint(rental.host_key), **now}
