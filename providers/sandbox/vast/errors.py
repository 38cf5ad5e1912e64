"""How Vast.ai says no: its own envelopes and its framework's (Vast.ai contract, sections 1.3 to 1.5)."""

from __future__ import annotations

from html import escape
from typing import Any

from aiohttp import web

from providers.sandbox.replies import json_reply

_EXPLANATIONS = {
    404: ("Not Found", "The resource could not be found."),
    405: ("Method Not Allowed", "The method {method} is not allowed for this resource."),
    429: (
        "Too Many Requests",
        "The action could not be performed because there were too many requests by the client.",
    ),
    500: (
        "Internal Server Error",
        "The server has either erred or is incapable of performing the requested operation.",
    ),
    502: ("Bad Gateway", "Bad gateway."),
    503: ("Service Unavailable", "The server is currently unavailable. Please try again at a later time."),
    504: ("Gateway Timeout", "The gateway has timed out."),
}


class VastError(Exception):
    """Ends a call with the vendor's own envelope; ``success=None`` leaves that field out."""

    def __init__(self, status: int, error: str | None, msg: str, *, success: bool | None = False, **extra: Any) -> None:
        super().__init__(msg)
        self.status = status
        self.body: dict[str, Any] = {} if success is None else {"success": success}
        if error is not None:
            self.body["error"] = error
        self.body["msg"] = msg
        self.body.update(extra)

    def answer(self) -> web.Response:
        return json_reply(self.body, status=self.status)


def invalid_request(message: str) -> VastError:
    """A search that the server cannot read; these come without ``success``."""
    return VastError(400, "invalid_request", message, success=None)


def no_such_instance(contract_id: int, status: int = 404) -> VastError:
    return VastError(status, "no_such_instance", f"Instance {contract_id} not found.")


def offer_gone(ask_id: int, shape: str) -> VastError:
    """The three shapes that have been seen for one and the same thing."""
    if shape == "auto":
        shape = ("400", "404", "410")[ask_id % 3]
    text = f"error 404/3603: no_such_ask  Instance type by id {ask_id} is not available."
    if shape == "400":
        return VastError(400, "invalid_args", text, ask_id=ask_id)
    if shape == "404":
        return VastError(404, "no_such_ask", text, ask_id=ask_id)
    gone = f"error 410/3907: no_such_ask Instance type {ask_id} is no longer available."
    return VastError(410, "no_such_ask", gone, ask_id=ask_id)


def framework_error(request: web.Request, status: int, detail: str = "") -> web.Response:
    """The page for an error of the HTTP layer."""
    return error_page(status, request.headers.get("Accept", ""), request.method, detail)


def error_page(status: int, accept: str, method: str, detail: str = "") -> web.Response:
    """An error page whose form follows ``Accept``: JSON, plain text or, by default, HTML."""
    title, explanation = _EXPLANATIONS.get(status, ("Error", "An error occurred."))
    explanation = explanation.format(method=method)
    headline = f"{status} {title}"
    if accept == "application/json" or accept.startswith("application/json;"):
        body = {"message": f"{explanation}\n\n{detail}\n\n", "code": headline, "title": title}
        return json_reply(body, status)
    if not accept or accept.startswith("text/plain"):
        text = f"{headline}\n\n{explanation}\n\n\n{detail}\n"
        return web.Response(text=text, status=status, content_type="text/plain")
    page = (
        f"<html>\n <head>\n  <title>{headline}</title>\n </head>\n <body>\n  <h1>{headline}</h1>\n"
        f"  {escape(explanation)}<br/><br/>\n{escape(detail)}\n\n </body>\n</html>"
    )
    return web.Response(text=page, status=status, content_type="text/html")
