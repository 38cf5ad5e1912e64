"""Logs: text for people, JSON for machines, with the ids of the request, session and rental that a line belongs to."""

from __future__ import annotations

import contextvars
import logging
import logging.config
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

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


class ContextFilter(logging.Filter):
    """Puts the context's ids on the record: as fields for JSON, as a suffix for text."""

    def filter(self, record: logging.LogRecord) -> bool:
        ids = _context.get()
        for name, value in ids.items():
            setattr(record, name, value)
        record.ids = "".join(f" {name}={value}" for name, value in ids.items())
        return True


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
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(ids)s", "datefmt": "%H:%M:%S"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
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
                "django.request": {"level": "ERROR", "filters": ["not_unavailable"]},
            },
        }
    )
