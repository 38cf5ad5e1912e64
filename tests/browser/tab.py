"""One Chromium for a test process, and tabs of it that note whatever goes wrong on a page.

Playwright keeps an event loop running in the thread that uses it, from its start to its stop. In the tests' own thread
Django would then refuse every query, and no other test of the process could run a loop. So the browser lives in a
thread of its own, and each step of a test is carried there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from tests import chromium

T = TypeVar("T")
Role = Literal["button", "link"]
Theme = Literal["light", "dark"]
Size = tuple[int, int]
DESKTOP: Size = (1280, 800)
PHONE: Size = (390, 844)
#: Milliseconds for a step of a page, on a loaded machine.
PATIENCE = 20_000
#: Of a kept picture: few enough for a small file, chosen so that a small red number stays as red as it is.
COLOURS, CHOSEN = 256, Image.Quantize.MAXCOVERAGE
READ: Any = {"use_inner_text": True, "ignore_case": True}
#: All is loaded. Asked in a way that outlives a page's change to the next one.
READY = "() => document.readyState === 'complete' && document.fonts.status === 'loaded'"
#: The theme draws icons by writing their names, which then are part of what a button is called.
ICON_BEFORE, ICON_AFTER = "(?:[a-z0-9_]+ )?", "(?: [a-z]+_[a-z_]+)?"
#: The focused element: what it is called, and whether its focus can be seen (it looks otherwise without).
FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return {name: "", seen: true};
  const words = part => { const own = part.cloneNode(true);
    own.querySelectorAll(".material-symbols-outlined").forEach(icon => icon.remove()); return own.textContent.trim(); };
  const labels = [...(e.labels || [])];
  const name = e.getAttribute("aria-label") || labels.map(words).join(" ") || (e.matches("select") ? "" : words(e))
    || e.title || e.placeholder || e.value || e.name || e.tagName;
  const parts = [e, ...labels];
  parts.forEach(part => { part.style.transition = "none"; });
  const look = () => parts.map(part => { const s = getComputedStyle(part); return [s.outlineStyle, s.outlineWidth,
    s.outlineColor, s.boxShadow, s.borderColor, s.backgroundColor, s.textDecorationLine, s.color].join(); }).join();
  const ring = getComputedStyle(e).outlineStyle;
  const on = look(); e.blur(); const off = look(); e.focus({focusVisible: true, preventScroll: true});
  return {name: name.replace("*", "").trim().replace(/\\s+/g, " "), seen: on !== off || ring === "auto"};
}"""


