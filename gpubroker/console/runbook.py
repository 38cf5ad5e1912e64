"""docs/runbook.md as a page, so that what an alert or the review queue speaks of is one click away."""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_safe

#: What the file is written in: bold, emphasis, code, and links, of which only the text is shown.
_INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<!\*)\*([^*]+)\*(?!\*)"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
)


def _file() -> Path:
    """In the repository, or where the wheel puts it (pyproject.toml)."""
    source = Path(settings.BASE_DIR) / "docs" / "runbook.md"
    return source if source.is_file() else Path(settings.BASE_DIR) / "gpubroker" / "runbook.md"


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    path = _file()
    sections = read(path.read_text(encoding="utf-8")) if path.is_file() else []
    context = {**admin.site.each_context(request), "title": "Runbook", "sections": sections}
    return TemplateResponse(request, "console/runbook.html", context)


def read(text: str) -> list[dict[str, object]]:
    """The sections of the file: ``level``, ``title``, ``anchor`` as alerts name it, and ``blocks``, each a paragraph
    (``text``) or a list (``points``)."""
    sections: list[dict[str, object]] = []
    for part in re.split(r"^(?=#{1,2} )", text, flags=re.MULTILINE):
        heading, _, body = part.partition("\n")
        marks, _, title = heading.partition(" ")
        if title:
            blocks = [_block(each) for each in re.split(r"\n\s*\n", body.strip()) for each in _apart(each) if each]
            sections.append({"level": len(marks), "title": title, "anchor": title.lower(), "blocks": blocks})
    return sections


def _apart(text: str) -> list[str]:
    """A paragraph and the list that follows it without an empty line."""
    head, found, tail = text.partition("\n- ") if not text.startswith("- ") else ("", "", text)
    return [head, f"- {tail}" if found else tail]


def _block(text: str) -> dict[str, object]:
    if text.startswith("- "):
        return {"points": [_inline(point) for point in re.split(r"\n- ", text[2:])]}
    return {"text": _inline(text)}


def _inline(text: str) -> SafeString:
    marked: str = escape(" ".join(text.split()))
    for pattern, by in _INLINE:
        marked = pattern.sub(by, marked)
    return mark_safe(marked)  # noqa: S308 - escaped above, and only the tags of the table were added
