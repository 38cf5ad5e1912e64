"""Staff's first page as a browser gets it."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from tests.deploy.door import Outside
from tests.deploy.operations import NAME

LOGIN = "/admin/login/?next=/admin/"


def log_in(outside: Outside, name: str, password: str, forwarded: str = "") -> tuple[int, str | None]:
    """Status and where it sends the browser. ``forwarded`` is a caller's own X-Forwarded-For."""
    _, headers, page = outside("GET", LOGIN)
    cookie = str(headers["Set-Cookie"]).split(";")[0]
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page)
    if token is None:
        raise SystemExit("no form at the login")
    form = {"csrfmiddlewaretoken": token[1].decode(), "username": name, "password": password, "next": "/admin/"}
    more = {"X_Forwarded_For": forwarded} if forwarded else {}
    status, headers, _ = outside(
        "POST", LOGIN, urlencode(form).encode(), Content_Type="application/x-www-form-urlencoded", Cookie=cookie,
        Origin=f"https://{NAME}", Referer=f"https://{NAME}{LOGIN}", **more,
    )  # fmt: skip
    return status, headers["Location"]
