"""What a network and its proxies make of a good answer: the same for every vendor."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from providers.sandbox.faults import Fault
from providers.sandbox.replies import json_reply


def proxy_error(status: int) -> web.Response:
    """What a web server in front answers when it loses the application: HTML, whatever was asked for."""
    headline = f"{status} {HTTPStatus(status).phrase}"
    page = (
        f"<html>\r\n<head><title>{headline}</title></head>\r\n<body>\r\n<center><h1>{headline}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return web.Response(text=page, status=status, content_type="text/html")


async def spoil(request: web.Request, fault: Fault, answer: web.Response) -> web.StreamResponse:
    """The answer as an ``AFTER`` fault leaves it."""
    if fault.kind == "error_after":
        return proxy_error(int(fault.params.get("status", 502)))
    if fault.kind == "malformed":
        return json_reply(fault.params.get("body", ["unexpected"]))
    text = answer.text or ""
    if fault.kind == "truncated_json":
        half = text[: max(1, len(text) // 2)]
        if not fault.params.get("mid_stream"):
            return web.Response(body=half.encode(), status=answer.status, headers={"Content-Type": "application/json"})
        broken = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        await broken.prepare(request)
        await broken.write(half.encode())
    if request.transport is not None:
        request.transport.abort() if fault.kind == "lost_answer" else request.transport.close()
    return web.Response(status=200)
