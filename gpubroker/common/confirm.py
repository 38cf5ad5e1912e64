"""The page between an action and its deed: what will happen, a button, and for the dangerous ones a word to type.

In an action of a list, of a page (``GET`` shows the question, ``POST`` answers it) or in a view of one's own::

    form = confirm.bound(request, HoursForm)
    page = confirm.asked(request, title="Extend 2 sessions", lines=[...], button="Extend", form=form)
    if page is not None:
        return page
    hours = form.cleaned_data["hours"]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import CHECKBOX_CLASSES, INPUT_CLASSES, SELECT_CLASSES, TEXTAREA_CLASSES

#: Names of ours in the form; everything else that came with the question is carried on.
ANSWER, TYPED = "confirmed", "confirm_typed"
_OURS = frozenset({ANSWER, TYPED, "csrfmiddlewaretoken"})
F = TypeVar("F", bound=forms.BaseForm)
#: The theme styles its own model forms; these are plain ones. The first that fits.
_LOOKS = (
    (forms.HiddenInput, ()),
    (forms.CheckboxInput, CHECKBOX_CLASSES),
    (forms.Textarea, TEXTAREA_CLASSES),
    (forms.Select, SELECT_CLASSES),
    (forms.Widget, INPUT_CLASSES),
)


def answered(request: HttpRequest) -> bool:
    """Whether this request comes from the page itself; what it says may still be wrong."""
    return request.method == "POST" and request.POST.get(ANSWER) == "yes"


def bound(request: HttpRequest, form: type[F], **more: object) -> F:
    """The form, with what was filled in once it was, in the theme's look."""
    made = form(request.POST if answered(request) else None, **more)  # type: ignore[arg-type]
    return styled(made)


def styled(form: F) -> F:
    for field in form.fields.values():
        look = next(look for kind, look in _LOOKS if isinstance(field.widget, kind))
        field.widget.attrs.setdefault("class", " ".join(look))
    return form


def asked(
    request: HttpRequest,
    *,
    title: str,
    lines: Iterable[str],
    button: str,
    typed: str = "",
    form: forms.BaseForm | None = None,
    danger: bool = False,
) -> HttpResponse | None:
    """The page, or None when it has been answered: ``typed`` was typed exactly, and ``form`` is valid.

    A wrong answer shows the page again, with the error on its field. Nothing may be changed before this returned None.
    ``lines`` say what will happen to what. ``danger`` makes the button red, as ``typed`` does.
    """
    problem = ""
    if answered(request):
        word = request.POST.get(TYPED, "")
        if typed and word != typed:
            problem = f"Type “{typed}”, exactly so; nothing was changed."
        if (form is None or form.is_valid()) and not problem:
            return None
    context = {
        **admin.site.each_context(request),
        "title": title,
        "lines": list(lines),
        "button": button,
        "typed": typed,
        "typed_name": TYPED,
        "typed_problem": problem,
        "answer_name": ANSWER,
        "form": form,
        "danger": danger or bool(typed),
        "carried": _carried(request, form),
        # A list's action was posted to the list; a page's own action stands below the page.
        "back": request.get_full_path() if "action" in request.POST else "../",
    }
    return TemplateResponse(request, "console/confirm.html", context, headers={"Cache-Control": "no-store"})


def _carried(request: HttpRequest, form: forms.BaseForm | None) -> list[tuple[str, str]]:
    fields = {form.add_prefix(name) for name in form.fields} if form is not None else set()
    return [
        (name, value)
        for name, values in request.POST.lists()
        if name not in _OURS and name not in fields
        for value in values
    ]
