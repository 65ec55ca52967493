"""Panels set side by side in one Plotly figure, for files and notebooks; the page draws each panel by itself."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunescope.report.figures.style import Panel

ACROSS = 3  # panels in one line
GAP = 70  # pixels between panels: room for tick names and axis titles
WIDTH = 420  # pixels a panel
TITLE = 26  # pixels above a line of panels, for their titles
_AXIS = re.compile(r"^([xy])axis(\d*)$")
_REFERENCE = re.compile(r"^([xy])(\d*)( domain)?$")


def side_by_side(panels: Sequence[Panel]) -> dict[str, Any]:
    """Return one figure of data and layout that holds all panels, at most three a line, each under its title.

    Axes are numbered anew; what refers to them (traces, annotations, shapes, matching and overlaid axes) follows.
    """
    across = min(ACROSS, len(panels))
    lines = [list(panels[start : start + across]) for start in range(0, len(panels), across)]
    heights = [max(panel.height for panel in line) + TITLE for line in lines]
    total, width = sum(heights), across * WIDTH
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": [], "shapes": []}
    used = {"x": 0, "y": 0}
    top = 0
    for line, height in zip(lines, heights, strict=True):
        for place, panel in enumerate(line):
            left = (place * WIDTH + (GAP if across > 1 else 0)) / width
            right = ((place + 1) * WIDTH) / width
            cell = ((left, right), (1 - (top + height - GAP / 1.4) / total, 1 - (top + TITLE) / total))
            _add(panel, cell, data, layout, used)
        top += height
    first = panels[0].figure["layout"] if panels else {}
    kept = {key: copy.deepcopy(value) for key, value in first.items() if not _placed(key)}
    legend = any(panel.figure["layout"].get("showlegend") for panel in panels)
    kept |= {
        "height": total,
        "width": width,
        "margin": {"l": 24, "r": 16, "t": 8, "b": 24},
        "showlegend": legend,
    }
    return {"data": data, "layout": {**kept, **layout}}


def _placed(key: str) -> bool:
    return bool(_AXIS.match(key)) or key in (
        "annotations",
        "shapes",
        "height",
        "width",
        "margin",
        "showlegend",
    )


def _add(
    panel: Panel,
    cell: tuple[tuple[float, float], tuple[float, float]],
    data: list[dict[str, Any]],
    layout: dict[str, Any],
    used: dict[str, int],
) -> None:
    """Put one panel into its cell of the sheet."""
    figure = copy.deepcopy(panel.figure)
    own = figure["layout"]
    names = {"x": "xaxis", "y": "yaxis"}
    for letter in "xy":
        own.setdefault(names[letter], {})
    numbers: dict[str, str] = {}
    for key in sorted(name for name in own if _AXIS.match(name)):
        match = _AXIS.match(key)
        if match is not None:
            used[match[1]] += 1
            numbers[match[1] + match[2]] = f"{match[1]}{used[match[1]] if used[match[1]] > 1 else ''}"

    def moved(value: Any) -> Any:
        found = _REFERENCE.match(value) if isinstance(value, str) else None
        return value if found is None else numbers.get(found[1] + found[2], value) + (found[3] or "")

    for old, new in numbers.items():
        axis = own[f"{old[0]}axis{old[1:]}"]
        start, end = cell[0] if old[0] == "x" else cell[1]
        low, high = axis.get("domain") or (0.0, 1.0)
        axis["domain"] = [start + low * (end - start), start + high * (end - start)]
        other = "y" if old[0] == "x" else "x"
        for key, default in (
            ("anchor", other),
            ("matches", None),
            ("overlaying", None),
            ("scaleanchor", None),
        ):
            if axis.get(key, default) is not None:
                axis[key] = moved(axis.get(key, default))
        layout[f"{new[0]}axis{new[1:]}"] = axis
    for trace in figure["data"]:
        trace["xaxis"], trace["yaxis"] = moved(trace.get("xaxis", "x")), moved(trace.get("yaxis", "y"))
        data.append(trace)
    for kind in ("annotations", "shapes"):
        for item in own.get(kind, ()):
            layout[kind].append(_on_paper(item, cell, moved))
    layout["annotations"].append(_title(panel.title, cell))


def _on_paper(
    item: dict[str, Any], cell: tuple[tuple[float, float], tuple[float, float]], moved: Any
) -> dict[str, Any]:
    """Move what an annotation or shape refers to: an axis by its new name, the paper by the cell."""
    for letter, (start, end) in zip("xy", cell, strict=True):
        reference = item.get(f"{letter}ref", "paper")
        if reference != "paper":
            item[f"{letter}ref"] = moved(reference)
            continue
        item[f"{letter}ref"] = "paper"
        for key in (letter, f"{letter}0", f"{letter}1"):
            if isinstance(item.get(key), (int, float)):
                item[key] = start + item[key] * (end - start)
    return item


def _title(title: str, cell: tuple[tuple[float, float], tuple[float, float]]) -> dict[str, Any]:
    from tunescope.report.text import for_plotly

    (left, _), (_, top) = cell
    return {
        "text": for_plotly(title, 80), "x": left, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 13},
    }  # fmt: skip
