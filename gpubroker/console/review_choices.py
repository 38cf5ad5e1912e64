"""What may be decided in the review queue: each choice with its button, its power, its question and the service that
does it. The row is looked up anew when it is decided: what is over by then changes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from unfold.widgets import UnfoldAdminTextInputWidget

from billing import charge_review
from billing.models import BillFinding
from gpubroker.common import roles
from sessions_app import decisions, nudge, sweep, trust
from sessions_app.ending import end_session
from sessions_app.models import ProviderWatch, Rental, SeenOrphan, UnknownMachine
from sessions_app.states import EndReason

#: The row, who decides, and what was filled in; ``False``: there was nothing left to decide.
Act = Callable[[Any, str, Mapping[str, Any]], bool]


class RentalForm(forms.Form):
    """Which rental a charge is for."""

    rental = forms.CharField(
        max_length=64, label="Session id, or label of the machine", widget=UnfoldAdminTextInputWidget(),
        help_text="As they stand in Rentals. A session with several attempts: the label of one.",
    )  # fmt: skip

    def __init__(self, *args: Any, row: BillFinding, **more: Any) -> None:
        super().__init__(*args, **more)
        self.row = row

    def clean_rental(self) -> uuid.UUID:
        named = self.cleaned_data["rental"].strip()
        rows = Rental.objects.filter(Q(label=named) | Q(session_id=named), provider=self.row.provider)
        found = list(rows.values_list("id", flat=True)[:2])
        if len(found) != 1:
            many = "several machines: name one by its label" if found else "no machine"
            raise ValidationError(f"{self.row.provider} rented us {many} of that name.")
        return found[0]


@dataclass(frozen=True, slots=True)
class Choice:
    name: str
    model: type[models.Model]
    power: str
    button: str
    #: What will happen, in one sentence.
    says: str
    #: What the audit log and the page say afterwards.
    done: str
    act: Act
    danger: bool = False
    #: What has to be typed, with the row's name for ``{}``.
    typed: str = ""
    form: type[RentalForm] | None = None

    def row(self, pk: str) -> models.Model | None:
        try:
            return self.model._default_manager.filter(pk=pk).first()
        except (ValueError, ValidationError, OverflowError):
            return None


def _release(row: ProviderWatch, actor: str, _: Mapping[str, Any]) -> bool:
    return trust.release(row.provider, actor)


def _keep(row: ProviderWatch, actor: str, _: Mapping[str, Any]) -> bool:
    return decisions.keep_holding(row.provider, actor)


def _sweep(row: ProviderWatch | Rental, actor: str, _: Mapping[str, Any]) -> bool:
    nudge.tick()
    return sweep.ask(row.provider)


def _orphan(choice: SeenOrphan.Decision) -> Act:
    return lambda row, actor, _: decisions.about_orphan(row.pk, choice, actor)


def _unknown(*, known: bool) -> Act:
    return lambda row, actor, _: decisions.about_unknown(row.pk, actor, known=known)


def _end(row: Rental, actor: str, _: Mapping[str, Any]) -> bool:
    return bool(row.session_id) and end_session(
        str(row.session_id), EndReason.STAFF, actor=actor, message="billed above its offer"
    )


_RELEASE: Final = (
    "What the listing shows is true: for an hour the sweep ends the sessions and destroys the orphans that it finds. "
    "What has ended does not come back."
)
HELD = (
    Choice("release", ProviderWatch, roles.OPERATE, "Let it end what it found", _RELEASE, "released",
           _release, typed="release {}"),
    Choice("keep-holding", ProviderWatch, roles.OPERATE, "Keep holding",
           "The listing is wrong: nothing is ended, and nobody is asked again until the hold is over.",
           "kept held", _keep),
    Choice("sweep", ProviderWatch, roles.OPERATE, "List again now",
           "Its machines are listed at once. A listing that makes sense again ends the hold by itself.",
           "listed again", _sweep),
)  # fmt: skip
ORPHAN = (
    Choice("destroy-orphan", SeenOrphan, roles.OPERATE, "Destroy it now",
           "The machine is destroyed with the next sweep, which begins at once; what is on its disk is gone.",
           "to be destroyed", _orphan(SeenOrphan.Decision.DESTROY), danger=True),
    Choice("leave-orphan", SeenOrphan, roles.OPERATE, "Leave it alone",
           "The broker does not destroy it, for as long as it is there. The provider bills it on.",
           "left alone", _orphan(SeenOrphan.Decision.LEAVE)),
)  # fmt: skip
DECIDED_ORPHAN = (
    Choice("let-grace-count", SeenOrphan, roles.OPERATE, "Take that back",
           "Its grace counts again, and it is destroyed when that is over, which may be at once.",
           "up to its grace again", _orphan(SeenOrphan.Decision.NONE), danger=True),
)  # fmt: skip
UNKNOWN = (
    Choice("known-machine", UnknownMachine, roles.OPERATE, "It is known",
           "Somebody knows whose it is, and nobody is asked again. The broker does not touch it.",
           "marked as known", _unknown(known=True)),
)  # fmt: skip
KNOWN = (
    Choice("unknown-machine", UnknownMachine, roles.OPERATE, "Take that back",
           "It waits for somebody who knows it again.", "unknown again", _unknown(known=False)),
)  # fmt: skip
GHOST = (
    Choice("look-again", Rental, roles.OPERATE, "Look again now",
           "The provider's machines are listed at once, and this one is asked for by itself.", "looked for again",
           _sweep),
)  # fmt: skip
DRIFT = (
    Choice("accept-price", Rental, roles.OPERATE, "Accept the price",
           "Nobody is asked again unless it rises further. The costs are what is billed.", "price accepted",
           lambda row, actor, _: decisions.accept_price(row.pk, actor)),
    Choice("end-dear", Rental, roles.OPERATE, "End the session",
           "The session ends now and its machine is destroyed.", "session ended", _end, danger=True),
)  # fmt: skip
UNPROVED = (
    Choice("try-destroy", Rental, roles.OPERATE, "Try again now",
           "The destroy goes out again at once, and not when its pause is over.", "tried again",
           lambda row, actor, _: decisions.try_destroy(row.pk, actor)),
    Choice("know-unproved", Rental, roles.OPERATE, "I know of it",
           "Nobody is asked again for a day. The destroy is tried on, for ever.", "known",
           lambda row, actor, _: decisions.know_unproved(row.pk, actor)),
)  # fmt: skip
_EXPLAINED = Choice(
    "explained", BillFinding, roles.MONEY, "Explained",
    "Somebody knows why. It opens again only when the amounts drift further apart.", "explained",
    lambda row, actor, _: charge_review.explained(row, actor),
)  # fmt: skip
CHARGE = (_EXPLAINED,)
UNOWNED = (
    Choice("assign-charge", BillFinding, roles.MONEY, "Assign to a rental",
           "The charge counts as that rental's from the next comparison on.", "assigned",
           lambda row, actor, said: charge_review.assign(row, said["rental"], actor), form=RentalForm),
    Choice("somebody-elses", BillFinding, roles.MONEY, "Somebody else's",
           "It is no machine of ours, and never told again.", "somebody else's",
           lambda row, actor, _: charge_review.somebody_elses(row, actor)),
    _EXPLAINED,
)  # fmt: skip

ALL: dict[str, Choice] = {
    choice.name: choice
    for choices in (HELD, ORPHAN, DECIDED_ORPHAN, UNKNOWN, KNOWN, GHOST, DRIFT, UNPROVED, UNOWNED)
    for choice in choices
}
