"""The data of a figure as a table: what its builder gave, or the marks read off its panels.

The page reads marks off in the same way (``figure_data`` in start.js; a test holds the two against each other), so that
a downloaded CSV and an exported one agree.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from tunescope.report.figures.style import Figure, Panel, clean

SCHEMA = {
    "panel": pl.String, "series": pl.String, "x_axis": pl.String, "x": pl.String, "y_axis": pl.String, "y": pl.String,
    "z": pl.Float64, "low": pl.Float64, "high": pl.Float64, "said": pl.String,
}  # fmt: skip
Record = dict[str, Any]


def figure_table(figure: Figure) -> pl.DataFrame:
    """Return the data of a figure, one row a mark.

    Where the builder gave none, the columns are ``panel``, ``series``, ``x_axis``, ``x``, ``y_axis``, ``y``, ``z`` (a
    map's value), ``low`` and ``high`` (the ends of the interval that is drawn) and ``said`` (what the hover says).
    Decoration (what no hover answers) is left out; x and y are the names at the axis where it has names.
    """
    if isinstance(figure.table, pl.DataFrame):
        return figure.table
    if figure.table is not None:
        return pl.DataFrame(list(figure.table), infer_schema_length=None)
    records = [record for panel in figure.panels for record in marks(panel)]
    return pl.DataFrame(records, schema=SCHEMA, orient="row")


def marks(panel: Panel) -> Iterator[Record]:
    """Yield the marks of one panel, in the order of its traces."""
    figure = clean(panel.figure)
    for trace in figure["data"]:
        if trace.get("hoverinfo") == "skip":
            continue
        axes = {letter: _axis(figure["layout"], trace, letter) for letter in "xy"}
        begin = {
            "panel": plain(panel.title), "series": plain(trace.get("name") or ""),
            "x_axis": plain(_title(axes["x"])), "y_axis": plain(_title(axes["y"])),
        }  # fmt: skip
        for mark in _cells(trace, axes) if trace["type"] == "heatmap" else _points(trace, axes):
            yield begin | mark


def _cells(trace: Record, axes: Mapping[str, Record]) -> Iterator[Record]:
    for row, line in enumerate(trace["z"]):
        for column, value in enumerate(line):
            if value is not None:
                across, down = _at(trace, "x", column), _at(trace, "y", row)
                said = _item(_item(trace.get("hovertext"), row), column)
                place = {"x": named(axes["x"], across), "y": named(axes["y"], down)}
                yield {**place, "z": value, "low": None, "high": None, "said": plain(said or "")}


def _points(trace: Record, axes: Mapping[str, Record]) -> Iterator[Record]:
    texts = trace.get("hovertext") or trace.get("text")
    for index in range(max(len(trace.get("x") or ()), len(trace.get("y") or ()))):
        across, down = _at(trace, "x", index), _at(trace, "y", index)
        if across is None or down is None:
            continue
        low, high = _ends(trace, "error_y", down, index)
        if low is None:
            low, high = _ends(trace, "error_x", across, index)
        said = texts if isinstance(texts, str) else _item(texts, index)
        place = {"x": named(axes["x"], across), "y": named(axes["y"], down)}
        yield {**place, "z": None, "low": low, "high": high, "said": plain(said or "")}


def _ends(trace: Record, key: str, value: Any, index: int) -> tuple[float | None, float | None]:
    bars = trace.get(key) or {}
    above = _item(bars.get("array"), index)
    if above is None or not isinstance(value, (int, float)):
        return None, None
    below = _item(bars.get("arrayminus"), index)
    return float(f"{value - (above if below is None else below):.5g}"), float(f"{value + above:.5g}")


def _at(trace: Record, letter: str, index: int) -> Any:
    """Return a coordinate; traces without one are numbered, as Plotly does."""
    values = trace.get(letter)
    return index if values is None else _item(values, index)


def _item(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, Sequence) and index < len(values) else None


def _axis(layout: Record, trace: Record, letter: str) -> Record:
    name = trace.get(f"{letter}axis") or letter
    return dict(layout.get(f"{letter}axis{name[1:]}") or {})


def _title(axis: Record) -> str:
    title = axis.get("title")
    return str((title.get("text") if isinstance(title, dict) else title) or "")


def named(axis: Record, value: Any) -> str:
    """Return what the axis calls a value: its tick's name where it has one.

    On an axis of names (ticks 0, 1, 2, ...) marks may stand beside their tick, so that two do not hide one another.
    """
    if isinstance(value, str):
        return plain(value)
    places, names = axis.get("tickvals") or [], axis.get("ticktext") or []
    nearest = math.floor(value + 0.5) if places == list(range(len(places))) else value
    for place, name in zip(places, names, strict=False):
        if place == nearest:
            return plain(name)
    return f"{value:.10g}"


def plain(text: Any) -> str:
    """Return text that Plotly draws as plain text: without its tags, line breaks as semicolons."""
    bare = re.sub(r"<[^>]*>", "", re.sub(r"<br\s*/?>", "; ", str(text)))
    return html.unescape(bare).strip()
