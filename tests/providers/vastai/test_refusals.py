"""Every refusal of the contract's sections 1.3 and 1.4, at the operation where it is met."""

from typing import Any

import pytest

from providers.base import LaunchOrder
from providers.errors import (
    AuthError,
    InsufficientCredit,
    InvalidRequest,
    NotFound,
    NotSupported,
    OfferGone,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Unavailable,
)
from tests.providers.vastai.conftest import Vendor

ORDER = LaunchOrder(offer_id="29907796", label="gpb-prod-abcdefghijklmn27-1", image="img:1", disk_gb=20)


def refused(error: str = "", msg: str = "", **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"success": False, **more}
    return body | ({"error": error} if error else {}) | ({"msg": msg} if msg else {})


CREATE_REFUSALS: list[tuple[int, Any, type[ProviderError]]] = [
    (403, refused("auth_error", "This action requires login."), AuthError),
    (404, refused("auth_error", "Invalid user key"), AuthError),
    (401, refused("auth_error", "Invalid user key"), AuthError),
    (404, refused(msg="Session expired. Please log in again."), AuthError),
    (401, refused(msg="Two Factor Authentication is needed"), AuthError),
    (401, "Unauthorized", AuthError),
    (403, refused("auth_error", "Your key lacks credit permissions"), AuthError),
    (403, refused("not_authorized", "no"), AuthError),
    (400, refused("insufficient_credit", "Your account lacks credit; see the billing page."), InsufficientCredit),
    (400, refused(msg="Your account lacks credit; see the billing page."), InsufficientCredit),
    (400, refused("missing_billing"), InsufficientCredit),
    (400, refused("spend_rate_limit", "new accounts may spend less"), InsufficientCredit),
    (411, refused(msg="Insufficient credit"), InsufficientCredit),
    (200, refused("insufficient_credit", "Your account lacks credit"), InsufficientCredit),
    (
        400,
        refused(
            "invalid_args",
            "error 404/3603: no_such_ask  Instance type by id 29907796 is not available.",
            ask_id=29907796,
        ),
        OfferGone,
    ),
    (404, refused("no_such_ask", "error 404/3603: no_such_ask  Instance type by id 1 is not available."), OfferGone),
    (410, refused("no_such_ask", "error 410/3907: no_such_ask Instance type 1 is no longer available."), OfferGone),
    (410, refused("invalid_args", "taken"), OfferGone),
    (200, refused("no_such_ask", "gone"), OfferGone),
    (
        403,
        refused("invalid_args", "error 403/3586: Offer 1 is not your own. Hosts can only rent their own."),
        OfferGone,
    ),
    (400, refused("invalid_args", "error 400/3467: Invalid args: disk"), InvalidRequest),
    (400, refused("invalid_price", "too much"), InvalidRequest),
    (400, refused("no_ssh_key_for_vm", "add a key"), InvalidRequest),
    (400, {"error": "invalid_request", "msg": "Invalid json body"}, InvalidRequest),
    (200, refused("invalid_args", "no"), InvalidRequest),
    (200, refused(), InvalidRequest),
    (422, "what?", InvalidRequest),
    (404, {"message": "The resource could not be found.", "code": "404 Not Found", "title": "Not Found"}, NotFound),
    (405, "<h1>Method Not Allowed</h1>", InvalidRequest),
    (429, "API requests too frequent: endpoint threshold=4.5*1.0", RateLimited),
    (500, refused("server_error", "Something went wrong on the server"), OutcomeUnknown),
    (502, "<html>Bad Gateway</html>", OutcomeUnknown),
]


@pytest.mark.parametrize(("status", "body", "kind"), CREATE_REFUSALS)
def test_create_refused(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("PUT", "/v0/asks/29907796/", body, status)
    error = vendor.refuses(kind, ORDER, call=vendor.client.create)
    assert (error.status, error.operation, error.provider) == (status, "create", "vastai")
    assert error.may_have_happened is (kind is OutcomeUnknown)
    assert len(vendor.sent) == 1
    assert vendor.observer.seen == [("vastai", "create", error.kind)]


def test_the_vendors_words_and_code_are_kept(vendor: Vendor) -> None:
    vendor.answer("PUT", "/v0/asks/29907796/", refused("insufficient_credit", "Your account\nlacks credit"), 400)
    error = vendor.refuses(InsufficientCredit, ORDER, call=vendor.client.create)
    assert (error.message, error.code) == ("Your account lacks credit", "insufficient_credit")
    assert str(error) == "vastai create: Your account lacks credit (HTTP 400)"


LIST_REFUSALS: list[tuple[int, Any, type[ProviderError]]] = [
    (410, refused("deprecated_endpoint", "/api/v0/instances/ is deprecated. Use v1 instead."), NotSupported),
    (404, refused("auth_error", "Invalid user key"), AuthError),
    (400, refused("invalid_request", "Error in query parameters: dph_total is not a valid search key"), InvalidRequest),
    (400, refused("invalid_token", "Invalid pagination token"), InvalidRequest),
    (200, refused(instances=[], total_instances=0, next_token=None), InvalidRequest),
    (404, "<h1>404</h1>", NotFound),
    (503, "", Unavailable),
]


@pytest.mark.parametrize(("status", "body", "kind"), LIST_REFUSALS)
@pytest.mark.parametrize("call", ["list_instances", "find_by_label"])
def test_a_refused_listing_is_never_empty(
    vendor: Vendor, call: str, status: int, body: Any, kind: type[ProviderError]
) -> None:
    vendor.answer("GET", "/v1/instances/", body, status)
    arguments = {"list_instances": [], "find_by_label": ["gpb-x"]}[call]
    vendor.refuses(kind, *arguments, call=getattr(vendor.client, call))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, refused("auth_error", "Invalid user key"), AuthError),
        (400, {"error": "invalid_request", "msg": "0 is not a valid search op"}, InvalidRequest),
        (429, "", RateLimited),
        (502, "<html>", Unavailable),
    ],
)
def test_search_refused(vendor: Vendor, status: int, body: Any, kind: type[ProviderError]) -> None:
    vendor.answer("POST", "/v0/bundles/", body, status)
    vendor.refuses(kind, call=vendor.client.list_offers)
