"""What staff changes at the providers: account keys, templates, machines rented out; and the sweep on demand.

Every change that the provider took is an event, with who asked for it. Answers of a POST are kept under its
``Idempotency-Key``; sent again after a crash each of them does no more than it did.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from gpubroker.common import idempotency, principal
from gpubroker.common.api import PageQuery, read_body, read_query
from gpubroker.common.errors import ApiError
from gpubroker.common.idempotency import Answer
from gpubroker.common.schema import IDEMPOTENCY_KEY, errors, example, request_example
from providers.extras import EditsTemplates, HoldsAccountKeys, RentsOutMachines
from sessions_app import nudge, sweep
from sessions_app import provider_documented as documented
from sessions_app import provider_pages as pages
from sessions_app.provider_calls import ask, known, lacking, patience
from sessions_app.provider_schemas import (
    AccountKeyBody,
    AccountKeySchema,
    AccountTemplateSchema,
    ChangedSchema,
    HostMachineSchema,
    MachineOfferBody,
    NewTemplateBody,
    OfferMachineBody,
    SweepAskedSchema,
    TemplateBody,
    TemplateChangedSchema,
    page_schema,
)
from sessions_app.provider_views import UNKNOWN, StaffView, failures, told
from sessions_app.transitions import record

#: Our names for a machine's terms, and the vendor's.
TERMS = {
    "price_per_gpu_hour": "price_gpu",
    "min_bid_per_gpu_hour": "price_min_bid",
    "storage_price_per_gb_month": "price_disk",
    "upload_price_per_gb": "price_inetu",
    "download_price_per_gb": "price_inetd",
    "least_gpus": "min_chunk",
}


def claimed(request: Request, act: Callable[[], Answer]) -> Response:
    return idempotency.claimed(request, act, timedelta(seconds=patience() + 30))


def note(request: Request, provider: str, what: str, **details: Any) -> None:
    """The audit trail: who changed what of an account."""
    with transaction.atomic():
        record(
            "provider_changed", reason=what, actor=principal.of(request).actor,
            details={"provider": provider, **details},
        )  # fmt: skip


class SweepView(StaffView):
    @extend_schema(
        operation_id="sweep_provider", tags=["providers"], summary="Compare a provider's machines with the books now",
        request=None, parameters=[IDEMPOTENCY_KEY],
        responses={202: SweepAskedSchema, **errors(400, 404, 409, _404=UNKNOWN)},
        examples=[example(documented.changed("sweep asked for"), status=202)],
    )  # fmt: skip
    def post(self, request: Request, provider: str) -> Response:
        """Begins with the driver's next tick; `GET /providers` shows when it was complete."""
        known(provider)

        def act() -> Answer:
            sweep.ask(provider)
            nudge.tick()
            return Answer(202, {"message": "sweep asked for", "provider": provider})

        return idempotency.once(request, act)


