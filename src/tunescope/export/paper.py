"""A figure of the page at the width of a paper's column: text in points, not scaled, on white."""

from __future__ import annotations

import copy
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.style import Panel, Scale
from tunescope.report.text import for_plotly

POINT = 96 / 72  # pixels of a browser in a point
PAGE_TEXT = 12.0  # pixels: the size that figures have on the page
TEXT, SMALL, LEAST = 8.0, 7.0, 6.0  # points: titles and axes, ticks and marks, nothing smaller
PICTURE_DOTS = 300  # dots an inch of PNG files
FONT = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
CELLS = 0.66  # of the width that a heatmap's cells take beside names and colour bar
LETTER = 0.52  # mean width of a letter, as a share of the text's size
MOST_POINTS = 5000  # marks drawn as vectors


@dataclass(frozen=True)
class Drawing:
    """One picture to be drawn: Plotly's ``data`` and ``layout`` and the size in pixels of a browser."""

    figure: dict[str, Any]
    width: int
    height: int


def for_paper(
    panel: Panel, scale: Scale | None, inches: float, colours: Sequence[tuple[str, str]] = ()
) -> Drawing:
    """Return a panel for a column of this width, in the light theme.

    Heights follow the page's (rows of names keep their room); text is 8 points, ticks 7, nothing under 6. A panel
    whose colour scale stands beside it on the page gets a colour bar.

    Args:
        panel: The page's drawing.
        scale: The colour scale that the figure's panels share, or None.
        inches: Width of the column.
        colours: Names with their colours, for a line under a panel that shows several of these colours and names none.
    """
    figure = copy.deepcopy(style.plotly_figure(panel, theme="light"))
    width = round(inches * 96)
    layout = figure["layout"]
    layout["paper_bgcolor"] = "#ffffff"
    _resize(figure)
    title = _wrapped(for_plotly(panel.title, 200), width, TEXT)
    room = len(title) * TEXT * POINT * 1.3 + (4 if title else 0)
    height = round(_height(layout, panel.height, width) + room)
    layout |= {
        "width": width,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 6 + room, "b": 8, "autoexpand": True},
        "font": {**layout.get("font", {}), "family": FONT, "size": TEXT * POINT},
    }
    if title:
        layout["title"] = {
            "text": "<br>".join(title), "x": 0.0, "xref": "container", "xanchor": "left", "y": 1.0,
            "yanchor": "top", "pad": {"l": 4, "t": 4}, "font": {"size": TEXT * POINT},
        }  # fmt: skip
    _axes(layout, width, height - room)
    _legend(layout)
    height = _colours(figure, colours, height)
    _notes(layout, width)
    for trace in figure["data"]:
        _trace(trace, scale)
        _cells(trace, width)
    return Drawing(figure, width, height)


def _height(layout: dict[str, Any], page: int, width: int) -> float:
    """Return the height of the drawing: the page's, less where nothing but points needs the room."""
    scaled = page * TEXT * POINT / PAGE_TEXT
    axes = [axis for key, axis in layout.items() if key.startswith("yaxis") and isinstance(axis, dict)]
    rows = any(len(axis.get("ticktext") or ()) > 4 for axis in axes)
    lanes = len({tuple(axis.get("domain") or ()) for axis in axes}) > 1
    return scaled if rows or lanes else min(scaled, 0.95 * width)


