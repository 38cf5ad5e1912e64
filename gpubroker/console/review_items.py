"""The review queue's things as the page shows them: what it is, since when, what it means, and what may be decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from django.db.models import QuerySet
from django.urls import reverse

from billing import charge_review
from billing.models import BillFinding
from gpubroker.console import review_choices as choices
from gpubroker.console.review_choices import Choice
from providers.labels import parse_label
from sessions_app import undecided
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine

#: Of each kind; whoever decides on more at once works in the lists.
MOST_SHOWN = 50
_NOT_SHOWN = ("broker_key_sealed", "proof", "ports", "ssh_endpoints", "broker_public_key", "session__launch_options")


@dataclass(frozen=True, slots=True)
class Item:
    pk: str
    title: str
    since: datetime | None
    facts: list[str]
    #: Where all of it is told; empty: nowhere else.
    href: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Section:
    kind: str
    title: str
    #: What it means, in one sentence.
    means: str
    #: The alert whose section of the runbook tells more.
    runbook: str
    items: list[Item]
    #: More than are shown.
    more: bool = False


def waiting() -> list[Section]:
    """Whatever nobody has decided on, the most urgent kind first; a bounded number of rows and queries."""
    found = [
        _section("held", "Sweeps that are held",
                 "One listing would have ended more than the allowed share of the machines, so nothing of it was done.",
                 "SweepHeld", undecided.held(), held),
        _section("unproved", "Destroys without a proof",
                 "We asked for the end of these machines, and the provider has not shown them gone: they may cost.",
                 "DestroyUnproved", _with_session(undecided.unproved()), unproved),
        _section("orphan", "Orphans",
                 "A machine with this deployment's label is in no book of ours: it is paid for and used by nobody.",
                 "OrphanSeen", undecided.orphans(), orphan),
        _section("ghost", "Ghosts",
                 "Complete listings no longer have these machines of ours, and no direct look has shown them gone.",
                 "GhostFound", _with_session(undecided.ghosts()), ghost),
        _section("drift", "Price drift",
                 "These machines are billed above their offer by more than the tolerance.",
                 "PriceDrift", _with_session(undecided.dear()), drift),
        _section("charge", "Charges that do not match",
                 "The provider's charges and our books differ: one without a rental, a rental without one, or another "
                 "amount.", "BillDiffers", charge_review.undecided(), charge),
        _section("unknown", "Machines of unknown owners",
                 "Somebody uses this account beside the broker, or a machine has lost its label. It is never touched.",
                 "OrphanSeen", undecided.unknown(), unknown),
    ]  # fmt: skip
    return [section for section in found if section.items]


def decided() -> list[Section]:
    """Decisions that still hold, to be taken back."""
    found = [
        _section("kept", "Held, and that is right", "The sweep ends nothing until its listing makes sense again.",
                 "SweepHeld", undecided.kept(), kept),
        _section("decided-orphan", "Orphans that somebody has decided on", "As long as they are there.",
                 "OrphanSeen", undecided.decided_orphans(), decided_orphan),
        _section("known", "Known machines of others", "They are never touched.",
                 "OrphanSeen", undecided.known(), known),
    ]  # fmt: skip
    return [section for section in found if section.items]


def _with_session(rows: QuerySet[Rental]) -> QuerySet[Rental]:
    return rows.select_related("session__consumer").defer(*_NOT_SHOWN)


def _section(
    kind: str, title: str, means: str, runbook: str, rows: Iterable[Any], show: Callable[[Any], Item]
) -> Section:
    some = list(rows[: MOST_SHOWN + 1]) if isinstance(rows, QuerySet) else list(islice(rows, MOST_SHOWN + 1))
    return Section(kind, title, means, runbook, [show(row) for row in some[:MOST_SHOWN]], len(some) > MOST_SHOWN)


def change_page(row: Any) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def dollars(amount: Decimal | None) -> str:
    return "?" if amount is None else f"${amount:.4f}".rstrip("0").rstrip(".")


def held(row: ProviderWatch) -> Item:
    ends, orphans = row.held_details.get("ends", []), row.held_details.get("orphans", [])
    facts = [row.held_reason]
    facts += _some("Would end", ends) + _some("Would destroy the orphans", orphans)
    return Item(row.pk, row.provider, row.held_at, facts, provider_page(row.provider), choices.HELD)


def _some(what: str, names: Sequence[str]) -> list[str]:
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{what}: {shown}{more}"] if names else []


def kept(row: ProviderWatch) -> Item:
    facts = [row.held_reason, f"kept by {row.held_known_by}"]
    again = tuple(choice for choice in choices.HELD if choice.name != "keep-holding")
    return Item(row.pk, row.provider, row.held_known_at, facts, provider_page(row.provider), again)


def provider_page(provider: str) -> str:
    return reverse("admin:provider", args=[provider])


def orphan(row: SeenOrphan) -> Item:
    read = parse_label(row.label)
    facts = [f"label {row.label}"] + ([f"made for session {read.session_id}"] if read is not None else [])
    title = f"{row.provider} machine {row.instance_id}"
    return Item(str(row.pk), title, row.first_seen_at, facts, provider_page(row.provider), choices.ORPHAN)


def decided_orphan(row: SeenOrphan) -> Item:
    facts = [f"label {row.label}", f"{row.get_decision_display()}, says {row.decided_by}"]
    title = f"{row.provider} machine {row.instance_id}"
    return Item(str(row.pk), title, row.decided_at, facts, provider_page(row.provider), choices.DECIDED_ORPHAN)


def unknown(row: UnknownMachine) -> Item:
    facts = [f"label {row.label}" if row.label else "no label"]
    title = f"{row.provider} machine {row.instance_id}"
    return Item(str(row.pk), title, row.first_seen_at, facts, provider_page(row.provider), choices.UNKNOWN)


def known(row: UnknownMachine) -> Item:
    facts = [f"label {row.label}" if row.label else "no label", f"known, says {row.known_by}"]
    title = f"{row.provider} machine {row.instance_id}"
    return Item(str(row.pk), title, row.known_at, facts, provider_page(row.provider), choices.KNOWN)


def _whose(row: Rental) -> list[str]:
    if row.session is None:
        return ["an orphan of ours, of no session"]
    return [f"session {row.session_id} of {row.session.consumer.name}"]


def _machine(row: Rental) -> str:
    return f"{row.provider} machine {row.instance_id}"


def ghost(row: Rental) -> Item:
    facts = [*_whose(row), f"label {row.label}", f"missing in {row.missing_listings} complete listings"]
    return Item(str(row.pk), _machine(row), row.last_seen_at, facts, change_page(row), choices.GHOST)


def drift(row: Rental) -> Item:
    rates = f"the offer said {dollars(row.price_asked)} an hour, billed are {dollars(row.price_actual)}"
    return Item(str(row.pk), _machine(row), row.drifted_at, [*_whose(row), rates], change_page(row), choices.DRIFT)


def unproved(row: Rental) -> Item:
    said = "it said yes, and has not shown it gone" if row.destroy_answered_at else "it has not said yes"
    facts = [*_whose(row), said, f"destroys refused: {row.destroy_failures}, accepted: {row.destroy_attempts}"]
    facts += [f"last: {row.last_error}"] if row.last_error else []
    since = row.destroy_requested_at
    return Item(str(row.pk), _machine(row), since, facts, change_page(row), choices.UNPROVED)


def charge(row: BillFinding) -> Item:
    facts = [row.why, f"ours {dollars(row.ours)}, theirs {dollars(row.theirs)}"]
    facts += [f"session {row.session_id}"] if row.session_id else []
    facts += [f"label {row.label}"] if row.label else []
    what = BillFinding.Kind(row.kind).label
    title = f"{row.provider}: {what}{f', machine {row.instance_id}' if row.instance_id else ''}"
    mine = choices.UNOWNED if row.kind == BillFinding.Kind.UNOWNED else choices.CHARGE
    return Item(str(row.pk), title, row.first_seen_at, facts, change_page(row), mine)
