"""The rules that never bend (design.md), held against the marketplace's own ledger.

Each check takes what it needs and raises ``AssertionError`` with the rows that break the rule. ``contracts`` are those
of :meth:`tests.sandbox.SandboxProcess.ledger` that the broker's own creates made; the books are read from the database.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from billing import selectors as billing
from billing.models import MeterSegment
from gpubroker.common import clock
from gpubroker.common.deployment import deployment_id
from gpubroker.common.models import IdempotencyRecord
from providers.labels import is_ours, parse_label
from sessions_app.models import ActivitySample, Event, Pricing, Rental, SeenOrphan, Session
from sessions_app.states import (
    ENDABLE,
    FINAL,
    HAS_MACHINE,
    OPEN,
    RENTAL_MOVES,
    SESSION_MOVES,
    UNSETTLED,
    Debt,
    EndReason,
    Status,
)

Contract = Mapping[str, Any]
CENT = Decimal("0.01")


def every_machine_has_its_rental(contracts: Sequence[Contract]) -> None:
    """I1: whatever stands at the marketplace with our label was written down by us, as asked for."""
    labels = [contract["label"] for contract in contracts if is_ours(contract["label"], deployment_id())]
    known = dict(Rental.objects.filter(label__in=labels, origin="session").values_list("label", "create_sent_at"))
    assert [label for label in labels if known.get(label) is None] == [], "machines without a rental"


def create_is_written_down(label: str) -> None:
    """I1, asked at the moment when a create leaves: its rental is committed and being created."""
    states = list(Rental.objects.filter(label=label, origin="session").values_list("state", flat=True))
    assert states == [Debt.CREATING], f"a create leaves for {label}, which is {states}"


def no_label_twice(contracts: Sequence[Contract]) -> None:
    """I2: a create is never repeated under the same label."""
    labels = Counter(contract["label"] for contract in contracts if is_ours(contract["label"], deployment_id()))
    assert [label for label, count in labels.items() if count > 1] == [], "labels made twice"


def one_machine_per_session(contracts: Sequence[Contract]) -> None:
    """I3: by the ledger's own times, each machine of a session was gone before the next one was made."""
    by_session: dict[str, list[Contract]] = defaultdict(list)
    for contract in contracts:
        label = parse_label(contract["label"])
        if label is not None and label.deployment == deployment_id():
            by_session[label.session_id].append(contract)
    for session_id, made in by_session.items():
        made.sort(key=lambda contract: float(contract["created_at"]))
        for first, second in itertools.pairwise(made):
            gone = float("inf") if first["destroyed_at"] is None else first["destroyed_at"]
            assert gone <= second["created_at"], f"{session_id}: {first} lived beside {second}"


def foreign_machines_live(contracts: Sequence[Contract], foreign: Collection[int | str]) -> None:
    """I4: what is not ours was never touched. ``contracts``: the whole ledger."""
    dead = [contract for contract in contracts if contract["id"] in foreign and not contract["alive"]]
    assert dead == [], "machines of others were destroyed"


def destroy_is_owed(instance_id: str, grace: timedelta, noted: Mapping[str, datetime]) -> None:
    """I4, asked at the moment when a destroy leaves: the machine is ours, and owed. ``noted``: orphans by id, and
    when each came into the world."""
    known = Rental.objects.select_related("session").filter(instance_id=instance_id)
    rental = known.order_by("-created_at").first()
    assert rental is not None, f"a destroy leaves for {instance_id}, which is in no book"
    # Closed: another worker was quicker, and this destroy does no harm.
    owed = rental.state in (Debt.DESTROYING, Debt.CLOSED)
    assert owed, f"a destroy leaves for {rental.label}, which is {rental.state}"
    assert is_ours(rental.label, deployment_id()), f"a destroy leaves for {rental.label}, which is not ours"
    if rental.session is None:
        since = noted.get(instance_id)
        # Any other orphan is a machine of a session that the books had closed.
        assert since is None or clock.now() - since >= grace, f"{rental.label} is not past its grace"
    elif not rental.failure:
        assert rental.session.status not in ENDABLE, f"{rental.label} is wanted: {rental.session.status}"


