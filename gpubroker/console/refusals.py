"""What people are told in place of a page of the console. Programs, and who is not logged in, get the API's JSON."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from gpubroker.common import errors


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if not _is_a_persons(request):
        return errors.forbidden(request, exception)
    sentence = "Nothing was changed. An admin gives roles, under Users."
    return _page(request, 403, "Your role does not allow this", sentence)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    if not _is_a_persons(request):
        return errors.not_found(request, exception)
    return _page(request, 404, "There is no such page", "What it was about may be gone, or was never there.")


def _is_a_persons(request: HttpRequest) -> bool:
    """Refused before the login was looked at, a request has no user."""
    user = getattr(request, "user", None)
    logged_in = user is not None and user.is_active and user.is_staff
    return logged_in and request.path_info.startswith("/admin/") and request.accepts("text/html")


def _page(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": title, "sentence": sentence}
    return render(request, "console/refused.html", context, status=status)
