"""``/metrics``: read from durable state at the scrape, so that the answer is right whatever process gives it.

What is measured stands in :mod:`gpubroker.metrics.catalogue`. Another gauge is an entry there and a :class:`Sample`
from one of :data:`SOURCES`; another counter is an entry there and a call where it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django_prometheus import exports

from gpubroker.common import providers as configured
from gpubroker.metrics import accounts, books, budgets, catalogue, providers, review, service
from gpubroker.metrics.samples import CONTENT_TYPE, Sample, counted, written

SOURCES: tuple[Callable[[], Iterable[Sample]], ...] = (
    books.sessions,
    books.debts,
    books.driver,
    providers.offers,
    providers.machines,
    accounts.balances,
    accounts.bills,
    budgets.budgets,
    review.waiting,
    service.queue,
    service.webhooks,
)


@csrf_exempt
@require_safe
def process(request: HttpRequest) -> HttpResponse:
    """What django-prometheus counts in the process that happens to answer: latencies by view, memory, garbage."""
    answer: HttpResponse = exports.ExportToDjangoView(request)
    return answer


@csrf_exempt  # so that other methods are 405, not a page about cookies
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    gauges = [sample for source in SOURCES for sample in source()]
    text = written(catalogue.ALL.values(), gauges, counted(), configured.configured())
    return HttpResponse(text, content_type=CONTENT_TYPE)