def closed_means_gone(contracts: Sequence[Contract]) -> None:
    """I5, I6: a rental is closed with a proof, and its machine, if it ever had one, is dead in the ledger."""
    alive = {str(contract["id"]) for contract in contracts if contract["alive"]}
    labels = {contract["label"] for contract in contracts if contract["alive"]}
    for rental in Rental.objects.filter(state=Debt.CLOSED):
        assert rental.proof is not None, rental.label
        assert {"call", "answer", "at"} <= rental.proof.keys(), rental.proof
        assert rental.closed_at is not None, rental.label
        assert rental.instance_id not in alive, f"{rental.label} was closed and lives: {rental.proof}"
        known = rental.instance_id or rental.label not in labels
        assert known, f"{rental.label} was closed as never made, and lives: {rental.proof}"


def every_live_machine_is_owed_or_wanted(contracts: Sequence[Contract]) -> None:
    """I6: each of our machines that lives is known to an open rental; no debt is lost."""
    alive = {contract["label"] for contract in contracts if contract["alive"]}
    open_labels = set(Rental.objects.filter(state__in=OPEN).values_list("label", flat=True))
    lost = {label for label in alive if is_ours(label, deployment_id())} - open_labels
    assert lost == set(), "machines that no open rental knows"


def nobody_outlives_its_end(contracts: Sequence[Contract], lateness: timedelta) -> None:
    """I8, asked after the driver had ``lateness`` without faults: who lives still has time, or a kept disk that has."""
    now = clock.now()
    alive = {contract["label"] for contract in contracts if contract["alive"]}
    for rental in Rental.objects.filter(label__in=alive, origin="session").select_related("session"):
        assert rental.session is not None
        session = rental.session
        end = min(session.expires_at, session.hard_max_at)
        if rental.state == Debt.PRESERVED:
            assert rental.preserve_until is not None, rental.label
            end = rental.preserve_until
        late = now - end
        assert late <= lateness, f"{rental.label} ({rental.state}, {session.status}) lives {late} beyond its end"


def books_are_consistent() -> None:
    """I9: every state has what belongs to it, and whatever is open has a time at which it is looked at."""
    for session in Session.objects.prefetch_related("rentals"):
        _session_is_consistent(session, [rental for rental in session.rentals.all() if rental.state in OPEN])
    rentals = list(Rental.objects.all())
    for rental in rentals:
        _rental_is_consistent(rental)
    billed = set(MeterSegment.objects.filter(ended_at__isnull=True).values_list("rental_id", flat=True))
    closed = [rental.label for rental in rentals if rental.state == Debt.CLOSED and rental.id in billed]
    assert closed == [], "closed, and still billed"


def _session_is_consistent(session: Session, open_rentals: list[Rental]) -> None:
    states = {rental.state for rental in open_rentals}
    what = f"{session.id} {session.status} {session.end_reason} with {sorted(states)}"
    assert len(open_rentals) <= 1, what
    ending = session.status in (*FINAL, Status.STOPPING)
    assert bool(session.end_reason) is ending, what
    assert (session.ended_at is not None) is (session.status in FINAL), what
    if session.status in ENDABLE:
        assert session.next_check_at is not None, f"{what}: stuck"
    if session.status in (Status.PROVISIONING, Status.RUNNING):
        assert states == {Debt.LIVE}, what
    if session.status == Status.RUNNING:
        assert session.running_at is not None, what
        watched = session.launch_mode == "ssh" and session.paused_at is None
        assert watched is (session.next_probe_at is not None), f"{what}: looked at? {session.next_probe_at}"
    if session.paused_at is not None:
        assert session.pricing == Pricing.INTERRUPTIBLE, f"{what}: paused"
    if session.status == Status.PENDING:
        assert not states & {Debt.LIVE, Debt.PARKING, Debt.PRESERVED}, what
        assert session.auto_retry or states, f"{what}: nothing would ever happen"
    if session.status == Status.STOPPING:
        assert states & UNSETTLED, f"{what}: stuck"
    if session.status in FINAL:
        assert not states & UNSETTLED, what
        assert session.agent_token_hash == session.agent_token_sealed == "", what
        assert session.next_check_at is None, what


def _rental_is_consistent(rental: Rental) -> None:
    what = f"{rental.label} {rental.state}"
    if rental.state in HAS_MACHINE:
        assert rental.instance_id, what
    if rental.state == Debt.CLOSED:
        assert rental.next_check_at is None, what
        assert rental.broker_key_sealed == "", what
    elif rental.state != Debt.LIVE:
        assert rental.next_check_at is not None, f"{what}: stuck"


