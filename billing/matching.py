"""The provider's charges against our meter: rental by rental, over the same time, GPU and disk. Dollars.

Whatever does not agree is a :class:`BillFinding`: another amount, a charge without a rental, a rental without a charge.
Traffic is left out: the meter has it from the same charges (:mod:`billing.traffic`).
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from billing.models import BillFinding, ChargeFetch, MeterSegment, ProviderCharge
from gpubroker.common import clock
from gpubroker.common.deployment import deployment_id
from gpubroker.common.money import as_number, exact_cost, quantize
from providers.labels import parse_label

log = logging.getLogger(__name__)

Key = TypeVar("Key", uuid.UUID, str)
Kind, State = BillFinding.Kind, BillFinding.State
#: Nothing is to be done about these, unless the books say otherwise once more.
DONE_WITH = (State.SETTLED, State.IGNORED)
ZERO = Decimal(0)
#: Differences beyond this share of the larger amount are told.
TOLERANCE = Decimal("0.01")
#: Vendors print charges with three decimals, GPU and disk apart: so much may be lost in each charge.
ROUNDING = Decimal("0.001")
#: A rental that cost less is not missed in the vendor's account.
CENT = Decimal("0.01")
#: Charges come late: before that, an end is not final and a rental without a charge is not missed.
SETTLES = timedelta(hours=24)
#: Rows that one query takes.
BATCH = 500


@dataclass(slots=True)
class Billed:
    """What the provider has charged for one rental, or for one machine that no rental knows."""

    amount: Decimal = ZERO
    rows: int = 0
    ends_at: datetime | None = None
    sample: ProviderCharge | None = None

    def add(self, row: ProviderCharge) -> None:
        self.amount += row.amount - row.traffic
        self.rows += 1
        self.sample = row
        end = row.ends_at or row.fetched_at
        self.ends_at = end if self.ends_at is None else max(end, self.ends_at)


@dataclass(slots=True)
class Metered:
    """One rental by our own meter."""

    segments: list[MeterSegment] = field(default_factory=list)

    @property
    def began(self) -> datetime:
        return min(segment.started_at for segment in self.segments)

    @property
    def ended(self) -> datetime | None:
        """``None``: something of it still costs."""
        ends = [segment.ended_at for segment in self.segments]
        return None if None in ends else max(filter(None, ends))

    def between(self, start: datetime, until: datetime) -> Decimal:
        """What it cost within a stretch of time."""
        return sum(
            (exact_cost(part.rate_per_hour, min(part.ended_at or until, until) - max(part.started_at, start))
             for part in self.segments), ZERO,
        )  # fmt: skip


def _nobodys(provider: str) -> QuerySet[ProviderCharge]:
    """Charges of machines that no rental is known for, so far: those of strangers stay that for ever."""
    return ProviderCharge.objects.filter(provider=provider, rental_id__isnull=True)


def unassigned(provider: str, since: datetime) -> list[ProviderCharge]:
    """Charges of machines that no rental is known for, as far as they were told since then."""
    return list(_nobodys(provider).filter(fetched_at__gte=since).exclude(instance_id=""))


def unassigned_of(provider: str, machines: Collection[str]) -> list[ProviderCharge]:
    """All such charges of these machines, by their ids, however old."""
    return list(_nobodys(provider).filter(instance_id__in=machines).exclude(instance_id=""))


def assign(rentals: dict[int, uuid.UUID]) -> None:
    """By a charge's id: the rental that it is for."""
    rows = [ProviderCharge(id=charge, rental_id=rental) for charge, rental in rentals.items()]
    ProviderCharge.objects.bulk_update(rows, ["rental_id"], batch_size=BATCH)


def compare(provider: str, since: datetime) -> int:
    """Compare whatever was charged or metered at a provider since then; how many findings are open afterwards.

    A rental is compared as a whole, with all its charges, as far as charges have been fetched.
    """
    fetch = ChargeFetch.objects.get(provider=provider)
    if fetch.covered_from is None or fetch.covered_until is None:
        return 0
    known = datetime.combine(fetch.covered_from, time.min, UTC), fetch.covered_until
    found: dict[tuple[str, str], dict[str, Any]] = {}
    looked_at: set[str] = set()
    for ids in _batches(_in_play(provider, since)):
        looked_at.update(map(str, ids))
        for finding in _differences(ids, *known):
            found[finding["kind"], finding["subject"]] = finding
    for finding in _unowned(provider, since):
        found[finding["kind"], finding["subject"]] = finding
    _write_down(provider, found, looked_at)
    return BillFinding.objects.filter(provider=provider, state=State.OPEN).count()


