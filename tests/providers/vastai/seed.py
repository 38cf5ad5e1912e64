"""The seed's document (``seed_lowcodeapi.txt``, as it was given) as data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

DOCUMENT = (Path(__file__).parent / "seed_lowcodeapi.txt").read_text()
_OPERATION = re.compile(
    r"#### (?P<title>.+)\n"
    r"\*\*Method\*\*: `(?P<method>[A-Z]+)` \| \*\*LowCodeAPI Path\*\*: `(?P<path>[^`]+)`\n"
    r"\*\*Full URL\*\*:\n```\n(?P<url>\S+)\n```\n"
    r"(?P<rest>(?:(?!#### |### ).*\n)*)"
)
_BODY = re.compile(r"\*\*Request Body\*\*:\n```json\n(.*?)```", re.DOTALL)
_CATEGORY = re.compile(r"^- \*\*(.+)\*\* - (\d+) endpoints$", re.MULTILINE)


@dataclass(frozen=True)
class Operation:
    """``body`` holds the documented keys; ``free``: any keys (``"key": "value"`` in the document)."""

    title: str
    method: str
    path: str
    query: frozenset[str]
    body: frozenset[str]
    free: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _operation(match: re.Match[str]) -> Operation:
    url = urlsplit(match["url"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://api.lowcodeapi.com/vastai" + match["path"]
    body = _BODY.search(match["rest"])
    keys = frozenset(json.loads(body[1])) if body else frozenset()
    query = frozenset(name for name, _ in parse_qsl(url.query, keep_blank_values=True))
    free = keys == {"key"}
    return Operation(match["title"], match["method"], match["path"], query, frozenset() if free else keys, free)


OPERATIONS = tuple(_operation(match) for match in _OPERATION.finditer(DOCUMENT))
#: Category -> number of operations, as the document's own table of contents has it.
CATEGORIES = {name: int(number) for name, number in _CATEGORY.findall(DOCUMENT)}
