"""Launch templates (Vast.ai contract, section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers import fields
from providers.base import TemplateData
from providers.errors import InvalidRequest, ListingIncomplete, NotFound
from providers.vastai.caller import PAGE_WAIT, WHOLE, Part, read_note
from providers.vastai.records import TemplateRef
from providers.vastai.reply import Reply
from providers.vastai.users import Users


class Templates(Users):
    """The account's own templates and the public ones."""

    def list_templates(self, select_filters: Mapping[str, Any] | None = None) -> tuple[TemplateData, ...]:
        """Launch templates, section 5.1. Thousands of other people's are public and there is no paging, so without
        filters these are asked for in two calls: the account's own, and those that the vendor recommends.
        The hash changes with every edit; the id stays."""
        if select_filters is not None:
            return self._templates(select_filters)
        own = self._templates({"creator_id": {"eq": int(self.current_user(wait=PAGE_WAIT).user_id)}})
        recommended = self._templates({"recommended": {"eq": True}})
        return tuple({each.provider_id: each for each in (*recommended, *own)}.values())

    def template_page(self, part: Part = WHOLE) -> tuple[TemplateData, ...]:
        """Some templates: those of one owner, or of all; the vendor itself has no pages, the gateway may have."""
        if self._transport.supports("template_page"):
            return self._transport.send("template_page", _read_templates, params=part.params())
        owner = self._id("template_page", part.owner_id) if part.owner_id else ""
        return part.of(self.list_templates({"creator_id": {"eq": int(owner)}} if owner else None))

    def template(self, template_id: str) -> TemplateData:
        """One template by its number; ``NotFound`` when there is none."""
        known_id = self._id("template", template_id)
        if self._transport.supports("template"):
            found = self._transport.send("template", _read_templates, known_id)
        else:
            found = self._templates({"id": {"eq": int(known_id)}})
        for each in found:
            if str(each.provider_id) == known_id:
                return each
        raise self._error(NotFound, "template", "there is no such template")

    def create_template(self, name: str, image: str, **content: Any) -> TemplateRef:
        """A new template; ``content`` in the vendor's names (``env`` is a text of docker flags here, ``extra_filters``
        an object). One with the same content exists already: it is returned."""
        if not name.strip() or not image.strip():
            raise self._error(InvalidRequest, "create_template", "a template needs a name and an image")
        return self._transport.send("create_template", _read_ref, json={"name": name, "image": image, **content})

    def update_template(self, template_id: str, changes: Mapping[str, Any]) -> TemplateRef:
        """Change some of a template's content. Its hash changes with it, and the vendor wants the present one: it is
        looked up first. ``NotFound`` when there is no such template."""
        if not changes:
            raise self._error(InvalidRequest, "update_template", "nothing to change")
        present = self.template(template_id)
        body = {"hash_id": present.hash_id, **changes}
        return self._transport.send("update_template", _read_ref, str(present.provider_id), json=body)

    def delete_template(self, template_id: str) -> str:
        """Remove one's own template; ``NotFound`` when there is none."""
        known_id = self._id("delete_template", template_id)
        return self._transport.send("delete_template", read_note, known_id, json={"template_id": int(known_id)})

    def _templates(self, select_filters: Mapping[str, Any]) -> tuple[TemplateData, ...]:
        params = {"select_cols": ["*"], "select_filters": select_filters}
        return self._transport.send("list_templates", _read_templates, params=params, wait=PAGE_WAIT)


def _read_templates(reply: Reply) -> tuple[TemplateData, ...]:
    rows = reply.object().get("templates")
    if not isinstance(rows, list):
        raise reply.malformed("no list under 'templates'")
    known = tuple(template for row in rows if (template := _template(row)))
    if len(known) < len(rows):
        raise reply.error(ListingIncomplete, f"{len(rows) - len(known)} templates cannot be understood")
    return known


def _template(row: object) -> TemplateData | None:
    if not isinstance(row, dict):
        return None
    template_id, hash_id = fields.identifier(row.get("id")), fields.text(row.get("hash_id"), 200)
    if not template_id or not hash_id:
        return None
    return TemplateData(
        provider_id=int(template_id),
        hash_id=hash_id,
        name=fields.text(row.get("name")),
        image=fields.text(row.get("image")),
        raw=fields.json_safe(row),
    )


def _read_ref(reply: Reply) -> TemplateRef:
    row = reply.object().get("template")
    template_id = fields.identifier(row.get("id")) if isinstance(row, dict) else ""
    hash_id = fields.text(row.get("hash_id"), 200) if isinstance(row, dict) else ""
    if not template_id or not hash_id:
        raise reply.malformed("no template in the answer")
    return TemplateRef(int(template_id), hash_id)
