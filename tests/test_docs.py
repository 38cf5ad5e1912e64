"""The documents tell the truth: the first session is the one that is printed, and every setting is listed."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_holds_the_first_session_word_for_word() -> None:
    script = (ROOT / "gpubroker" / "supervisor" / "first_session.sh").read_text()
    assert f"```sh\n{script}```" in (ROOT / "README.md").read_text()


def test_every_setting_stands_in_the_example_and_every_example_is_a_setting() -> None:
    code = (ROOT / "gpubroker" / "settings" / "__init__.py").read_text()
    code += (ROOT / "gpubroker" / "settings" / "env.py").read_text()
    read = set(re.findall(r"read(?:er)?\.\w+\(\s*\"([A-Z][A-Z_]+)\"", code))
    listed = set(re.findall(r"^#?([A-Z][A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert len(read) > 25
    assert listed == read
