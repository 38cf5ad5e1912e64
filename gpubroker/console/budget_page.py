"""A consumer's budget set and taken away in the console. Above billing, because a budget that is new counts what runs
already, and only sessions know what that may still cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from billing import budget_selectors
from billing.budget_models import Budget
from billing.budget_room import overdrawn
from billing.budget_setting import MOST_THRESHOLDS, USUAL_THRESHOLDS, Wish
from billing.models import Consumer
from gpubroker.common import audit, clock, confirm, roles
from gpubroker.common.errors import ApiError
from sessions_app import budget_views

#: What has to be typed for a hard limit below what is spent and reserved already.
SHORTER = "end sessions earlier"


class Percents(forms.Field):
    """``50, 80, 95`` as whole percents."""

    def to_python(self, value: Any) -> tuple[int, ...]:
        parts = [part.strip() for part in str(value or "").split(",") if part.strip()]
        if not all(part.isascii() and part.isdigit() and 1 <= int(part[:4]) <= 100 for part in parts):
            raise forms.ValidationError("Whole percents from 1 to 100 with commas, such as 50, 80, 95.")
        if len(set(parts)) > MOST_THRESHOLDS:
            raise forms.ValidationError(f"At most {MOST_THRESHOLDS}.")
        return tuple(int(part) for part in parts)

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else ", ".join(map(str, value or ()))


class BudgetForm(forms.Form):
    monthly_limit = forms.DecimalField(
        required=False, min_value=Decimal(0), max_digits=14, decimal_places=6, label="Dollars a month",
        help_text="Each calendar month, UTC. Empty: no such limit.",
    )  # fmt: skip
    total_limit = forms.DecimalField(
        required=False, min_value=Decimal(0), max_digits=14, decimal_places=6, label="Dollars of all time",
        help_text="Empty: no such limit.",
    )  # fmt: skip
    mode = forms.ChoiceField(
        choices=[("hard", "hard: refuse what does not fit, end what runs beyond it"), ("soft", "soft: only warn")]
    )
    thresholds = Percents(
        required=False, label="Warn at so many percent", help_text="Each is told by webhook once a month."
    )

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        limits = [found.get("monthly_limit"), found.get("total_limit")]
        if not self.errors and limits == [None, None]:
            raise forms.ValidationError("Give one limit or both. “Remove budget” takes a budget away.")
        return found


def set_budget(request: HttpRequest, pk: int) -> HttpResponse:
    roles.require(request, roles.MONEY)
    consumer = _consumer(pk)
    budget = Budget.objects.select_related("consumer").filter(consumer=consumer).first()
    told = None if budget is None else budget_selectors.shown(budget, clock.now())
    form = confirm.bound(request, BudgetForm, initial=_now(budget))

    def asked(typed: str = "") -> HttpResponse | None:
        more = "A hard budget holds less than is spent and reserved already: the newest sessions will end earlier."
        return confirm.asked(
            request, title=f"Budget of {consumer.name}", button="Set the budget", form=form, typed=typed,
            lines=[*_standing(told), *([more] if typed else [])],
        )  # fmt: skip

    page = asked()
    if page is not None:
        return page
    wish = form.cleaned_data
    limits = (wish["monthly_limit"], wish["total_limit"])
    mode = wish["mode"] == "hard"
    try:
        with transaction.atomic():
            made = budget_views.put(
                consumer.name, Wish(*limits, hard=mode, thresholds=wish["thresholds"]), roles.actor(request)
            )
            # Only now it is known what the limits come to; where sessions would end, somebody has to say so.
            page = asked(SHORTER) if overdrawn(made, clock.now()) else None
            if page is not None:
                transaction.set_rollback(True)
    except ApiError as refusal:
        form.add_error(None, refusal.message)
        page = asked()
    if page is not None:
        return page
    audit.note(request, consumer, f"set the budget: {_words(*limits)}, {wish['mode']}")
    messages.success(request, f"The budget of {consumer.name} is set.")
    return _back(consumer)


def remove_budget(request: HttpRequest, pk: int) -> HttpResponse:
    roles.require(request, roles.MONEY)
    consumer = _consumer(pk)
    budget = Budget.objects.select_related("consumer").filter(consumer=consumer).first()
    if budget is None:
        messages.warning(request, f"{consumer.name} has no budget.")
        return _back(consumer)
    page = confirm.asked(
        request, title=f"Remove the budget of {consumer.name}", button="Remove", danger=True,
        lines=[*_standing(budget_selectors.shown(budget, clock.now())), "Nothing limits what is spent from then on."],
    )  # fmt: skip
    if page is not None:
        return page
    budget_views.delete(consumer.name, roles.actor(request))
    audit.note(request, consumer, "removed the budget")
    messages.success(request, f"{consumer.name} has no budget any more.")
    return _back(consumer)


def _consumer(pk: int) -> Consumer:
    consumer = Consumer.objects.filter(pk=pk).first()
    if consumer is None:
        raise Http404
    return consumer


def _back(consumer: Consumer) -> HttpResponse:
    return redirect(reverse("admin:billing_consumer_change", args=[consumer.pk]))


def _now(budget: Budget | None) -> dict[str, Any]:
    if budget is None:
        return {"mode": "hard", "thresholds": USUAL_THRESHOLDS}
    return {
        "monthly_limit": budget.monthly_limit, "total_limit": budget.total_limit,
        "mode": "hard" if budget.hard else "soft", "thresholds": budget.thresholds,
    }  # fmt: skip


def _standing(told: Mapping[str, Any] | None) -> list[str]:
    if told is None:
        return ["There is no budget now: nothing limits what is spent."]
    limits = [(name, told[key]) for name, key in (("This month", "monthly"), ("All time", "total")) if told[key]]
    return [
        f"{name}: ${limit['spent']:.2f} spent and ${limit['reserved']:.2f} reserved of ${limit['limit']:.2f}"
        for name, limit in limits
    ]


def _words(monthly: Decimal | None, total: Decimal | None) -> str:
    limits = ((monthly, "a month"), (total, "in all"))
    return " and ".join(f"${limit.normalize():f} {words}" for limit, words in limits if limit is not None)
