"""Headless Chromium for tests of the page: its DOM after scripts ran, and its console."""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

# Draws every figure that no fold hides, as a reader does who scrolls through the page, and waits for each.
DRAW = """async () => {
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  const plots = [...document.querySelectorAll(".plot")].filter((plot) => !plot.closest("details:not([open])"));
  const open = (plot) => plot.dataset.drawn !== "done" && !plot.textContent.includes("could not be drawn");
  for (const plot of plots) { plot.scrollIntoView(); await wait(10); }
  for (let turn = 0; turn < 2400 && plots.some(open); turn += 1) await wait(50);
}"""


@dataclass(frozen=True)
class Opened:
    """A page after its scripts ran and its figures were drawn."""

    dom: str
    console: list[str]


def open_page(browser: Any, path: Path) -> Opened:
    """Opens a page, scrolls through it until all is drawn, and gives what stands there and what the console said."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: dialog.dismiss())
        page.goto(path.resolve().as_uri(), timeout=120_000)
        page.evaluate(DRAW)
        return Opened(page.content(), said)
    finally:
        context.close()


class Page(HTMLParser):
    """Elements of a page: (tag, attributes) in order, the text of scripts and styles, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self._open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            about = self.elements[-1][1]
            packed = about.get("data-packed") == "gzip"
            self.scripts.append((about, gzip.decompress(base64.b64decode(data)).decode() if packed else data))
        elif self._open == "style":
            self.styles.append(data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text that a reader sees, with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def policy(self) -> str:
        """The content policy."""
        return next(
            a["content"] or "" for t, a in self.elements if a.get("http-equiv") == "Content-Security-Policy"
        )