def _resize(node: Any) -> None:
    """Bring every stated font size from the page's pixels to the paper's points, in place."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key.endswith("font") and isinstance(value, dict):
                value.pop("family", None)
                if isinstance(value.get("size"), (int, float)):
                    value["size"] = max(LEAST, value["size"] / PAGE_TEXT * TEXT) * POINT
            _resize(value)
    elif isinstance(node, list):
        for item in node:
            _resize(item)


def _axes(layout: dict[str, Any], width: int, height: float) -> None:
    for letter, room in (("x", width), ("y", height)):
        names = [key for key in layout if key.startswith(f"{letter}axis")]
        for name in names:
            axis = layout[name]
            if not isinstance(axis, dict):
                continue
            axis.setdefault("tickfont", {"size": SMALL * POINT})
            if isinstance(axis.get("title"), dict):
                axis["title"].setdefault("font", {"size": TEXT * POINT})
            axis["automargin"] = axis.get("automargin", True)
            title = axis.get("title")
            domain = axis.get("domain") or (0.0, 1.0)
            text = title.get("text") if isinstance(title, dict) else None
            if isinstance(title, dict) and text and "<br>" not in str(text):
                own = 0.8 * room * (domain[1] - domain[0])
                title["text"] = "<br>".join(_wrapped(str(text), own, TEXT))
                title["standoff"] = 4


def _legend(layout: dict[str, Any]) -> None:
    if layout.get("showlegend"):
        given = layout.get("legend") or {}
        layout["legend"] = {**given, "font": {"size": SMALL * POINT}, "itemsizing": "constant"}


def _colours(figure: dict[str, Any], colours: Sequence[tuple[str, str]], height: int) -> int:
    """Say under the drawing which colour is which, where two or more are used and nothing names them; the height."""
    layout, drawn = figure["layout"], json.dumps(figure)
    used = [(name, colour) for name, colour in colours if colour in drawn]
    if len(used) < 2 or layout.get("showlegend") or all(_named(figure, name) for name, _ in used):
        return height
    for trace in figure["data"]:
        trace["showlegend"] = False
    figure["data"] += [
        {
            "type": "scatter", "x": [None], "y": [None], "mode": "lines+markers", "name": for_plotly(name, 40),
            "line": {"color": colour}, "marker": {"color": colour, "size": 6}, "showlegend": True,
        }
        for name, colour in used
    ]  # fmt: skip
    row = SMALL * POINT * 1.9
    layout["showlegend"] = True
    layout["legend"] = {
        "orientation": "h", "x": 0, "xanchor": "left", "xref": "container", "y": 0, "yanchor": "bottom",
        "yref": "container", "font": {"size": SMALL * POINT}, "itemsizing": "constant", "bgcolor": "rgba(0,0,0,0)",
    }  # fmt: skip
    layout["height"] = round(height + row)
    layout["margin"]["b"] += row
    return int(layout["height"])


def _named(figure: dict[str, Any], name: str) -> bool:
    """Whether a drawing writes a name: in an annotation, a text beside a mark, or a tick."""
    layout = figure["layout"]
    texts = [note.get("text") for note in layout.get("annotations") or ()]
    texts += [trace.get("text") for trace in figure["data"] if "text" in str(trace.get("mode", ""))]
    texts += [
        axis.get("ticktext") for key, axis in layout.items() if "axis" in key and isinstance(axis, dict)
    ]
    return for_plotly(name, 40) in json.dumps(texts, ensure_ascii=False)


def _trace(trace: dict[str, Any], scale: Scale | None) -> None:
    if trace.get("type") == "scattergl" and len(trace.get("x") or ()) <= MOST_POINTS:
        trace["type"] = "scatter"
    if "text" in str(trace.get("mode", "")) or trace.get("texttemplate"):
        trace.setdefault("textfont", {"size": LEAST * POINT})
    if trace.get("type") == "heatmap" and scale is not None and trace.get("showscale") is False:
        trace["showscale"] = True
        trace["colorbar"] = {
            "thickness": 7, "len": 1.0, "outlinewidth": 0, "xpad": 3, "tickfont": {"size": LEAST * POINT},
            "nticks": 5,
        }  # fmt: skip


def _notes(layout: dict[str, Any], width: int) -> None:
    """Make texts over the drawing that would run out of it smaller, and break them where that is not enough."""
    for note in layout.get("annotations") or ():
        text, place = str(note.get("text") or ""), note.get("x")
        if (
            note.get("xref") != "paper"
            or note.get("showarrow")
            or "<" in text
            or not isinstance(place, (int, float))
        ):
            continue
        room = 0.88 * width * (1 - place if note.get("xanchor") == "left" else 1.0)
        font = note.setdefault("font", {})
        fitting = room / (LETTER * max(len(text), 1))
        font["size"] = max(LEAST * POINT, min(font.get("size", TEXT * POINT), fitting))
        if fitting < LEAST * POINT:
            note["text"] = "<br>".join(_wrapped(text, room, LEAST))


def _cells(trace: dict[str, Any], width: int) -> None:
    """Write numbers into cells as small as they must be, and not at all where they would run into one another."""
    texts = trace.get("text") or ()
    if trace.get("type") != "heatmap" or not trace.get("texttemplate") or not texts:
        return
    longest = max((len(str(text)) for row in texts if isinstance(row, list) for text in row), default=0)
    fitting = CELLS * width / max(len(texts[0]), 1) / (LETTER * max(longest, 1))
    if fitting < LEAST * POINT:
        del trace["texttemplate"]
        return
    font = trace.setdefault("textfont", {})
    font["size"] = min(font.get("size", SMALL * POINT), fitting)


def _wrapped(text: str, room: float, points: float) -> list[str]:
    """Return lines of text that fit into so many pixels, by the mean width of letters."""
    letters = max(int(room / (LETTER * points * POINT)), 8)
    return textwrap.wrap(text, letters, break_long_words=False) if text else []
