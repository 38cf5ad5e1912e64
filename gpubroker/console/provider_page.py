"""The provider accounts: how each does, what is there and whose, what it costs, and what to press."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe
from unfold.widgets import UnfoldAdminTextInputWidget

from gpubroker.common import audit, clock, confirm, roles
from gpubroker.common import providers as configured
from gpubroker.console import provider_parts as parts
from gpubroker.console.provider_parts import Account
from sessions_app import maintenance, nudge, sweep
from sessions_app.models import ProviderWatch

SEE = "sessions_app.view_providerwatch"


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=200, label="Why", widget=UnfoldAdminTextInputWidget(), help_text="Shown to staff, not to consumers."
    )


@require_safe
def everybody(request: HttpRequest) -> HttpResponse:
    """All accounts side by side."""
    _see(request)
    shown = [_summary(account) for account in parts.accounts()]
    return _page(request, "console/providers.html", "Providers", {"accounts": shown})


@require_http_methods(["GET", "HEAD", "POST"])
def one(request: HttpRequest, name: str) -> HttpResponse:
    """One account. ``?ask=instances`` (invoices, machines) asks the provider now; a ``POST`` presses a button."""
    _see(request)
    account = next((each for each in parts.accounts() if each.name == name), None)
    if account is None:
        raise Http404
    if request.method == "POST":
        return _press(request, account)
    provider, now = configured.get(name), clock.now()
    wanted = request.GET.get("ask", "")
    told = parts.asked(wanted, name, provider)
    context = {
        **_summary(account),
        "now": now,
        "wanted": wanted,
        "told": told,
        "calls": parts.calls(name),
        "gates": parts.gates(name, now),
        "seen": parts.machines_seen(name),
        "bill": parts.bill(name, provider),
        "hosts": parts.hosts(provider),
        "operates": roles.may(request, roles.OPERATE),
    }
    return _page(request, "console/provider.html", name, context)


def _see(request: HttpRequest) -> None:
    if not request.user.has_perm(SEE):
        raise PermissionDenied


def _page(request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> HttpResponse:
    usual = {**admin.site.each_context(request), "title": title, "now": clock.now()}
    return TemplateResponse(request, template, {**usual, **context})


def _summary(account: Account) -> dict[str, Any]:
    return {
        "account": account,
        "credit": parts.money(account.balance.left if account.balance is not None else None),
        "burn": parts.rate(account.balance.burn_per_hour) if account.balance is not None else "",
        "runway": parts.runway(account.balance),
    }


def _press(request: HttpRequest, account: Account) -> HttpResponse:
    """Maintenance asks first; a sweep harms nobody, and is asked for at once."""
    roles.require(request, roles.OPERATE)
    back = HttpResponseRedirect(reverse("admin:provider", args=[account.name]))
    pressed = {"sweep": _sweep, "maintenance-on": _rest, "maintenance-off": _resume}.get(request.POST.get("action", ""))
    if pressed is None:
        messages.warning(request, "There is no such button; nothing has changed.")
        return back
    return pressed(request, account.name) or back


def _note(request: HttpRequest, name: str, what: str) -> None:
    audit.note(request, ProviderWatch.objects.filter(provider=name).first(), what, name=name)


def _sweep(request: HttpRequest, name: str) -> None:
    if sweep.ask(name):
        nudge.tick()
        _note(request, name, "Sweep asked for.")
        messages.success(request, f"A sweep of {name} begins within a second.")
    else:
        messages.warning(request, f"{name} is not watched yet: its first sweep comes by itself.")


def _rest(request: HttpRequest, name: str) -> HttpResponse | None:
    form = confirm.bound(request, ReasonForm)
    lines = [
        f"No new session is taken at {name}: creates there are refused, retries choose other providers, and its offers "
        "are not listed.",
        "What runs there is not touched: sweeps, extensions, ends and destroys go on.",
    ]
    question = confirm.asked(
        request, title=f"Put {name} into maintenance", lines=lines, button="Begin maintenance", form=form
    )
    if question is not None:
        return question
    if maintenance.begin(name, form.cleaned_data["reason"], roles.actor(request)):
        _note(request, name, f"Maintenance begun: {form.cleaned_data['reason']}")
        messages.success(request, f"{name} is in maintenance.")
    else:
        messages.warning(request, f"{name} was in maintenance already; nothing has changed.")
    return None


def _resume(request: HttpRequest, name: str) -> HttpResponse | None:
    lines = [f"New sessions are taken at {name} again, and its offers are listed."]
    question = confirm.asked(request, title=f"End the maintenance of {name}", lines=lines, button="End maintenance")
    if question is not None:
        return question
    if maintenance.end(name, roles.actor(request)):
        _note(request, name, "Maintenance ended.")
        messages.success(request, f"{name} takes new sessions again.")
    else:
        messages.warning(request, f"{name} was not in maintenance; nothing has changed.")
    return None