class Tab:
    """A page in a context of its own, as one person uses it. ``troubles``: everything that should not happen."""

    def __init__(self, browser: Browser, url: str, context: BrowserContext) -> None:
        self.url, self.troubles = url, list[str]()
        self._browser, self._context = browser, context
        self._page = context.new_page()
        context.on("request", self._asked)
        context.on("response", self._answered)
        context.on("console", self._said)
        context.on("weberror", lambda error: self._note(f"error on the page: {error.error}"))

    def _note(self, trouble: str) -> None:
        self.troubles.append(f"{trouble} (at {self._page.url})")

    def _asked(self, request: Request) -> None:
        where = urlsplit(request.url)
        if where.scheme not in ("data", "blob") and f"{where.scheme}://{where.netloc}" != self.url:
            self._note(f"a request to another host: {request.url}")

    def _answered(self, answer: Response) -> None:
        if answer.status >= 500:
            self._note(f"{answer.status} from {answer.url}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"console: {message.text} {message.location}")

    def do(self, step: Callable[[Page], T]) -> T:
        """Whatever Playwright can, in the browser's thread."""
        return self._browser.run(lambda: step(self._page))

    # -- going there and looking -----------------------------------------------------------------------

    def open(self, path: str) -> None:
        """The page, with its scripts run and its fonts there."""
        self.do(lambda page: page.goto(f"{self.url}{path}"))
        self.ready()

    def ready(self) -> None:
        self.do(lambda page: page.wait_for_function(READY))

    def arrives(self, path: str) -> None:
        """Waits until it is there, after something that leads there."""
        self.do(lambda page: page.wait_for_url(lambda url: urlsplit(url).path == path))
        self.ready()

    def path(self) -> str:
        return urlsplit(self.do(lambda page: page.url)).path

    def text(self) -> str:
        """All that can be read on the page."""
        return self.do(lambda page: page.locator("body").inner_text())

    def sees(self, text: str | re.Pattern[str]) -> None:
        """Waits until it can be read, anywhere on the page; capitals are a matter of style."""
        try:
            self.do(lambda page: expect(page.locator("body")).to_contain_text(text, **READ))
        except AssertionError:
            page = " | ".join(self.do(lambda page: page.locator("#main, #page").last.inner_text()).splitlines())
            raise AssertionError(f"{text!r} cannot be read at {self.path()}: {page}") from None

    def lacks(self, name: str, role: Role = "link") -> None:
        """Neither to be followed nor to be pressed."""
        self.do(lambda page: expect(_called(page, role, name)).to_have_count(0))
        self.do(lambda page: expect(_called(page, "button", name)).to_have_count(0))

    def sized(self, size: Size) -> None:
        width, height = size
        self.do(lambda page: page.set_viewport_size({"width": width, "height": height}))

    def prefer(self, theme: Theme) -> None:
        """The person's machine is set to it; a page asks when it is opened."""
        self.do(lambda page: page.emulate_media(color_scheme=theme, reduced_motion="reduce"))

    def too_wide(self) -> int:
        """By how many pixels the page must be moved sideways to be read."""
        return int(self.do(lambda page: page.evaluate("document.documentElement.scrollWidth - innerWidth")))

    def is_dark(self) -> bool:
        """By the brightness of what is behind everything."""
        colour = self.do(lambda page: page.evaluate("getComputedStyle(document.body).backgroundColor"))
        drawn = "c => { const x = document.createElement('canvas').getContext('2d'); x.fillStyle = c; "
        drawn += "x.fillRect(0, 0, 1, 1); return [...x.getImageData(0, 0, 1, 1).data].slice(0, 3); }"
        shades: list[int] = self.do(lambda page: page.evaluate(drawn, colour))
        return sum(shades) < 3 * 128

    def photo(self, into: Path) -> None:
        """What is in the window, as a small PNG."""
        shot = self.do(lambda page: page.screenshot(animations="disabled", caret="hide"))
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        small = picture.quantize(COLOURS, method=CHOSEN, dither=Image.Dither.NONE)
        into.parent.mkdir(parents=True, exist_ok=True)
        small.save(into, optimize=True)

    # -- doing -----------------------------------------------------------------------------------------

    def click(self, name: str, role: Role = "button") -> None:
        """The one that is called so; what it leads to is there when this returns."""
        self.do(lambda page: _called(page, role, name).click())
        self.ready()

    def follow(self, name: str) -> None:
        self.click(name, "link")

    def enter(self, row: str) -> None:
        """Follow the link of a row of a list, which says more than this."""
        self.do(lambda page: _only(page.locator("#result_list").get_by_role("link", name=row)).first.click())
        self.ready()

    def fill(self, label: str, text: str) -> None:
        """The field whose label begins so."""
        self.do(lambda page: _only(page.get_by_label(_begins(label))).fill(text))

    def act(self, action: str, *rows: object) -> None:
        """On a list: tick the rows with these keys, choose the action, run it."""
        for row in rows:
            box = f'input.action-select[value="{row}"]'
            self.do(lambda page, box=box: page.locator(box).check())  # type: ignore[misc]
        self.do(lambda page: page.locator("select[name=action]").select_option(label=action))
        self.click("Run")

    def download(self, name: str, role: Role = "link") -> str:
        """What is saved when it is clicked."""

        def save(page: Page) -> str:
            with page.expect_download() as coming:
                _called(page, role, name).click()
            return Path(coming.value.path()).read_text()

        return self.do(save)

    def press(self, key: str) -> None:
        self.do(lambda page: page.keyboard.press(key))

    def focused(self) -> dict[str, Any]:
        found: dict[str, Any] = self.do(lambda page: page.evaluate(FOCUSED))
        return found

    def tab_to(self, name: str, most: int = 120) -> None:
        """With the Tab key alone, to what is called so; wherever the focus rests on the way, it can be seen."""
        passed = []
        for _ in range(most):
            self.press("Tab")
            at = self.focused()
            passed.append(at["name"])
            assert at["seen"], f"the focus on {at['name']!r} cannot be seen"
            if at["name"] == name:
                return
        raise AssertionError(f"{name!r} is not reached with the Tab key: {passed}")

    # -- its end ---------------------------------------------------------------------------------------

    def log_in(self, session_key: str) -> None:
        """As who has this session of Django's."""
        cookie: Any = {"name": "sessionid", "value": session_key, "url": self.url}
        self._browser.run(lambda: self._context.add_cookies([cookie]))

    def forgive(self, trouble: str) -> None:
        """What the test provoked: it must have been noted, and is taken off the list."""
        self.do(lambda page: page.evaluate("1"))
        found = [told for told in self.troubles if trouble in told]
        assert found, f"{trouble!r} was not seen: {self.troubles}"
        self.troubles = [told for told in self.troubles if told not in found]

    def clean(self) -> None:
        """Nothing went wrong since it was last asked."""
        # An answer from the page comes after all that the page said before.
        self.do(lambda page: page.evaluate("1"))
        troubles, self.troubles = self.troubles, []
        assert troubles == []


def _called(page: Page, role: Role, name: str) -> Locator:
    return _only(page.get_by_role(role, name=re.compile(f"^{ICON_BEFORE}{re.escape(name)}{ICON_AFTER}$")))


def _begins(label: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*{re.escape(label)}")


def _only(found: Locator) -> Locator:
    """What can be seen of them: a page for phones holds some things twice."""
    return found.filter(visible=True)


class Browser:
    """Starts at once; ``stop`` ends it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")
        self._playwright = self.run(lambda: sync_playwright().start())
        program = chromium.path()
        self._chromium = self.run(
            lambda: self._playwright.chromium.launch(executable_path=program, args=chromium.OPTIONS)
        )
        expect.set_options(timeout=PATIENCE)

    def run(self, step: Callable[[], T]) -> T:
        return self._thread.submit(step).result()

    @contextmanager
    def tab(self, url: str) -> Iterator[Tab]:
        """A new person at the console that is served there."""
        context = self.run(self._context)
        try:
            yield self.run(lambda: Tab(self, url, context))
        finally:
            self.run(context.close)

    def _context(self) -> BrowserContext:
        width, height = DESKTOP
        context = self._chromium.new_context(
            viewport={"width": width, "height": height}, locale="en-GB", timezone_id="UTC", reduced_motion="reduce",
            color_scheme="light",
        )  # fmt: skip
        context.set_default_timeout(PATIENCE)
        return context

    def stop(self) -> None:
        self.run(self._chromium.close)
        self.run(self._playwright.stop)
        self._thread.shutdown()
