"""Sizes of activations over depth, massive activations, and the neurons that moved most."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.geometry import depth_layout, depth_line
from tunescope.report.figures.select import only
from tunescope.report.text import finite, number, percent, probability, signed

COLUMNS = ("arm", "model", "site", "layer", "metric", "value", "low", "high", "n", "q")
SITES = {
    "resid_post": "stream", "attn_out": "attention's output", "mlp_out": "MLP's output", "mlp_neurons": "neurons",
}  # fmt: skip
MASSIVE_RATIO = 1000
Record = dict[str, Any]


def size_panels(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the norm over layers of each site, base and tuned."""
    panels = []
    for site, title in SITES.items():
        own = only(rows, metric="norm_without_first", site=site).filter(pl.col("value").is_not_null())
        if own.height:
            panels.append(_curves(own, title, colour, {"rangemode": "tozero"}))
    return tuple(panels)


def massive_panels(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the largest number of the stream over the median, and its size, over layers on log scales."""
    panels = []
    titles = {"largest_over_median": "largest over median", "largest": "largest number"}
    for metric, title in titles.items():
        own = only(rows, metric=metric).filter(pl.col("value") > 0)
        if own.is_empty():
            continue
        panel = _curves(own, title, colour, {"type": "log"})
        for trace in panel.figure["data"]:
            model = only(own, model=trace["name"]).sort("layer")
            trace["text"] = [
                f"{said}<br>{_where(record)}"
                for said, record in zip(trace["text"], model.iter_rows(named=True), strict=True)
            ]
        if metric == "largest_over_median":
            panel.figure["layout"]["shapes"] = [{
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": MASSIVE_RATIO, "y1": MASSIVE_RATIO,
                "line": {"color": style.ZERO, "width": 1, "dash": "dot"},
            }]  # fmt: skip
        panels.append(panel)
    return tuple(panels)


def _curves(rows: pl.DataFrame, title: str, colour: str, y: Record) -> style.Panel:
    change = {row["layer"]: row for row in only(rows, model="tuned_minus_base").iter_rows(named=True)}
    traces = []
    for model, ink in (("base", style.BASE_COLOUR), ("tuned", colour)):
        own = only(rows, model=model).sort("layer")
        trace = depth_line(own, model, ink)
        if model == "tuned" and len(trace["text"]) == own.height:
            trace["text"] = [
                f"{said}<br>{_changed(change.get(layer, {}))}"
                for said, layer in zip(trace["text"], own["layer"], strict=True)
            ]
        traces.append(trace)
    return style.Panel(title, {"data": traces, "layout": depth_layout(rows, 210, y)}, 210)


def _changed(record: Record) -> str:
    return f"changed by {signed(record.get('value'))}, q {probability(record.get('q'))}"


def _where(record: Record) -> str:
    return (
        f"dimension {record.get('dimension')} in {percent(record.get('share_dimension'), 0)} of texts, position "
        f"{record.get('position')} in {percent(record.get('share_position'), 0)}"
    )


def neuron_panel(rows: pl.DataFrame, colour: str) -> style.Panel | None:
    """Return the neurons that moved most, the strongest on top, with intervals and the block's typical shift."""
    own = only(rows, metric="neuron_shift").filter(pl.col("value").is_not_null())
    if own.is_empty():
        return None
    own = own.sort("rank")
    means = {
        (row["rank"], row["model"]): row["value"]
        for row in only(rows, metric="neuron_mean").iter_rows(named=True)
    }
    names = [f"L{row['layer']}N{row['neuron']}" for row in own.iter_rows(named=True)]
    places = list(range(len(names)))
    height = 90 + 20 * len(names)
    data = [
        {
            "type": "scatter", "mode": "markers", "name": "typical", "y": places, "hoverinfo": "skip",
            "x": [sign * (finite(row["control"]) or 0.0) for row in own.iter_rows(named=True)],
            "marker": {"color": style.BASE_COLOUR, "size": 6, "symbol": "line-ns-open"},
        }
        for sign in (-1, 1)
    ]  # fmt: skip
    records = own.to_dicts()
    data.append({
        "type": "scatter", "mode": "markers", "name": "shift", "y": places, "x": [row["value"] for row in records],
        "marker": {"color": colour, "size": 7}, "hoverinfo": "text",
        "error_x": {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 0,
            "array": [row["high"] - row["value"] for row in records],
            "arrayminus": [row["value"] - row["low"] for row in records],
        },
        "text": [
            f"{name}: {signed(row['value'])} [{number(row['low'])}, {number(row['high'])}]<br>"
            f"base {number(means.get((row['rank'], 'base')))}, tuned {number(means.get((row['rank'], 'tuned')))}, "
            f"q {probability(row['q'])}, n = {row['n']}"
            for name, row in zip(names, records, strict=True)
        ],
    })  # fmt: skip
    layout = style.layout(
        height,
        xaxis=style.axis("shift of the mean activation", zeroline=True, zerolinecolor=style.ZERO),
        yaxis=style.named_axis(names, range=[len(names) - 0.5, -0.5]),
    )
    return style.Panel("", {"data": data, "layout": layout}, height)
