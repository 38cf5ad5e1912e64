"""What staff does to sessions from the console: each action asks first, calls the service that the API calls, and is
noted in the audit log. A service that refuses says why, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from gpubroker.common import audit, clock, confirm, logs, roles, sshkeys, wording
from gpubroker.common.admin import ReadOnlyAdmin
from gpubroker.common.errors import ApiError
from gpubroker.common.principal import Principal
from sessions_app import services
from sessions_app.extend import extend
from sessions_app.hard_maximum import override
from sessions_app.hurry import hurry
from sessions_app.models import Session
from sessions_app.rekey import rekey
from sessions_app.session_columns import time_left
from sessions_app.states import ENDABLE, Debt, Status

if TYPE_CHECKING:
    Base = ReadOnlyAdmin
else:
    Base = object

#: Of sessions in one action: each is a transaction of its own, in the request.
MOST = 200
#: Seconds that a rekey may take in all (it asks provider and machine).
REKEY_SECONDS = 20.0
URL_NAME = "sessions_app_session_{}"
#: What one action does to one session; what it says is a sentence for the log.
Deed = Callable[[Session, Principal, dict[str, Any]], str]


class ExtendForm(forms.Form):
    hours = forms.IntegerField(
        min_value=1, max_value=720, initial=1, help_text="Added to the end, up to the hard maximum."
    )


class HardMaximumForm(forms.Form):
    until = forms.DateTimeField(
        label="Hard maximum (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="At most 30 days after the session began. An earlier end is cut to it.",
    )
    reason = forms.CharField(max_length=300, help_text="Kept with the session and in its events.")

    def clean_until(self) -> datetime:
        until: datetime = self.cleaned_data["until"]
        return until.astimezone(UTC)


class RekeyForm(forms.Form):
    public_key = forms.CharField(
        label="New public key",
        max_length=sshkeys.MAX_PUBLIC_KEY_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="One OpenSSH line. The present key stops working. A private key is never made or shown here.",
    )

    def clean_public_key(self) -> str:
        try:
            return sshkeys.checked_public_key(self.cleaned_data["public_key"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None


def _destroy(session: Session, who: Principal, said: dict[str, Any]) -> str:
    # A second click would find it ending or over, and change nothing: say so.
    if session.status not in ENDABLE and not _keeps_disk(session):
        raise ApiError(409, f"session {session.id} is already {session.status}")
    services.destroy(session.id, who)
    return "destroy asked for"


def _keeps_disk(session: Session) -> bool:
    """Stopped or being stopped, not destroyed: its disk is billed."""
    return session.rentals.filter(state__in=(Debt.PARKING, Debt.PRESERVED)).exists()


def _done(session: Session, who: Principal, said: dict[str, Any]) -> str:
    services.done(session.id, who)
    return "said to be done"


def _extend(session: Session, who: Principal, said: dict[str, Any]) -> str:
    until = extend(session.id, said["hours"], who)
    return f"extended by {said['hours']} h, to {clock.iso(until)}"


def _override(session: Session, who: Principal, said: dict[str, Any]) -> str:
    after = override(session.id, said["until"], said["reason"], who)
    return f"hard maximum set to {clock.iso(after.hard_max_at)}: {said['reason']}"


def _hurry(session: Session, who: Principal, said: dict[str, Any]) -> str:
    return f"tried again now: {', '.join(hurry(session.id, who))}"


def _rekey(session: Session, who: Principal, said: dict[str, Any]) -> str:
    done = rekey(session.id, said["public_key"], "ed25519", REKEY_SECONDS, who)
    old = "the old key was taken off" if done.old_key_removed else "the old key is still on the machine"
    return f"key replaced by {done.fingerprint}; {old}"


@dataclass(frozen=True, slots=True)
class Act:
    """One action: on the page of a session it has an address of its own, ``<session>/<name>/``."""

    name: str
    button: str
    icon: str
    #: Of the question, before what it is about.
    title: str
    deed: Deed
    #: Where it is offered on a session's page; the service decides, whatever was offered.
    statuses: frozenset[Status]
    form: type[forms.Form] | None = None
    danger: bool = False


ACTS = {
    act.name: act
    for act in (
        Act("extend", "Extend", "more_time", "Extend", _extend, ENDABLE, ExtendForm),
        Act("done", "Done", "task_alt", "End as done:", _done, ENDABLE),
        Act("hard-maximum", "Hard maximum", "event_busy", "Override the hard maximum of", _override, ENDABLE,
            HardMaximumForm),
        Act("rekey", "Rekey", "key", "Replace the key of", _rekey, frozenset({Status.RUNNING}), RekeyForm),
        Act("retry", "Retry now", "refresh", "Retry now:", _hurry, frozenset({Status.PENDING, Status.STOPPING})),
        Act("destroy", "Destroy", "delete_forever", "Destroy", _destroy, ENDABLE, danger=True),
    )
}  # fmt: skip


class SessionActions(Base):
    """For those that are chosen in the list, and for the page of one session."""

    actions = ("destroy", "done", "extend", "hard_maximum", "retry")

    @admin.action(description="Destroy: end now, and drop a kept disk", permissions=["operate"])
    def destroy(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        return self._chosen(request, queryset, ACTS["destroy"], typed="destroy")

    @admin.action(description="Done: end as its storage policy says", permissions=["operate"])
    def done(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        return self._chosen(request, queryset, ACTS["done"], typed="done")

    @admin.action(description="Extend by some hours", permissions=["operate"])
    def extend(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        return self._chosen(request, queryset, ACTS["extend"])

    @admin.action(description="Override the hard maximum", permissions=["operate"])
    def hard_maximum(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        return self._chosen(request, queryset, ACTS["hard-maximum"])

    @admin.action(description="Retry now what waits for its next try", permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Session]) -> HttpResponse | None:
        return self._chosen(request, queryset, ACTS["retry"])

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act_view)
        own = [path(f"<path:object_id>/{name}/", view, {"name": name}, name=URL_NAME.format(name)) for name in ACTS]
        return [*own, *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """The question of one action on one session, and the deed when it was answered."""
        roles.require(request, roles.OPERATE)
        act = ACTS[name]
        session = Session.objects.select_related("consumer").filter(pk=object_id).first()
        if session is None:
            self.message_user(request, f"There is no session {object_id[:40]}.", messages.ERROR)
            return HttpResponseRedirect(reverse("admin:sessions_app_session_changelist"))
        page = self._ask(request, [session], act, typed="destroy" if act.danger else "")
        return page or HttpResponseRedirect(reverse("admin:sessions_app_session_change", args=[session.pk]))

    def _chosen(
        self, request: HttpRequest, queryset: QuerySet[Session], act: Act, typed: str = ""
    ) -> HttpResponse | None:
        sessions = list(queryset.select_related("consumer").order_by("created_at", "id")[: MOST + 1])
        if len(sessions) > MOST:
            self.message_user(request, f"At most {MOST} sessions at once; nothing was changed.", messages.ERROR)
            return None
        return self._ask(request, sessions, act, typed and f"{typed} {len(sessions)}")

    def _ask(self, request: HttpRequest, sessions: Sequence[Session], act: Act, typed: str) -> HttpResponse | None:
        filled = confirm.bound(request, act.form, initial=_begins_with(sessions)) if act.form is not None else None
        now = clock.now()
        about = sessions[0].pk if len(sessions) == 1 else wording.count(len(sessions), "session")
        page = confirm.asked(
            request, title=f"{act.title} {about}", lines=[_line(session, now) for session in sessions],
            button=act.button, typed=typed, form=filled, danger=act.danger,
        )  # fmt: skip
        if page is None:
            self._do(request, sessions, act, filled.cleaned_data if filled is not None else {})
        return page

    def _do(self, request: HttpRequest, sessions: Sequence[Session], act: Act, said: dict[str, Any]) -> None:
        """One by one, each in a transaction of its own; who is refused keeps nobody else from it."""
        told, refused = [], []
        for session in sessions:
            try:
                with logs.context(session_id=session.pk):
                    what = act.deed(session, roles.principal(request), said)
            except ApiError as refusal:
                refused.append(refusal.message)
            else:
                audit.note(request, session, what)
                told.append(f"{session.pk}: {what}.")
        if len(told) > 1:
            self.message_user(request, f"{act.button}: {wording.count(len(told), 'session')}.", messages.SUCCESS)
        elif told:
            self.message_user(request, told[0], messages.SUCCESS)
        for message in refused:
            self.message_user(request, message, messages.ERROR)


def offered(request: HttpRequest, session: Session) -> list[tuple[Act, str]]:
    """What this person may press on a session's page now, and where it leads."""
    if not roles.may(request, roles.OPERATE):
        return []
    # One that is over, or will be, may still have its disk.
    kept = session.status not in ENDABLE and _keeps_disk(session)
    fitting = [act for act in ACTS.values() if session.status in act.statuses or (kept and act.danger)]
    return [(act, reverse(f"admin:{URL_NAME.format(act.name)}", args=[session.pk])) for act in fitting]


def _begins_with(sessions: Sequence[Session]) -> dict[str, Any]:
    return {"until": max(session.hard_max_at for session in sessions)}


def _line(session: Session, now: datetime) -> str:
    left = time_left(session, now)
    what = f"{session.gpu_count} x {session.gpu_type} at {session.provider} for {session.consumer.name}"
    return f"{session.id}: {session.status}, {what}{f', {left} left' if left else ''}"
