"""What every API view shares: strict numbers, query parameters that are refused by name, waiting for a verdict."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.http import QueryDict
from rest_framework import exceptions, serializers
from rest_framework.request import Request

from gpubroker.common import clock
from gpubroker.common.errors import ApiError, BadField, first_problem
from gpubroker.common.providers import KNOWN

T = TypeVar("T")
MAX_WAIT_SECONDS = 60.0
#: Between two looks: quick at first, as most verdicts come soon, then slower: each look is a question to the database.
POLL_SECONDS, MOST_POLL_SECONDS, POLL_GROWTH = 0.05, 0.2, 1.1


class FiniteFloatField(serializers.FloatField):
    """A float that refuses NaN and the infinities, which compare as in range."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool):
            raise serializers.ValidationError("a valid number is required")
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            raise serializers.ValidationError("must be a finite number")
        return value


class StrictIntegerField(serializers.IntegerField):
    """An integer in JSON: neither a boolean nor a string nor 2.0."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("must be a whole number")
        return super().to_internal_value(data)


class StrictCharField(serializers.CharField):
    """A string in JSON: numbers are not quietly turned into text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a string")
        return super().to_internal_value(data)


class StrictBooleanField(serializers.BooleanField):
    """true or false in JSON, not their many spellings."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("must be true or false")
        return data


class ProviderField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=KNOWN, **kwargs)


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(required=False, min_value=1, max_value=100_000, help_text="Most results")
    offset = serializers.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="Results to skip (for paging)"
    )


@functools.cache
def _form(serializer: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """One for all requests: making its fields is most of the work, and checking values leaves nothing in it."""
    return serializer()


def read_query(serializer: type[serializers.Serializer[Any]], params: QueryDict) -> dict[str, Any]:
    """Validated query parameters; 400 names the parameter and what it got. Unknown ones are ignored."""
    form = _form(serializer)
    given = {str(name): params[str(name)] for name in form.fields if str(name) in params}
    for name, value in given.items():
        if "\x00" in value:
            raise BadField(name, "must not contain NUL characters")
    try:
        return dict(form.run_validation(given))
    except exceptions.ValidationError as error:
        field, sentence = first_problem(error.detail)
        reason = sentence[:1].lower() + sentence[1:].rstrip(".")
        raise BadField(field, f"{reason}, got {given.get(field, '')[:80]!r}") from None


def read_body(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The validated JSON body; 400 names the field."""
    data = request.data
    if not isinstance(data, dict):
        raise ApiError(400, f"the body must be a JSON object, not {type(data).__name__}")
    form = serializer(data=data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


def wait_budget(request: Request, default: float) -> float:
    """Seconds that this request may wait: ``Prefer: wait=N`` (at most 60), else ``default``."""
    preferred = re.search(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])", request.headers.get("Prefer", ""))
    return min(float(preferred[1]), MAX_WAIT_SECONDS) if preferred else default


def wait_until(look: Callable[[], T | None], seconds: float) -> T | None:
    """``look`` again and again until it gives something or the budget is used up. Work goes on without us."""
    deadline, pause = time.monotonic() + seconds, POLL_SECONDS
    while True:
        found = look()
        if found is not None or time.monotonic() >= deadline:
            return found
        clock.pause(pause)
        pause = min(pause * POLL_GROWTH, MOST_POLL_SECONDS)