def timelines_are_paths() -> None:
    """I9: each change of a session's state has its event, each begins where the last one ended, by the table."""
    paths: dict[str, list[tuple[str, str]]] = defaultdict(list)
    moves = Event.objects.filter(kind="session").order_by("id").values_list("session_id", "from_state", "to_state")
    for session_id, before, after in moves:
        paths[str(session_id)].append((before, after))
    for session_id, status in Session.objects.values_list("id", "status"):
        path = paths[session_id]
        assert path[0] == ("", Status.PENDING), (session_id, path)
        for (_, reached), (before, after) in itertools.pairwise(path):
            assert before == reached, f"{session_id}: the timeline breaks: {path}"
            assert Status(after) in SESSION_MOVES[Status(before)], f"{session_id}: no such move: {path}"
        assert path[-1][1] == status, f"{session_id} is {status}: {path}"
    debts = Event.objects.filter(kind="rental").values_list("rental_id", "from_state", "to_state")
    assert [move for move in debts if Debt(move[2]) not in RENTAL_MOVES[Debt(move[1])]] == []
    ends = Counter(move[0] for move in debts if move[2] == Debt.CLOSED)
    assert [rental for rental, count in ends.items() if count > 1] == [], "rentals closed twice"


def no_false_end(broken: Collection[str]) -> None:
    """I5, I9: nobody's running session is ended for a machine that was well. ``broken``: ids that truly died."""
    for rental in Rental.objects.filter(failure=EndReason.PROVIDER_LOST):
        assert rental.instance_id in broken, f"{rental.label} was ended although its machine was well"


def no_secret_shows(secrets: Iterable[str], texts: Iterable[str]) -> None:
    """I10: in no log, no event and no other column in clear."""
    models = (Session, Rental, Event, ActivitySample, IdempotencyRecord, SeenOrphan)
    rows = [str(row) for model in models for row in model._default_manager.values_list()]
    everything = "\n".join([*texts, *rows])
    assert [secret[:6] + "..." for secret in secrets if secret in everything] == [], "secrets in clear"


def costs_agree(
    session: Session, contracts: Sequence[Contract], *, slack: timedelta, at_least_only: bool = False
) -> None:
    """I11: GPU and disk, each within 1 % of the ledger's bill, or a cent. ``slack``: by how much our clock was wrong;
    ``at_least_only``: when the machine stopped to cost is known to nobody but the marketplace."""
    ours = billing.of_session(session.id, clock.now()).by_kind
    mine = [contract for contract in contracts if _session_of(contract) == session.id]
    for kind in ("gpu", "disk"):
        theirs = sum((Decimal(str(contract[f"{kind}_dollars"])) for contract in mine), Decimal(0))
        rate = max((Decimal(str(contract[f"{kind}_rate"])) for contract in mine), default=Decimal(0))
        wrong_clock = rate * Decimal(str(slack / timedelta(hours=1)))
        allowed = max(theirs * CENT, CENT) + wrong_clock
        told = f"{session.id}: {kind} {ours[kind]:.4f} in our books, {theirs:.4f} in theirs"
        assert ours[kind] >= theirs - allowed, told
        assert at_least_only or ours[kind] <= theirs + allowed, told


def _session_of(contract: Contract) -> str:
    label = parse_label(contract["label"])
    return label.session_id if label is not None else ""


def digest() -> list[list[tuple[Any, ...]]]:
    """I12: everything that a refused request must leave as it was; equal before and after."""
    models = (Session, Rental, Event, MeterSegment, ActivitySample, IdempotencyRecord)
    return [list(model._default_manager.order_by("pk").values_list()) for model in models]


def nothing_is_left(contracts: Sequence[Contract]) -> None:
    """Everything is over: no machine of ours lives, nothing is open, nothing is due."""
    alive = [contract["label"] for contract in contracts if contract["alive"]]
    assert alive == [], f"machines are left: {alive}"
    assert list(Rental.objects.filter(state__in=OPEN).values_list("label", "state", "last_error")) == []
    assert list(Session.objects.exclude(status__in=FINAL).values_list("id", "status")) == []
    due = Session.objects.filter(next_check_at__isnull=False).values_list("id", "next_check_at")
    assert list(due) == [], "over, and still due"
    assert not MeterSegment.objects.filter(ended_at__isnull=True).exists()
