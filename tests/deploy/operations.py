"""docs/operations.md as a program: its blocks of commands and files, by the heading that they stand under."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.stack import ROOT

DOCUMENT = ROOT / "docs" / "operations.md"
#: What a reader puts their own in the place of.
NAME, CLONED, KEY, PRESENTED = (
    "broker.example.com", "https://git.example.com/you/gpubroker.git", "YOUR-VAST-KEY", "gpb_...",
)  # fmt: skip
PUBLISHED = "127.0.0.1:8080"
_PART = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    heading: str
    language: str
    text: str


def blocks() -> list[Block]:
    found: list[Block] = []
    heading = ""
    for part in _PART.finditer(DOCUMENT.read_text()):
        if part["heading"]:
            heading = part["heading"]
        else:
            found.append(Block(heading, part["language"], part["text"]))
    return found


def shell(heading: str) -> list[str]:
    """The commands under a heading, a text for each block."""
    return [block.text for block in blocks() if block.heading == heading and block.language == "sh"]


def caddyfile() -> str:
    (text,) = [block.text for block in blocks() if block.text.startswith(NAME)]
    return text


def override() -> str:
    (text,) = [block.text for block in blocks() if block.language == "yaml"]
    return text


@dataclass(frozen=True)
class Asked:
    """A ``docker compose`` of the document, in a block or in a sentence."""

    text: str
    #: Of ``docker compose`` itself: each takes a value.
    options: dict[str, str]
    verb: str
    #: Of the verb.
    flags: list[str]
    services: list[str]


def _asked(text: str) -> Asked:
    words = text.split()
    options = {}
    while words[0].startswith("--"):
        options[words.pop(0)] = words.pop(0)
    verb = words.pop(0)
    flags = []
    while words and words[0].startswith("-"):
        flags.append(words.pop(0))
    # What comes after the service of an `exec` is that service's own business.
    return Asked(text, options, verb, flags, words[:1] if verb == "exec" else words)


def compose_lines() -> list[Asked]:
    sentences = _PART.sub("", DOCUMENT.read_text()).replace("\n", " ")
    spoken = re.findall(r"`docker compose ([^`]+)`", sentences)
    in_blocks = re.findall(r"docker compose ([^|&<>()\n]+)", "\n".join(block.text for block in blocks()))
    return [_asked(line.strip()) for line in dict.fromkeys([*in_blocks, *spoken])]
