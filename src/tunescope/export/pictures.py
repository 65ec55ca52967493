"""Pictures by Kaleido and the system's own Chromium or Chrome: nothing is downloaded, nothing is asked of a network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from tunescope.errors import MissingDependencyError, RunError
from tunescope.export.paper import PICTURE_DOTS, Drawing

Format = Literal["pdf", "svg", "png"]
FORMATS: tuple[Format, ...] = ("pdf", "svg", "png")
SECONDS = 120.0  # for one picture
NOWHERE = "127.0.0.1:9"  # the browser's proxy: whatever it might want of a network ends at this machine
NO_FIGURES = "or leave figures out with --figures none"

Job = tuple[str, Drawing]
Sink = Callable[[str, Format, bytes], None]


def require_kaleido() -> None:
    """Check that pictures can be drawn here at all.

    Raises:
        MissingDependencyError: Kaleido, or a browser that it can use, is not installed; the hint says what to install.
    """
    try:
        import kaleido
    except ImportError as error:
        raise MissingDependencyError(
            "Figures as PDF, SVG and PNG need the library kaleido, which is not installed.",
            hint=f"pip install 'tunescope[export]', {NO_FIGURES}.",
        ) from error
    if not hasattr(kaleido, "Kaleido"):
        raise MissingDependencyError(
            "Figures need kaleido 1 or newer; the one that is installed draws with a browser of its own.",
            hint=f"pip install --upgrade 'tunescope[export]', {NO_FIGURES}.",
        )
    if browser() is None:
        raise _no_browser()


def browser() -> str | None:
    """Return the path of the Chromium or Chrome that draws: ``BROWSER_PATH``, else the system's; None without one."""
    import os

    named = os.environ.get("BROWSER_PATH")
    if named:
        return named if Path(named).is_file() else None
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return str(found) if found else None


def _no_browser() -> MissingDependencyError:
    return MissingDependencyError(
        "Figures as PDF, SVG and PNG are drawn by Chromium or Chrome, and none was found on this machine.",
        hint="Install one (Debian and Ubuntu: apt install chromium) or set BROWSER_PATH to its program, "
        f"{NO_FIGURES}.",
    )


def draw(jobs: Iterator[Job], formats: tuple[Format, ...], sink: Sink) -> None:
    """Draw every job in every format, one browser for all, and hand each finished picture to ``sink``.

    Args:
        jobs: (name, drawing); the name is said where a drawing fails.
        formats: Which kinds of file.
        sink: Called with name, format and content, picture by picture.

    Raises:
        MissingDependencyError: There is no kaleido or no browser.
        RunError: The browser refused a figure or took too long.
    """
    require_kaleido()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_draw(jobs, formats, sink))
        except BaseException as error:  # handed to the caller's thread, whatever it is
            failed.append(error)

    # A thread of its own, for notebooks have a loop that is running already.
    thread = threading.Thread(target=work, name="pictures")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


async def _draw(jobs: Iterator[Job], formats: tuple[Format, ...], sink: Sink) -> None:
    from choreographer.errors import BrowserFailedError
    from kaleido import Kaleido, PageGenerator

    page = PageGenerator(plotly=_plotly_script(), mathjax=False)
    try:
        async with Kaleido(
            n=1, timeout=SECONDS, page_generator=page, path=browser(), proxy_server=NOWHERE
        ) as kaleido:
            for name, drawing in jobs:
                for format_ in formats:
                    sink(name, format_, await _picture(kaleido, name, drawing, format_))
    except BrowserFailedError as error:
        raise RunError(
            f"The browser that draws figures ({browser()}) could not be started: {error}",
            hint=f"Try it by hand with --headless, set BROWSER_PATH to another, {NO_FIGURES}.",
        ) from error


def _plotly_script() -> str:
    """Return the Plotly script that the page carries too, as a file's address."""
    import plotly

    return (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").as_uri()


async def _picture(kaleido: Any, name: str, drawing: Drawing, format_: Format) -> bytes:
    scale = PICTURE_DOTS / 96 if format_ == "png" else 1
    options = {"format": format_, "width": drawing.width, "height": drawing.height, "scale": scale}
    try:
        return bytes(await kaleido.calc_fig(drawing.figure, opts=options))
    except (TimeoutError, ValueError, RuntimeError) as error:
        raise RunError(
            f"Figure {name} could not be drawn as {format_}: {error or 'no answer from the browser'}.",
            hint="Try it alone with --figures and its key; if it fails again, this is a bug worth reporting.",
        ) from error