def _in_play(provider: str, since: datetime) -> set[uuid.UUID]:
    charged = ProviderCharge.objects.filter(provider=provider, rental_id__isnull=False, fetched_at__gte=since)
    lately = Q(ended_at__isnull=True) | Q(ended_at__gt=since - 2 * SETTLES)
    metered = MeterSegment.objects.filter(lately, provider=provider)
    told = BillFinding.objects.filter(provider=provider, rental_id__isnull=False).exclude(state__in=DONE_WITH)
    return {
        found for rows in (charged, metered, told)
        for found in rows.values_list("rental_id", flat=True) if found is not None
    }  # fmt: skip


def _batches(ids: Collection[Key]) -> Iterator[list[Key]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def _differences(ids: list[uuid.UUID], known_from: datetime, known_until: datetime) -> Iterator[dict[str, Any]]:
    billed: dict[uuid.UUID, Billed] = defaultdict(Billed)
    # What begins before the first day that is known is left out on both sides.
    for row in ProviderCharge.objects.filter(rental_id__in=ids).exclude(starts_at__lt=known_from):
        if row.rental_id is not None:
            billed[row.rental_id].add(row)
    metered: dict[uuid.UUID, Metered] = defaultdict(Metered)
    kinds = (MeterSegment.Kind.GPU, MeterSegment.Kind.DISK)
    for segment in MeterSegment.objects.filter(rental_id__in=ids, kind__in=kinds):
        metered[segment.rental_id].segments.append(segment)
    for rental_id in ids:
        ours, theirs = metered.get(rental_id), billed.get(rental_id)
        if theirs is not None:
            finding = _difference(ours, theirs, known_from, known_until)
        elif ours is not None:
            finding = _missing(ours, known_from, known_until)
        else:
            continue
        if finding is not None:
            yield {**finding, "subject": str(rental_id), "rental_id": rental_id}


def _difference(
    ours: Metered | None, theirs: Billed, known_from: datetime, known_until: datetime
) -> dict[str, Any] | None:
    """Compared up to the charge's end, unless so much time has passed since ours that no more can come."""
    assert theirs.ends_at is not None
    ended = ours.ended if ours is not None else None
    final = ended is not None and ended + SETTLES <= known_until
    until = max(ended, theirs.ends_at) if final and ended is not None else theirs.ends_at
    mine = ours.between(known_from, until) if ours is not None else ZERO
    gap, larger = abs(mine - theirs.amount), max(mine, abs(theirs.amount))  # a refund is below zero
    if gap <= max(TOLERANCE * larger, ROUNDING * theirs.rows):
        return None
    share = 100 * gap / larger
    more = "more" if theirs.amount > mine else "less"
    why = f"{share:.1f} % {more} than our books up to {clock.iso(until)}"
    return _finding(Kind.DIFFERENCE, mine, theirs, ours, why)


def _missing(ours: Metered, known_from: datetime, known_until: datetime) -> dict[str, Any] | None:
    if ours.began < known_from or ours.began + SETTLES > known_until:
        return None
    mine = ours.between(known_from, known_until - SETTLES)
    if mine < CENT:
        return None
    return _finding(Kind.MISSING, mine, Billed(), ours, f"no charge since {clock.iso(ours.began)}")


def _unowned(provider: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Of machines that were charged since then; what was told of the others before stays as it is."""
    lately = _nobodys(provider).filter(fetched_at__gte=since).order_by()
    for sources in _batches(set(lately.values_list("source", flat=True).distinct())):
        machines: dict[str, Billed] = defaultdict(Billed)
        for row in _nobodys(provider).filter(source__in=sources).order_by("id").iterator(chunk_size=2000):
            machines[row.source].add(row)
        yield from (_nobodys_machine(source, theirs) for source, theirs in machines.items())


def _nobodys_machine(source: str, theirs: Billed) -> dict[str, Any]:
    assert theirs.sample is not None
    read = parse_label(theirs.sample.label)
    others = read is not None and read.deployment != deployment_id()
    if read is None:
        why = "no label of ours: somebody else's machine on this account"
    elif others:
        why = f"the label of deployment {read.deployment}"
    else:
        why = "our label, and no rental in our books: a machine that leaked, or books that were lost"
    finding = _finding(Kind.UNOWNED, ZERO, theirs, None, why)
    return {**finding, "subject": source, "rental_id": None, "others": others}


def _finding(kind: str, mine: Decimal, theirs: Billed, ours: Metered | None, why: str) -> dict[str, Any]:
    charge, segment = theirs.sample, ours.segments[0] if ours is not None else None
    return {
        "kind": str(kind),
        "ours": quantize(mine),
        "theirs": quantize(theirs.amount),
        "why": why,
        "session_id": segment.session_id if segment is not None else "",
        "instance_id": charge.instance_id if charge is not None else "",
        "label": charge.label if charge is not None else "",
    }


def _write_down(provider: str, found: dict[tuple[str, str], dict[str, Any]], looked_at: set[str]) -> None:
    """New ones are open, known ones are brought up to date, and those that are none any more are settled."""
    now = clock.now()
    with transaction.atomic():
        rows = BillFinding.objects.select_for_update().filter(provider=provider)
        known: dict[tuple[str, str], BillFinding] = {}
        for subjects in _batches({subject for _, subject in found}):
            known |= {(row.kind, row.subject): row for row in rows.filter(subject__in=subjects)}
        for name, facts in found.items():
            others = facts.pop("others", False)
            row = known.get(name) or BillFinding(provider=provider, first_seen_at=now)
            _bring_up_to_date(row, facts, now, others=others)
        told = rows.exclude(state__in=DONE_WITH)
        over = [row for row in told.exclude(kind=Kind.UNOWNED) if row.subject in looked_at]
        # Somebody's by now: a rental was found for all its charges.
        over += told.filter(~Exists(_nobodys(provider).filter(source=OuterRef("subject"))), kind=Kind.UNOWNED)
        for row in over:
            if (row.kind, row.subject) not in found:
                row.state, row.decided_by, row.decided_at, row.decided_gap = State.SETTLED, "", None, None
                row.save()


def _bring_up_to_date(row: BillFinding, facts: dict[str, Any], now: datetime, *, others: bool) -> None:
    for name, value in facts.items():
        setattr(row, name, value)
    row.last_seen_at = now
    gap = abs(row.ours - row.theirs)
    if row._state.adding:
        log.warning(
            "bill of %s: %s %s: ours %s, theirs %s: %s",
            row.provider, row.kind, row.subject, row.ours, row.theirs, row.why,
        )  # fmt: skip
    drifted = row.decided_gap is not None and gap > row.decided_gap * (1 + TOLERANCE) + ROUNDING
    if others and row.state != State.IGNORED:
        _decide(row, State.EXPLAINED, "broker", now)
    elif row.state == State.SETTLED or (row.state == State.EXPLAINED and drifted):
        row.state, row.decided_by, row.decided_at, row.decided_gap = State.OPEN, "", None, None
    row.save()


def decide(finding: BillFinding, state: str, by: str) -> bool:
    """A person's word: ``explained``, ``ignored``, or ``open`` again. ``False``: it is settled, and stays so."""
    with transaction.atomic():
        row = BillFinding.objects.select_for_update().get(pk=finding.pk)
        if row.state == State.SETTLED:
            return False
        _decide(row, state, by, clock.now())
        row.save()
    log.info("bill finding %s is %s, says %s", row, state, by)
    return True


def _decide(row: BillFinding, state: str, by: str, now: datetime) -> None:
    row.state = state
    if state == State.OPEN:
        row.decided_by, row.decided_at, row.decided_gap = "", None, None
    else:
        row.decided_by, row.decided_at, row.decided_gap = by[:160], now, abs(row.ours - row.theirs)


def findings(provider: str, state: str | None = None, kind: str | None = None) -> list[BillFinding]:
    """Largest difference first."""
    rows = BillFinding.objects.filter(provider=provider)
    rows = rows.filter(state=state) if state is not None else rows
    rows = rows.filter(kind=kind) if kind is not None else rows
    return sorted(rows, key=lambda row: (-abs(row.ours - row.theirs), row.pk))


def shown(row: BillFinding) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "state": row.state,
        "session_id": row.session_id or None,
        "instance_id": row.instance_id,
        "label": row.label,
        "ours": as_number(row.ours),
        "theirs": as_number(row.theirs),
        "why": row.why,
        "first_seen_at": clock.iso(row.first_seen_at),
        "last_seen_at": clock.iso(row.last_seen_at),
        "decided_by": row.decided_by,
        "decided_at": clock.iso(row.decided_at),
    }
