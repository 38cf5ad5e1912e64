"""Pages about money in the admin: a consumer's statement of a month, to be printed, and spending by day."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from billing import reports, statements
from billing.models import Consumer
from gpubroker.common import clock
from gpubroker.common.admin import ReadOnlyAdmin

if TYPE_CHECKING:
    Base = ReadOnlyAdmin
else:
    Base = object

CENT = Decimal("0.01")
SPANS = (7, 31, 92)
USUAL_SPAN = 31


class StatementPages(Base):
    """``<consumer>/statement/?month=YYYY-MM``"""

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.statement_view)
        return [path("<int:pk>/statement/", page, name="billing_consumer_statement"), *super().get_urls()]

    def statement_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        consumer = Consumer.objects.filter(pk=pk).first()
        if not self.has_view_permission(request, consumer):
            raise PermissionDenied
        today = clock.now().date()
        try:
            month = statements.month_named(request.GET.get("month") or f"{today:%Y-%m}")
        except ValueError:
            raise Http404 from None
        if consumer is None:
            raise Http404
        before, after = month - timedelta(days=1), (month + timedelta(days=32)).replace(day=1)
        context = {
            "statement": statements.statement(consumer, month, unit=CENT),
            "title": f"Statement {month:%Y-%m}",
            "before_month": f"{before:%Y-%m}",
            "before_name": f"{before:%B %Y}",
            "after": after if after <= today else None,
            "after_month": f"{after:%Y-%m}",
            "after_name": f"{after:%B %Y}",
            "back": reverse("admin:billing_consumer_change", args=[pk]),
        }
        return _page(self, request, "admin/billing/consumer/statement.html", context)


class SpendPages(Base):
    """``spend/?days=31&consumer=<name>``"""

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.spend_view)
        return [path("spend/", page, name="billing_metersegment_spend"), *super().get_urls()]

    def spend_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, SPANS) else USUAL_SPAN
        name = request.GET.get("consumer", "")
        consumer = Consumer.objects.filter(name=name).first() if name else None
        if name and consumer is None:
            raise Http404
        last = clock.now().date()
        first: date = last - timedelta(days=days - 1)
        context = {
            "picture": reports.picture(reports.spend_by_day(first, last, name or None)),
            "title": "Spend by day",
            "first": first,
            "last": last,
            "consumer": name,
            "spans": [
                {"title": f"{span} days", "link": f"?{urlencode(_asked(span, name))}", "active": span == days}
                for span in SPANS
            ],
            "back": reverse("admin:billing_consumer_change", args=[consumer.pk]) if consumer is not None else None,
        }
        return _page(self, request, "admin/billing/metersegment/spend.html", context)


def _asked(span: int, consumer: str) -> dict[str, str]:
    return {"days": str(span), **({"consumer": consumer} if consumer else {})}


def _page(admin: ReadOnlyAdmin, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    usual = {**admin.admin_site.each_context(request), "opts": admin.opts}
    return TemplateResponse(request, template, {**usual, **context})
