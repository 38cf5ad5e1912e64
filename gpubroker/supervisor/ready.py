"""Asks our own web server whether it serves yet."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from gpubroker.supervisor.facts import Facts


def _get(address: str, path: str, timeout: float, api_key: str = "") -> tuple[int, bytes]:
    """Status and body; status 0 when nobody answers."""
    split = urlsplit(address)
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def is_ready(facts: Facts) -> bool:
    return _get(facts.address, "/ready", timeout=1.0)[0] == http.client.OK


def has_offers(facts: Facts, api_key: str = "") -> bool:
    """Is there something to rent? A closed API does not tell us without a key, so then we do not wait for it."""
    if facts.api_auth != "open" and not api_key:
        return True
    status, body = _get(facts.address, "/api/v1/inventory?limit=1", timeout=1.0, api_key=api_key)
    try:
        return status == http.client.OK and bool(json.loads(body)["offers"])
    except (ValueError, KeyError, TypeError):
        return False
