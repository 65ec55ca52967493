"""CKA maps: layers against layers within the base, within the tuned model, and across."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import EMBEDDINGS, only
from tunescope.report.text import finite, for_plotly, interval, number

STREAM_SITES = ("embeddings", "resid_post", "final_norm_out")
COLUMNS = (
    "arm",
    "model",
    "metric",
    "site",
    "layer",
    "site_other",
    "layer_other",
    "value",
    "low",
    "high",
    "n",
)
Place = tuple[str, int | None]
PANELS = (
    ("base", "within base", "base", "base"),
    ("base_tuned", "base against tuned", "base", "tuned"),
    ("tuned", "within tuned", "tuned", "tuned"),
)


def place_name(place: Place) -> str:
    """Return the axis name of a site: ``emb``, ``L3``, ``norm``, or the site's own name with its layer."""
    site, layer = place
    if layer == EMBEDDINGS or site == "embeddings":
        return "emb"
    if site == "final_norm_out":
        return "norm"
    if layer is None:
        return for_plotly(site, 24)
    return f"L{layer}" if site == "resid_post" else f"{for_plotly(site, 20)} L{layer}"


def _order(place: Place) -> tuple[bool, int, str]:
    site, layer = place
    return (layer is None, EMBEDDINGS if layer is None else layer, site)


def places(table: pl.DataFrame, site: str, layer: str) -> list[Place]:
    """Return the distinct places of an axis in depth order, read from the table's own values."""
    found = {(str(row[0]), row[1]) for row in table.select(site, layer).iter_rows()}
    return sorted(found, key=_order)


def cka_panel(table: pl.DataFrame, model: str, rows_are: str, columns_are: str) -> style.Panel | None:
    """Return one CKA map, or None where the table has no such rows.

    Args:
        table: CKA rows of one arm and one seed.
        model: ``base``, ``tuned``, ``base_tuned``, or another pair such as ``tuned_other``.
        rows_are: What the vertical axis is (``base`` or ``tuned``).
        columns_are: What the horizontal axis is.
    """
    rows = only(table, metric="cka", model=model)
    if rows.is_empty():
        return None
    vertical, horizontal = places(rows, "site", "layer"), places(rows, "site_other", "layer_other")
    cells = {
        ((str(r["site"]), r["layer"]), (str(r["site_other"]), r["layer_other"])): r
        for r in rows.iter_rows(named=True)
    }
    if model in ("base", "tuned"):  # CKA within a model is symmetric: a table may hold one triangle
        vertical = horizontal = sorted({*vertical, *horizontal}, key=_order)
        cells = {**{(right, left): record for (left, right), record in cells.items()}, **cells}
    grid = [[cells.get((left, right)) for right in horizontal] for left in vertical]
    hover = [
        [
            _hover(left, right, cell, rows_are, columns_are)
            for right, cell in zip(horizontal, line, strict=True)
        ]
        for left, line in zip(vertical, grid, strict=True)
    ]
    data = {
        "type": "heatmap", "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
        "x": list(range(len(horizontal))), "y": list(range(len(vertical))),
        "hovertext": hover, "hoverinfo": "text",
        "zmin": 0, "zmax": 1, "colorscale": style.CIVIDIS, "showscale": False, "xgap": 1, "ygap": 1,
    }  # fmt: skip
    figure_layout = style.map_layout(
        310,
        xaxis=style.named_axis([place_name(item) for item in horizontal], f"{columns_are}, layer"),
        yaxis=style.named_axis([place_name(item) for item in vertical], f"{rows_are}, layer"),
    )
    title = next((name for key, name, *_ in PANELS if key == model), f"{rows_are} against {columns_are}")
    return style.Panel(title, {"data": [data], "layout": figure_layout}, 310)


def _hover(left: Place, right: Place, cell: dict[str, Any] | None, rows_are: str, columns_are: str) -> str:
    where = f"{rows_are} {place_name(left)} × {columns_are} {place_name(right)}"
    if cell is None:
        return f"{where}<br>not measured"
    if finite(cell["value"]) is None:
        reason = for_plotly(cell.get("note") or "no variation, or too few rows", 80)
        return f"{where}<br>undefined: {reason}"
    lines = [where, f"CKA {interval(cell['value'], cell['low'], cell['high'])}", f"n = {number(cell['n'])}"]
    if finite(cell.get("control")) is not None:
        lines.append(f"control (rows shuffled): {number(cell['control'])}")
    return "<br>".join(lines)


def cka_panels(table: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return the maps of one arm and seed: within base, base against tuned, within tuned."""
    made = (cka_panel(table, key, rows_are, columns_are) for key, _, rows_are, columns_are in PANELS)
    return tuple(panel for panel in made if panel is not None)
