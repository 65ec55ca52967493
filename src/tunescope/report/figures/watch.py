"""Curves over training steps: what the lenses saw while the model learned, beside the training's own log."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import only, values
from tunescope.report.text import for_plotly, number

COLUMNS = ("step", "lens", "model", "site", "layer", "metric", "value")
HEIGHT = 240
Record = dict[str, Any]


def layer_curves(rows: pl.DataFrame, title: str, axis: str) -> style.Panel | None:
    """Return one line a layer over the steps; rows are averaged within step and layer."""
    known = rows.filter(pl.col("value").is_not_null() & pl.col("layer").is_not_null())
    if known["step"].n_unique() < 2:
        return None
    mean = known.group_by("step", "layer").agg(pl.col("value").mean()).sort("layer", "step")
    layers = values(mean, "layer")
    traces = []
    for index, layer in enumerate(layers):
        own = only(mean, layer=layer)
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": f"layer {layer}", "x": own["step"].to_list(),
            "y": own["value"].to_list(), "marker": {"size": 4},
            "line": {"color": _shade(index, len(layers)), "width": 2}, "hoverinfo": "text",
            "text": _said(f"layer {layer}", own),
        })  # fmt: skip
    return _panel(title, traces, axis)


def line(rows: pl.DataFrame, title: str, axis: str, colour: str) -> style.Panel | None:
    """Return one line over the steps."""
    known = rows.drop_nulls("value").sort("step")
    if known["step"].n_unique() < 2:
        return None
    trace = {
        "type": "scatter", "mode": "lines+markers", "name": title, "x": known["step"].to_list(),
        "y": known["value"].to_list(), "line": {"color": colour, "width": 2}, "marker": {"size": 4},
        "hoverinfo": "text",
        "text": _said(for_plotly(title, 40), known),
    }  # fmt: skip
    return _panel(title, [trace], axis)


def _said(name: str, rows: pl.DataFrame) -> list[str]:
    return [f"{name}, step {step}<br>{number(value)}" for step, value in rows.select("step", "value").rows()]


def _panel(title: str, traces: list[Record], axis: str) -> style.Panel:
    layout = style.layout(HEIGHT, xaxis=style.axis("step", showgrid=False), yaxis=style.axis(axis))
    return style.Panel(title, {"data": traces, "layout": layout}, HEIGHT)


def _shade(index: int, count: int) -> str:
    """Return cividis from dark (first layer) to light (last), which stays readable on both themes."""
    place = 1 + round(7 * index / max(1, count - 1))
    return str(style.CIVIDIS[place][1])
