"""Names that people read in lists, terminals and logs: of consumers, and of keys."""

from __future__ import annotations

import unicodedata
from typing import Any

from rest_framework import serializers

from gpubroker.common.api import StrictCharField

#: Controls (which move a terminal's cursor), format characters (which hide or turn text around: two names that look
#: the same), line and paragraph separators, halves of surrogate pairs.
HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
REASON = "must not contain control or invisible characters"


def is_plain(name: str) -> bool:
    return not any(unicodedata.category(character) in HIDDEN for character in name)


class NameField(StrictCharField):
    """A string whose every character can be seen."""

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if not is_plain(name):
            raise serializers.ValidationError(REASON)
        return name
