"""Curves over training steps: what the lenses saw while the model learned, beside the training's own log."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import only, values
from tunescope.report.text import for_plotly, interval, number

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


def correlation_panels(rows: pl.DataFrame, most: int = 20) -> tuple[style.Panel, ...]:
    """Return the strongest correlations of internal curves with a logged metric: of levels, and of changes."""
    panels = []
    for of, title in (("levels", "the curves themselves"), ("changes", "their changes from look to look")):
        own = only(rows, of=of).filter(pl.col("value").is_not_null())
        own = own.sort(
            pl.col("value").abs(), "curve", "metric", "layer", descending=[True, False, False, False]
        )
        own = own.head(most)
        if own.is_empty():
            continue
        records = list(own.iter_rows(named=True))
        names = [_curve(record) for record in records]
        trace = {
            "type": "scatter", "mode": "markers", "x": [record["value"] for record in records],
            "y": list(range(len(records))), "marker": {"size": 7, "color": style.ARM_COLOURS[0]}, "hoverinfo": "text",
            "error_x": {
                "type": "data", "symmetric": False, "thickness": 1.2, "width": 0,
                "array": [record["high"] - record["value"] for record in records],
                "arrayminus": [record["value"] - record["low"] for record in records],
            },
            "text": [
                f"{name}<br>{interval(record['value'], record['low'], record['high'])}, {number(record['n'])} steps"
                for name, record in zip(names, records, strict=True)
            ],
        }  # fmt: skip
        height = 90 + 19 * len(records)
        layout = style.layout(
            height,
            xaxis=style.axis(
                "rank correlation", range=[-1.05, 1.05], zeroline=True, zerolinecolor=style.ZERO
            ),
            yaxis=style.named_axis(names, range=[len(names) - 0.5, -0.5]),
        )
        panels.append(style.Panel(title, {"data": [trace], "layout": layout}, height))
    return tuple(panels)


def _curve(record: Record) -> str:
    """Return what a curve is called: lens, metric, model, place."""
    model = (
        "" if record["model"] in (None, "tuned", "base_tuned") else f" ({record['model'].replace('_', ' ')})"
    )
    where = record["site"] or ""
    if record["layer"] is not None:
        where = (
            f"layer {record['layer']}"
            if where in ("attn_pattern", "block", "")
            else f"{where} {record['layer']}"
        )
    return for_plotly(f"{record['metric'].replace('_', ' ')}{model}, {where}", 60)


def still(grid: Any, movie: Any, title: str) -> style.Panel:
    """Return one frame of what plays over the steps: ``movie`` names the axes and gives the scale."""
    height = 90 + max(16 * len(movie.rows), 60) + 5 * max(len(name) for name in movie.columns)
    trace = {
        "type": "heatmap", "x": list(range(len(movie.columns))), "y": list(range(len(movie.rows))), "z": grid,
        "zmin": movie.low, "zmax": movie.high, "colorscale": movie.colours, "showscale": False, "xgap": 1, "ygap": 1,
        "hoverinfo": "text",
        "hovertext": [
            [f"{for_plotly(row)}, {for_plotly(column)}<br>{number(value)}" for column, value in
             zip(movie.columns, line, strict=True)]
            for row, line in zip(movie.rows, grid, strict=True)
        ],
    }  # fmt: skip
    layout = style.map_layout(
        height,
        xaxis=style.named_axis([for_plotly(one, 14) for one in movie.columns]),
        yaxis=style.named_axis(
            [for_plotly(one, 14) for one in movie.rows], range=[len(movie.rows) - 0.5, -0.5]
        ),
    )
    return style.Panel(title, {"data": [trace], "layout": layout}, height)
