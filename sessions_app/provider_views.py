"""What staff sees of the provider accounts. What it changes there: :mod:`provider_changes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gpubroker.common import clock
from gpubroker.common.api import PageQuery, read_query
from gpubroker.common.errors import BadField
from gpubroker.common.permissions import StaffOnly
from gpubroker.common.schema import errors, example
from providers.extras import KeepsBooks, TakesBids, TellsUser
from sessions_app import provider_documented as documented
from sessions_app import provider_pages as pages
from sessions_app.provider_calls import ask, known, lacking
from sessions_app.provider_schemas import (
    BidSchema,
    ChargeSchema,
    InstanceSchema,
    InvoiceSchema,
    ProviderListSchema,
    SpanQuery,
    ToldBalanceSchema,
    UserSchema,
    page_schema,
)

USUAL_SPAN, LONGEST_SPAN = timedelta(days=30), timedelta(days=366)
UNKNOWN = "there is no provider vastia"


def failures(*more: int) -> Any:
    """Whatever a call to a provider can come to."""
    return errors(400, 404, *more, 501, 502, 503, 504, _404=UNKNOWN, _503="vastai: 503 from the provider")


def told(
    provider: str, name: str, rows: Sequence[Any], params: dict[str, Any], show: Callable[[Sequence[Any]], list[Any]]
) -> dict[str, Any]:
    """One page of rows that were listed completely."""
    offset, limit = params.get("offset", 0), params.get("limit")
    page = show(rows[offset : offset + limit if limit else None])
    return {"provider": provider, name: page, "count": len(page), "total": len(rows)}


def span(params: dict[str, Any]) -> tuple[datetime, datetime]:
    until = params.get("until") or clock.now()
    since = params.get("since") or until - USUAL_SPAN
    if not timedelta(0) < until - since <= LONGEST_SPAN:
        raise BadField("since", f"must be before until, by at most {LONGEST_SPAN.days} days")
    return since, until


def statement(provider: str, what: str) -> KeepsBooks:
    found = known(provider)
    if not isinstance(found, KeepsBooks):
        raise lacking(provider, what)
    return found


class StaffView(APIView):
    permission_classes = [StaffOnly]


class ProvidersView(StaffView):
    @extend_schema(
        operation_id="list_providers", tags=["providers"], summary="The configured providers and how they do",
        responses={200: ProviderListSchema}, examples=[example(documented.PROVIDERS)],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """From the broker's own books: no provider is asked. `sweep` is the listing of our machines there, `breaker`
        holds the calls to a provider that fails, `balance` is as it was last told, with what is burnt an
        hour there and how long it lasts."""
        rows = pages.overview()
        return Response({"providers": rows, "count": len(rows)})


class BalanceView(StaffView):
    @extend_schema(
        operation_id="provider_balance", tags=["providers"], summary="What the account can still spend",
        responses={200: ToldBalanceSchema, **failures()}, examples=[example(documented.BALANCE)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """Asks the provider now."""
        found = ask("balance", known(provider).balance)
        return Response(pages.balance(provider, found))


class UserView(StaffView):
    @extend_schema(
        operation_id="provider_user", tags=["providers"], summary="Whose account it is",
        responses={200: UserSchema, **failures()}, examples=[example(documented.USER)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """The user whose key the broker has; never the key itself."""
        account = known(provider)
        if not isinstance(account, TellsUser):
            raise lacking(provider, "user")
        return Response({"provider": provider, **pages.user(ask("user", account.current_user))})


class InstancesView(StaffView):
    @extend_schema(
        operation_id="provider_instances", tags=["providers"], summary="Every machine on the account, and whose it is",
        parameters=[PageQuery], responses={200: page_schema("instances", InstanceSchema), **failures()},
        examples=[example(documented.INSTANCES)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """A complete listing, asked for now, or an error, never a part. Machines of others are only shown."""
        params = read_query(PageQuery, request.query_params)
        rows = ask("machines", known(provider).list_instances).instances
        ordered = sorted(rows, key=lambda each: each.instance_id.zfill(40))
        return Response(told(provider, "instances", ordered, params, lambda page: pages.instances(provider, page)))


class BidsView(StaffView):
    @extend_schema(
        operation_id="provider_bids", tags=["providers"], summary="Interruptible machines and what we bid for them",
        parameters=[PageQuery], responses={200: page_schema("bids", BidSchema), **failures()},
        examples=[example(documented.BIDS)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """A bid is a machine at a price that we named."""
        params = read_query(PageQuery, request.query_params)
        bidder = known(provider)
        if not isinstance(bidder, TakesBids):
            raise lacking(provider, "bids")
        rows = ask("bids", bidder.bids)
        return Response(told(provider, "bids", rows, params, lambda page: pages.bids(provider, page)))


class InvoicesView(StaffView):
    @extend_schema(
        operation_id="provider_invoices", tags=["providers"], summary="The account's statement",
        parameters=[SpanQuery],
        responses={200: page_schema("invoices", InvoiceSchema, amount=serializers.FloatField()), **failures()},
        examples=[example(documented.INVOICES)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """By the vendor, oldest first, top-ups negative. `amount` is the sum of all `total` lines."""
        params = read_query(SpanQuery, request.query_params)
        since, until = span(params)
        books = statement(provider, "invoices")
        rows = ask("invoices", lambda: books.invoices(since, until))
        page = told(provider, "invoices", rows, params, lambda some: [pages.invoice(each) for each in some])
        return Response({**page, "amount": pages.total(each.amount for each in rows)})


class ChargesView(StaffView):
    @extend_schema(
        operation_id="provider_charges", tags=["providers"], summary="What machines cost, by the vendor's account",
        parameters=[SpanQuery],
        responses={200: page_schema("charges", ChargeSchema, amount=serializers.FloatField()), **failures()},
        examples=[example(documented.CHARGES)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """With the session that each machine was for. `amount` is the sum of all `total` charges."""
        params = read_query(SpanQuery, request.query_params)
        since, until = span(params)
        books = statement(provider, "charges")
        rows = ask("charges", lambda: books.charges(since, until))
        page = told(provider, "charges", rows, params, lambda some: pages.charges(provider, some))
        return Response({**page, "amount": pages.total(each.amount for each in rows)})