class SSHKeysView(StaffView):
    @extend_schema(
        operation_id="provider_ssh_keys", tags=["providers"], summary="SSH keys on the account",
        parameters=[PageQuery], responses={200: page_schema("ssh_keys", AccountKeySchema), **failures()},
        examples=[example(documented.KEYS)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """Machines accept these beside the broker's own keys, which are per session and never on the account."""
        params = read_query(PageQuery, request.query_params)
        rows = ask("account SSH keys", holder(provider).ssh_keys)
        return Response(told(provider, "ssh_keys", rows, params, lambda some: [pages.ssh_key(each) for each in some]))

    @extend_schema(
        operation_id="add_provider_ssh_key", tags=["providers"], summary="Put an SSH key on the account",
        request=AccountKeyBody, parameters=[IDEMPOTENCY_KEY], responses={201: AccountKeySchema, **failures(409)},
        examples=[request_example({"public_key": documented.PUBLIC_KEY}), example(documented.KEY, status=201)],
    )  # fmt: skip
    def post(self, request: Request, provider: str) -> Response:
        """Every machine that the account rents from now on accepts it, those of consumers too."""
        public_key = read_body(AccountKeyBody, request)["public_key"]
        account = holder(provider)

        def act() -> Answer:
            shown = pages.ssh_key(ask("new SSH key", lambda: account.add_ssh_key(public_key)))
            note(request, provider, "SSH key added", key_id=shown["key_id"], fingerprint=shown["fingerprint"])
            return Answer(201, shown)

        return claimed(request, act)


class SSHKeyView(StaffView):
    @extend_schema(
        operation_id="delete_provider_ssh_key", tags=["providers"], summary="Take an SSH key off the account",
        responses={200: ChangedSchema, **failures()}, examples=[example(documented.changed("SSH key deleted"))],
    )  # fmt: skip
    def delete(self, request: Request, provider: str, key_id: str) -> Response:
        """One that is not there is success. Machines that have it already keep it."""
        account = holder(provider)
        ask("SSH key", lambda: account.delete_ssh_key(key_id))
        note(request, provider, "SSH key deleted", key_id=key_id[:40])
        return Response({"message": "SSH key deleted", "provider": provider})


class TemplatesView(StaffView):
    @extend_schema(
        operation_id="provider_templates", tags=["providers"], summary="The account's launch templates, at the vendor",
        parameters=[PageQuery], responses={200: page_schema("templates", AccountTemplateSchema), **failures()},
        examples=[example(documented.TEMPLATES)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """Asked for now: the account's own and those that the vendor recommends. What sessions are made from is the
        broker's copy, `GET /templates`, which follows within its sync."""
        params = read_query(PageQuery, request.query_params)
        rows = ask("launch templates", known(provider).list_templates)
        return Response(told(provider, "templates", rows, params, lambda some: [pages.template(each) for each in some]))

    @extend_schema(
        operation_id="create_provider_template", tags=["providers"], summary="Make a launch template at the vendor",
        request=NewTemplateBody, parameters=[IDEMPOTENCY_KEY],
        responses={201: TemplateChangedSchema, **failures(409)},
        examples=[request_example(documented.TEMPLATE), example(documented.TEMPLATE_CHANGED, status=201)],
    )  # fmt: skip
    def post(self, request: Request, provider: str) -> Response:
        """In the vendor's names. The same content again is the same template. Others can read a template that is not
        `private`: no secrets in it."""
        content = read_body(NewTemplateBody, request)
        editor = editing(provider)

        def act() -> Answer:
            shown = pages.template_ref(ask("new template", lambda: editor.create_template(**content)))
            note(request, provider, "template created", **shown)
            return Answer(201, {"message": "template written", "provider": provider, **shown})

        return claimed(request, act)


class TemplateView(StaffView):
    @extend_schema(
        operation_id="update_provider_template", tags=["providers"], summary="Change a launch template at the vendor",
        request=TemplateBody, responses={200: TemplateChangedSchema, **failures()},
        examples=[request_example({"image": "vllm/vllm-openai:v0.10.0"}), example(documented.TEMPLATE_CHANGED)],
    )  # fmt: skip
    def put(self, request: Request, provider: str, template_id: str) -> Response:
        """Only what is named changes. The hash changes with it, and hashes that somebody noted go stale."""
        changes = read_body(TemplateBody, request)
        editor = editing(provider)
        shown = pages.template_ref(ask("template", lambda: editor.update_template(template_id, changes)))
        note(request, provider, "template changed", fields=sorted(changes), **shown)
        return Response({"message": "template written", "provider": provider, **shown})

    @extend_schema(
        operation_id="delete_provider_template", tags=["providers"], summary="Delete a launch template at the vendor",
        responses={200: ChangedSchema, **failures()}, examples=[example(documented.changed("template deleted"))],
    )  # fmt: skip
    def delete(self, request: Request, provider: str, template_id: str) -> Response:
        """One of the account's own. Machines made from it stay as they are."""
        editor = editing(provider)
        ask("template", lambda: editor.delete_template(template_id))
        note(request, provider, "template deleted", template_id=template_id[:40])
        return Response({"message": "template deleted", "provider": provider})


class MachinesView(StaffView):
    @extend_schema(
        operation_id="provider_machines", tags=["providers"], summary="Machines that the account itself rents out",
        parameters=[PageQuery], responses={200: page_schema("machines", HostMachineSchema), **failures()},
        examples=[example(documented.MACHINES)],
    )  # fmt: skip
    def get(self, request: Request, provider: str) -> Response:
        """The host's side; most accounts have none. Machines that we rent are under `instances`."""
        params = read_query(PageQuery, request.query_params)
        rows = ask("machines for rent", host(provider).host_machines)
        page = told(provider, "machines", rows, params, lambda some: [pages.host_machine(each) for each in some])
        return Response(page)


class MachineOfferView(StaffView):
    @extend_schema(
        operation_id="offer_machine", tags=["providers"], summary="Put one of our machines up for rent",
        request=OfferMachineBody, parameters=[IDEMPOTENCY_KEY], responses={200: ChangedSchema, **failures(409)},
        examples=[
            request_example({"price_per_gpu_hour": 0.4, "min_bid_per_gpu_hour": 0.2}),
            example(documented.changed("machine offered")),
        ],
    )  # fmt: skip
    def post(self, request: Request, provider: str, machine_id: str) -> Response:
        """Dollars per GPU and hour."""
        terms = in_vendors_words(read_body(OfferMachineBody, request))
        owner, price = host(provider), terms.pop("price_gpu")

        def act() -> Answer:
            ask("machine for rent", lambda: owner.offer_machine(machine_id, price, **terms))
            note(request, provider, "machine offered", machine_id=machine_id[:40], price_gpu=str(price))
            return Answer(200, {"message": "machine offered", "provider": provider})

        return claimed(request, act)

    @extend_schema(
        operation_id="update_machine_offer", tags=["providers"], summary="Change the terms of a machine up for rent",
        request=MachineOfferBody, responses={200: ChangedSchema, **failures()},
        examples=[request_example({"min_bid_per_gpu_hour": 0.25}), example(documented.changed("machine updated"))],
    )  # fmt: skip
    def put(self, request: Request, provider: str, machine_id: str) -> Response:
        """Only what is named changes; who rents the machine now keeps the price agreed."""
        terms = in_vendors_words(read_body(MachineOfferBody, request))
        if not terms:
            raise ApiError(400, "nothing to change")
        owner, only_bid = host(provider), set(terms) == {"price_min_bid"}
        if only_bid:
            ask("machine for rent", lambda: owner.set_min_bid(machine_id, terms["price_min_bid"]))
        else:
            ask("machine for rent", lambda: owner.update_machine_offer(machine_id, terms))
        note(request, provider, "machine updated", machine_id=machine_id[:40], fields=sorted(terms))
        return Response({"message": "machine updated", "provider": provider})

    @extend_schema(
        operation_id="withdraw_machine", tags=["providers"], summary="Take a machine off the market",
        responses={200: ChangedSchema, **failures()}, examples=[example(documented.changed("machine withdrawn"))],
    )  # fmt: skip
    def delete(self, request: Request, provider: str, machine_id: str) -> Response:
        """Who rents it now keeps it."""
        owner = host(provider)
        ask("machine for rent", lambda: owner.withdraw_machine_offer(machine_id))
        note(request, provider, "machine withdrawn", machine_id=machine_id[:40])
        return Response({"message": "machine withdrawn", "provider": provider})


def holder(provider: str) -> HoldsAccountKeys:
    found = known(provider)
    if not isinstance(found, HoldsAccountKeys):
        raise lacking(provider, "account SSH keys")
    return found


def editing(provider: str) -> EditsTemplates:
    found = known(provider)
    if not isinstance(found, EditsTemplates):
        raise lacking(provider, "templates of its own")
    return found


def host(provider: str) -> RentsOutMachines:
    found = known(provider)
    if not isinstance(found, RentsOutMachines):
        raise lacking(provider, "machines that the account rents out")
    return found


def in_vendors_words(body: dict[str, Any]) -> dict[str, Any]:
    """The terms under the vendor's names."""
    return {TERMS[name]: value for name, value in body.items()}
