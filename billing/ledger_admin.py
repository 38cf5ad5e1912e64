"""The hourly ledger in the admin: its rows, what they add up to, and the same as a file. Only :mod:`billing.ledger`
writes it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from billing.ledger_choice import KINDS, NOBODY, SPANS, USUAL, Choice, read_day
from billing.ledger_models import LedgerRow
from billing.models import Consumer
from gpubroker.common import audit, clock, csvfile
from gpubroker.common import providers as configured
from gpubroker.common.admin import ReadOnlyAdmin
from gpubroker.common.money import as_number, quantize

#: Consumers that the filter names; others are chosen from the consumer's page.
NAMED = 50
#: Rows of one file.
MOST_EXPORTED = 200_000
COLUMNS = [
    "hour", "consumer_id", "session_id", "rental_id", "provider", "gpu_type", "kind", "seconds", "dollars",
    "preserved", "failed_attempt",
]  # fmt: skip


class WhenFilter(admin.SimpleListFilter):
    """The usual span, unless another or a day is chosen: nobody asks for all of it. :class:`Choice` applies it."""

    title = "time"
    parameter_name = "when"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(SPANS.items())

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        chosen = self.value() or ("" if changelist.query else USUAL)
        day = read_day(chosen)
        for value, words in [*self.lookup_choices, *([(chosen, chosen)] if day is not None else [])]:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": value == chosen, "query_string": query, "display": words}

    def queryset(self, request: HttpRequest, queryset: QuerySet[LedgerRow]) -> QuerySet[LedgerRow]:
        return queryset


class ChoiceFilter(admin.SimpleListFilter):
    """One of the others; :class:`Choice` applies them."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[LedgerRow]) -> QuerySet[LedgerRow]:
        return queryset


class ConsumerFilter(ChoiceFilter):
    title = "consumer"
    parameter_name = "consumer"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = list(Consumer.objects.order_by("name").values_list("name", flat=True)[:NAMED])
        chosen = request.GET.get(self.parameter_name, "")
        names += [chosen] if chosen not in ("", NOBODY, *names) else []
        return [*((name, name) for name in names), (NOBODY, "no session")]


class KindFilter(ChoiceFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in KINDS]


class ProviderFilter(ChoiceFilter):
    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name, "")
        names = sorted({*configured.configured(), *filter(None, [chosen])})
        return [(name, name) for name in names] or [("", "none is configured")]


@admin.register(LedgerRow)
class LedgerRowAdmin(ReadOnlyAdmin):
    list_display = ("at", "consumer", "session", "provider", "gpu_type", "what", "minutes", "cost", "marks")
    list_filter = (WhenFilter, ConsumerFilter, KindFilter, ProviderFilter)
    list_select_related = ("consumer",)
    list_before_template = "admin/billing/ledgerrow/totals.html"
    search_fields = ("session_id",)
    search_help_text = "A session or a rental, exactly"
    ordering = ("-hour", "-id")
    fields = (
        ("hour", "kind"), ("consumer", "session_id"), ("provider", "gpu_type"), ("minutes", "cost"),
        ("preserved", "failed_attempt"), "rental_id",
    )  # fmt: skip
    readonly_fields = ("minutes", "cost")
    sortable_by = ("at",)

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(self.csv_view)
        return [path("csv/", page, name="billing_ledgerrow_csv"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[LedgerRow]:
        match = request.resolver_match
        if match is not None and match.url_name == "billing_ledgerrow_changelist":
            return Choice.of(request.GET.dict()).rows()
        rows: QuerySet[LedgerRow] = super().get_queryset(request)
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LedgerRow], search_term: str
    ) -> tuple[QuerySet[LedgerRow], bool]:
        return queryset, False  # the choice has it already, by its index

    @display(description="hour, UTC", ordering="hour")
    def at(self, row: LedgerRow) -> str:
        return format_html('<span class="whitespace-nowrap">{}</span>', f"{row.hour:%Y-%m-%d %H:00}")

    @display(description="session", empty_value="no session")
    def session(self, row: LedgerRow) -> str | None:
        if not row.session_id:
            return None
        # By its name only: this app does not know sessions.
        link = reverse("admin:sessions_app_session_change", args=[row.session_id])
        return format_html('<a class="text-link" href="{}">{}</a>', link, row.session_id)

    @display(description="kind", label={"gpu": "primary", "disk": "info", "bandwidth": "warning"})
    def what(self, row: LedgerRow) -> str:
        return row.kind

    @display(description="minutes")
    def minutes(self, row: LedgerRow) -> str:
        return f"{row.seconds / 60:.1f}"

    @display(description="cost")
    def cost(self, row: LedgerRow) -> str:
        return f"${quantize(row.amount)}"

    @display(description="note")
    def marks(self, row: LedgerRow) -> str:
        return ", ".join(
            words for words, marked in (("kept disk", row.preserved), ("failed attempt", row.failed_attempt)) if marked
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        choice = Choice.of(request.GET.dict())
        totals = choice.totals()
        more = {
            "choice": choice,
            "totals": totals,
            "total": sum((each.dollars for each in totals), Decimal(0)),
            "csv": f"{reverse('admin:billing_ledgerrow_csv')}?{request.GET.urlencode()}",
            "others": [
                (name, value) for name, value in request.GET.items() if name in ("consumer", "kind", "provider", "q")
            ],
            "today": clock.now().date(),
        }
        return super().changelist_view(request, {**more, **(extra_context or {})})

    def csv_view(self, request: HttpRequest) -> HttpResponseBase:
        """The rows of the same choice, the oldest first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        choice = Choice.of(request.GET.dict())
        rows = choice.rows()
        if rows.order_by("hour")[MOST_EXPORTED : MOST_EXPORTED + 1].exists():
            self.message_user(
                request,
                f"These are more than {MOST_EXPORTED:,} rows; choose less time, or one consumer.",
                messages.ERROR,
            )
            return redirect(f"{reverse('admin:billing_ledgerrow_changelist')}?{request.GET.urlencode()}")
        audit.note(request, None, f"exported the ledger: {choice.words}", "ledger")
        ordered = rows.select_related("consumer").order_by("hour", "id")
        return csvfile.answer("ledger", COLUMNS, (_line(row) for row in ordered.iterator(chunk_size=2000)))


def _line(row: LedgerRow) -> dict[str, Any]:
    return {
        "hour": clock.iso(row.hour), "consumer_id": row.consumer.name if row.consumer is not None else "",
        "session_id": row.session_id, "rental_id": str(row.rental_id), "provider": row.provider,
        "gpu_type": row.gpu_type, "kind": row.kind, "seconds": row.seconds, "dollars": as_number(row.amount),
        "preserved": int(row.preserved), "failed_attempt": int(row.failed_attempt),
    }  # fmt: skip
