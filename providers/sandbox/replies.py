"""JSON answers as the vendors send them: ``application/json`` and no charset (the Vast.ai command line insists)."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web


def json_reply(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": "application/json"})
