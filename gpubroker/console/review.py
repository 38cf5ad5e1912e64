"""The review queue: everything that waits for a person, with what it means and what may be decided, one click each."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from gpubroker.common import audit, clock, confirm, roles
from gpubroker.console import review_choices as choices
from gpubroker.console import review_items as items
from gpubroker.metrics import review as numbers

#: Whoever may see what the sweep sees may see what it asks.
SEE = "sessions_app.view_providerwatch"
NOTHING = "There was nothing left to decide; nothing has changed."


def open_count() -> int:
    """How many things wait for a person."""
    return sum(numbers.counts().values())


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    if request.method == "POST":
        return _decide(request)
    waiting = items.waiting()
    context = {
        **admin.site.each_context(request),
        "title": "Review queue",
        "now": clock.now(),
        "waiting": [_with_buttons(request, section) for section in waiting],
        "decided": [_with_buttons(request, section) for section in items.decided()],
        "count": sum(len(section.items) for section in waiting),
        "more": any(section.more for section in waiting),
    }
    return TemplateResponse(request, "console/review.html", context)


def _with_buttons(request: HttpRequest, section: items.Section) -> dict[str, Any]:
    """The section, and beside each item the choices that this person may make."""
    rows = [
        {"item": item, "choices": [each for each in item.choices if roles.may(request, each.power)]}
        for item in section.items
    ]
    return {"section": section, "rows": rows}


def _decide(request: HttpRequest) -> HttpResponse:
    """Ask, and do it when that was answered. The button says what (``action``) to what (``item``)."""
    choice = choices.ALL.get(request.POST.get("action", ""))
    back = HttpResponseRedirect(reverse("admin:review"))
    row = choice.row(request.POST.get("item", "")) if choice is not None else None
    if choice is not None:
        roles.require(request, choice.power)
    if choice is None or row is None:
        messages.warning(request, NOTHING)
        return back
    form = confirm.bound(request, choice.form, row=row) if choice.form is not None else None
    question = confirm.asked(
        request, title=f"{choice.button}: {_name(row)}", lines=[choice.says], button=choice.button,
        typed=choice.typed.format(_name(row)), form=form, danger=choice.danger,
    )  # fmt: skip
    if question is not None:
        return question
    if choice.act(row, roles.actor(request), form.cleaned_data if form is not None else {}):
        audit.note(request, row, f"{choice.button}: {choice.done}", name=_name(row))
        messages.success(request, f"{_name(row)}: {choice.done}.")
    else:
        messages.warning(request, NOTHING)
    return back


def _name(row: Any) -> str:
    return str(row)
