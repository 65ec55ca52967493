"""Headless Chromium for tests of the page: its DOM after scripts ran, and its console."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--window-size=1280,16000", "--virtual-time-budget=20000", "--dump-dom",
)  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A page after its scripts ran."""

    dom: str
    console: list[str]


def open_page(path: Path, profile: Path) -> Opened:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", path.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=180, check=True)
    lines = done.stderr.decode(errors="replace").splitlines()
    return Opened(done.stdout.decode(errors="replace"), [line for line in lines if "CONSOLE" in line])


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
