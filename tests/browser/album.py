"""Pictures of the console. ``make screenshots`` keeps them in docs/pictures; a test run throws them away."""

from __future__ import annotations

import os
from pathlib import Path

from tests.browser.tab import DESKTOP, Size, Tab

#: Where pictures are kept, by its name in the environment.
INTO = "PICTURES_INTO"
#: Bytes of one picture, and of all of them: they are downloaded with every clone.
LARGEST, ALL = 150_000, 2_000_000


class Album:
    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.environ.get(INTO) or folder)

    def keep(self, tab: Tab, name: str, size: Size = DESKTOP) -> None:
        """What the tab shows now, without what only the mouse brought about."""
        tab.sized(size)
        tab.do(lambda page: page.mouse.move(0, 0))
        picture = self.folder / f"{name}.png"
        tab.photo(picture)
        assert picture.stat().st_size <= LARGEST, f"{name} is too large: {picture.stat().st_size} bytes"
