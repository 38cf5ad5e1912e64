"""Logs: text for people, JSON for machines, with the ids of the request, session and rental that a line belongs to.

No secret and no forged line gets through: see :func:`cleaned` and :class:`TextFormatter`.
"""

from __future__ import annotations

import contextvars
import logging
import logging.config
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from pythonjsonlogger.json import JsonFormatter as BaseJsonFormatter

from providers.redact import without_secrets

_context: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "log_context", default=MappingProxyType({})
)


@contextmanager
def context(**ids: str) -> Iterator[None]:
    """Every log line inside the block carries these ids (``request_id``, ``session_id``, ``rental_id``)."""
    token = _context.set({**_context.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


def current(name: str) -> str:
    return _context.get().get(name, "")


def bound() -> dict[str, str]:
    """All ids of the current context, to be carried elsewhere."""
    return dict(_context.get())


class ContextFilter(logging.Filter):
    """Puts the context's ids on the record: as fields for JSON, as a suffix for text."""

    def filter(self, record: logging.LogRecord) -> bool:
        ids = _context.get()
        for name, value in ids.items():
            setattr(record, name, value)
        record.ids = "".join(f" {name}={one_line(without_secrets(value))}" for name, value in ids.items())
        return True


#: What a line of text may not hold: controls, line and paragraph separators, marks that turn text around, halves of
#: surrogate pairs.
_CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
#: Attributes that every record has; whatever else is on one came from ``extra``.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "ids"}


def one_line(text: str) -> str:
    """``text`` with every character that could end or disguise a line written as an escape."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def cleaned(record: logging.LogRecord) -> logging.LogRecord:
    """A copy without secrets, its message already made: what :func:`without_secrets` knows is gone from the message,
    its arguments, exception texts, stack and extra fields."""
    clean = logging.makeLogRecord(vars(record))
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001 - whatever an argument raises, the line is kept
        message = f"{record.msg} (arguments do not fit: {type(error).__name__})"
    clean.msg, clean.args = without_secrets(message), None
    if record.exc_info and not record.exc_text:
        clean.exc_text = logging.Formatter().formatException(record.exc_info)
    clean.exc_info = None
    clean.exc_text = without_secrets(clean.exc_text) if clean.exc_text else None
    clean.stack_info = without_secrets(clean.stack_info) if clean.stack_info else None
    for name in set(vars(clean)) - _USUAL:
        value = getattr(clean, name)
        if not isinstance(value, (int, float, type(None))):
            setattr(clean, name, without_secrets(str(value)))
    return clean


class TextFormatter(logging.Formatter):
    """For people. A record is one line, and what follows of an exception is indented: no text can pass for a line."""

    def format(self, record: logging.LogRecord) -> str:
        clean = cleaned(record)
        clean.msg = one_line(str(clean.msg))
        more = [text for text in (clean.exc_text, clean.stack_info) if text]
        clean.exc_text = clean.stack_info = None
        lines = [one_line(line) for text in more for line in text.split("\n")]
        return "\n    ".join([super().format(clean), *lines])


class JsonFormatter(BaseJsonFormatter):
    """For machines: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(cleaned(record))


class NotUnavailable(logging.Filter):
    """Drops Django's line for every 503: they are our own considered answers, each logged where it is decided."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


def configure(options: dict[str, Any]) -> None:
    """Called by Django with ``settings.LOGGING``: ``{"level": ..., "format": auto|text|json}``."""
    form = options["format"]
    if form == "auto":
        form = "text" if sys.stderr.isatty() else "json"
    formatters: dict[str, Any] = {
        "text": {
            "()": "gpubroker.common.logs.TextFormatter",
            "format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(ids)s",
            "datefmt": "%H:%M:%S",
        },
        "json": {
            "()": "gpubroker.common.logs.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
            "datefmt": "%Y-%m-%dT%H:%M:%S%z",
        },
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {
                "context": {"()": "gpubroker.common.logs.ContextFilter"},
                "not_unavailable": {"()": "gpubroker.common.logs.NotUnavailable"},
            },
            "formatters": formatters,
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form, "filters": ["context"]}},
            "root": {"level": options["level"], "handlers": ["stderr"]},
            "loggers": {
                # paramiko reports every refused key as an error; our own line says what it means.
                "paramiko": {"level": "CRITICAL"},
                "celery.worker.strategy": {"level": "WARNING"},
                "celery.app.trace": {"level": "WARNING"},
                "celery.beat": {"level": "WARNING"},
                # A traceback for each request with a strange Host would let anybody fill the disk; the answer says it.
                "django.security.DisallowedHost": {"level": "CRITICAL"},
                "django.request": {"level": "ERROR", "filters": ["not_unavailable"]},
            },
        }
    )
