"""The page between an action and its deed, by itself."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import RequestFactory

from gpubroker.common import confirm

pytestmark = pytest.mark.django_db
PATH = "/admin/sessions_app/session/?status__exact=running"


class Why(forms.Form):
    reason = forms.CharField(max_length=20)
    sure = forms.BooleanField(required=False)
    kind = forms.ChoiceField(choices=[("a", "A")], required=False)
    more = forms.CharField(required=False, widget=forms.Textarea)


def asked(data: dict[str, Any] | None = None, **how: Any) -> HttpResponse | None:
    factory = RequestFactory()
    request = factory.get(PATH) if data is None else factory.post(PATH, data)
    request.user = User.objects.get_or_create(username="root", is_superuser=True, is_staff=True)[0]
    form = confirm.bound(request, how.pop("form")) if "form" in how else None
    page = confirm.asked(request, title="Do <it>?", lines=["to <this>", "to that"], button="Do it", form=form, **how)
    return page.render() if page is not None else None  # type: ignore[attr-defined]


def html(page: HttpResponse | None) -> str:
    assert page is not None
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    return page.content.decode()


def test_a_question_carries_what_was_chosen() -> None:
    page = html(asked({"action": "destroy", "_selected_action": ["1", "<2>"], "index": "0", "select_across": "1"}))
    for name, value in (("action", "destroy"), ("_selected_action", "1"), ("_selected_action", "<2>"), ("index", "0")):
        assert f'<input type="hidden" name="{name}" value="{escape(value)}">' in page
    assert "Do &lt;it&gt;?" in page
    assert "to &lt;this&gt;" in page
    assert f'href="{PATH}"' in page
    assert "confirm_typed" not in page


def test_a_page_of_its_own_goes_back_to_what_it_is_about() -> None:
    assert 'href="../"' in html(asked())


@pytest.mark.parametrize("data", [None, {}, {"confirmed": "no"}, {"confirm_typed": "destroy 3"}])
def test_without_an_answer_nothing_is_confirmed(data: dict[str, Any] | None) -> None:
    assert asked(data) is not None


def test_the_button_confirms() -> None:
    assert asked({"confirmed": "yes"}) is None


@pytest.mark.parametrize("word", ["", "destroy", "destroy 30", "Destroy 3", " destroy 3", "destroy  3"])
def test_another_word_does_not(word: str) -> None:
    page = html(asked({"confirmed": "yes", "confirm_typed": word}, typed="destroy 3"))
    assert "Type “destroy 3”, exactly so; nothing was changed." in page
    assert 'aria-invalid="true"' in page


def test_the_word_does() -> None:
    assert asked({"confirmed": "yes", "confirm_typed": "destroy 3"}, typed="destroy 3") is None


def test_a_form_must_be_filled_in_rightly() -> None:
    first = html(asked(form=Why))
    assert "This field is required." not in first
    again = html(asked({"confirmed": "yes", "reason": "", "action": "x"}, form=Why))
    assert "This field is required." in again
    assert 'type="hidden" name="reason"' not in again
    long = html(asked({"confirmed": "yes", "reason": "y" * 21}, form=Why))
    assert f'value="{"y" * 21}"' in long
    assert asked({"confirmed": "yes", "reason": "because"}, form=Why) is None


def test_word_and_form_are_both_needed() -> None:
    answer = {"confirmed": "yes", "confirm_typed": "yes 1"}
    assert asked({**answer, "reason": ""}, form=Why, typed="yes 1") is not None
    assert asked({**answer, "reason": "r", "confirm_typed": "no"}, form=Why, typed="yes 1") is not None
    assert asked({**answer, "reason": "r"}, form=Why, typed="yes 1") is None
