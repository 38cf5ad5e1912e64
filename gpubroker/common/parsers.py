"""Request bodies: JSON, and only what JSON allows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser


class NotJson(ValueError):
    """What Python would take for JSON and no standard does."""


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotJson("a number is too large")
    return number


class StrictJSONParser(BaseParser):
    """UTF-8 JSON without NaN, infinities or lone surrogates, nested no deeper than Python can follow."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        request = (parser_context or {}).get("request")
        coding = request.headers.get("Content-Encoding", "") if request is not None else ""
        if coding.strip().lower() not in ("", "identity"):
            # Never unpacked: a few kilobytes can hold gigabytes.
            raise UnsupportedMediaType(coding, "send the body plain: a Content-Encoding is not understood")
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise RequestDataTooBig
        try:
            text = raw.decode("utf-8")
            value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeDecodeError:
            raise ParseError("the body is not UTF-8") from None
        except UnicodeEncodeError:
            raise ParseError("a string holds half of a surrogate pair") from None
        except RecursionError:
            raise ParseError("the body is nested too deeply") from None
        except (json.JSONDecodeError, NotJson) as error:
            raise ParseError(str(error)) from None
        except ValueError:  # thousands of digits, which Python refuses to read
            raise ParseError("a number is too long") from None
        return value
