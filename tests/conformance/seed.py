"""The seed's own examples, and what it takes for an answer to have an example's shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

EXAMPLES: dict[str, Any] = json.loads((Path(__file__).parent / "seed_examples.json").read_text())
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)")


def differences(example: Any, answer: Any, path: str = "$") -> list[str]:
    """Where the answer lacks a field of the example, or has another type in its place. Further fields are allowed;
    the order of fields does not matter; a whole number may stand where the example has a fraction."""
    if isinstance(example, dict):
        if not isinstance(answer, dict):
            return [f"{path}: {answer!r} is no object"]
        by_name = path.endswith(("by_provider", "by_gpu_type"))  # its keys are data
        keys = list(answer) if by_name else list(example)
        models = {key: next(iter(example.values())) if by_name else example[key] for key in keys}
        found = [f"{path}.{key} is missing" for key in keys if key not in answer]
        for key in keys:
            found += differences(models[key], answer[key], f"{path}.{key}") if key in answer else []
        return found
    if isinstance(example, list):
        if not isinstance(answer, list):
            return [f"{path}: {answer!r} is no list"]
        return [each for index, item in enumerate(answer) for each in _item(example, item, f"{path}[{index}]")]
    return _scalar(example, answer, path)


def _item(example: list[Any], item: Any, path: str) -> list[str]:
    return differences(example[0], item, path) if example else []


def _scalar(example: Any, answer: Any, path: str) -> list[str]:
    if isinstance(example, float):
        good = isinstance(answer, int | float) and not isinstance(answer, bool)
    else:
        good = type(answer) is type(example)
    if good and isinstance(example, str) and TIMESTAMP.fullmatch(example):
        good = bool(TIMESTAMP.fullmatch(answer))
    return [] if good else [f"{path}: {answer!r} where the seed has {example!r}"]


def assert_like(name: str, answer: Any) -> None:
    assert differences(EXAMPLES[name], answer) == []
