"""Failures that a person must act on. Each is one plain sentence; commands print it without a traceback."""

from __future__ import annotations


class SettingsError(Exception):
    """One plain sentence that names the setting, what it got and what it wants."""


class StartFailure(Exception):
    """The stack cannot run: one sentence that says why, and the exit code to leave with."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code
