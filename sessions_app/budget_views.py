"""Budgets over HTTP. Here and not in billing, because a budget that is new counts what runs already, and only this app
knows what that may still cost."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import budget_selectors, budget_setting
from billing.budget_models import Budget
from billing.budget_serializers import BudgetBody, BudgetDeletedSchema, BudgetSchema
from billing.models import Consumer
from gpubroker.common import clock, principal
from gpubroker.common.api import read_body
from gpubroker.common.errors import ApiError
from gpubroker.common.permissions import Scoped, StaffOnly
from gpubroker.common.schema import errors, example, request_example
from sessions_app import budget_watch
from sessions_app.transitions import record

UNKNOWN = "budget of my-application not found"
NOBODY = "consumer my-application not found"
EXAMPLE_WISH: dict[str, Any] = {"monthly_limit": 500, "total_limit": None, "mode": "hard", "thresholds": [50, 80, 95]}
EXAMPLE: dict[str, Any] = {
    "consumer_id": "my-application", "mode": "hard", "thresholds": [50, 80, 95], "currency": "USD",
    "monthly": {
        "period": "2026-01", "limit": 500, "spent": 230.5, "reserved": 12.25, "left": 257.25, "over": 0,
        "forecast": 251.3, "runs_dry_at": None,
    },
    "total": None, "burn_per_hour": 1.41, "average_per_hour": 0.347, "updated_at": "2026-01-02T09:00:00Z",
    "updated_by": "staff:gpb_x5tn2wqe",
}  # fmt: skip


def put(name: str, wish: budget_setting.Wish, by: str) -> Budget:
    """A consumer's budget from now on, with everything that runs already counted in. 404 for a consumer that there is
    not: a misspelt name would leave the right one without a limit.

    Where that is more than a hard budget holds, the next round of the watch ends sessions earlier.
    """
    consumer = Consumer.objects.filter(name=name).first()
    if consumer is None:
        raise ApiError(404, f"consumer {name} not found", consumer_id=name)
    with transaction.atomic():
        budget = budget_setting.put(consumer, wish, by)
        budget_watch.adopt(budget.consumer_id)
        budget_setting.count(budget)
        _note("budget set", name, by, wish)
    return budget


def delete(name: str, by: str) -> None:
    with transaction.atomic():
        budget_setting.delete(name, by)
        _note("budget deleted", name, by, None)


def _note(what: str, name: str, by: str, wish: budget_setting.Wish | None) -> None:
    """The audit trail: who changed whose budget."""
    limits = {} if wish is None else {
        "monthly_limit": _text(wish.monthly_limit), "total_limit": _text(wish.total_limit), "hard": wish.hard,
        "thresholds": sorted(wish.thresholds),
    }  # fmt: skip
    record("budget_changed", reason=what, actor=by, details={"consumer_id": name, **limits})


def _text(limit: Any) -> str | None:
    return None if limit is None else str(limit)


class StaffChanges(BasePermission):
    """Whoever may read sees its own; only staff changes."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = Scoped() if request.method in SAFE_METHODS else StaffOnly()
        return needed.has_permission(request, view)


class BudgetView(APIView):
    permission_classes = [StaffChanges]

    @extend_schema(
        operation_id="get_budget", tags=["budgets"], summary="What a consumer may still spend",
        responses={200: BudgetSchema, **errors(404, _404=UNKNOWN)}, examples=[example(EXAMPLE)],
    )  # fmt: skip
    def get(self, request: Request, consumer: str) -> Response:
        """Dollars, to this second. Another consumer's budget is as unknown as one that is not there."""
        if not principal.of(request).may_see(consumer):
            raise budget_setting.not_found(consumer)
        return Response(budget_selectors.shown(budget_setting.found(consumer), clock.now()))

    @extend_schema(
        operation_id="set_budget", tags=["budgets"], summary="Set a consumer's budget", request=BudgetBody,
        responses={
            200: BudgetSchema,
            **errors(400, 404, _400="monthly_limit: give monthly_limit, total_limit or both", _404=NOBODY),
        },
        examples=[request_example(EXAMPLE_WISH), example(EXAMPLE)],
    )  # fmt: skip
    def put(self, request: Request, consumer: str) -> Response:
        """For staff; in place of the budget before, and at once, for a consumer that there is (`POST /consumers` makes
        one). Where more runs already than a hard budget holds, the newest sessions end earlier, with a warning."""
        body = read_body(BudgetBody, request)
        wish = budget_setting.Wish(
            body["monthly_limit"], body["total_limit"], body["mode"] == "hard", tuple(body["thresholds"])
        )
        budget = put(consumer, wish, principal.of(request).actor)
        return Response(budget_selectors.shown(budget, clock.now()))

    @extend_schema(
        operation_id="delete_budget", tags=["budgets"], summary="Take a consumer's budget away",
        responses={200: BudgetDeletedSchema, **errors(404, _404=UNKNOWN)},
        examples=[example({"message": "budget deleted", "consumer_id": "my-application"})],
    )  # fmt: skip
    def delete(self, request: Request, consumer: str) -> Response:
        """For staff. The consumer may spend what it likes from now on; a session that was cut short stays so."""
        delete(consumer, principal.of(request).actor)
        return Response({"message": "budget deleted", "consumer_id": consumer})
