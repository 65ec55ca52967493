"""Similarity by several measures, the bow-tie, and probes: lines over depth, and numbers beside their controls."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.geometry import depth_layout, depth_line
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, interval

SIMILARITY_COLUMNS = (
    "arm", "model", "metric", "site", "layer", "site_other", "layer_other", "value", "low", "high", "control",
)  # fmt: skip
PROBE_COLUMNS = ("arm", "model", "metric", "site", "layer", "value", "low", "high", "control", "p", "q")
MEASURES = {
    "rsa_cosine": "RSA, cosine", "rsa_correlation": "RSA, correlation", "rsa_whitened": "RSA, whitened",
    "procrustes": "Procrustes",
}  # fmt: skip
TIES = {
    "cka": "as it is", "cka_standardised": "standardised", "cka_without_outliers": "without outliers",
    "cka_biased": "biased",
}  # fmt: skip
Record = dict[str, Any]


def measure_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return base against tuned over depth, one panel a measure, beside what shuffled rows give."""
    same = only(table, model="base_tuned").filter(
        (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
    )
    panels = []
    for metric, title in MEASURES.items():
        own = only(same, metric=metric).sort("layer")
        if own["value"].drop_nulls().is_empty():
            continue
        control = own.with_columns(value=pl.col("control"), low=None, high=None)
        traces = [
            depth_line(control, "rows shuffled", style.BASE_COLOUR),
            depth_line(own, "base against tuned", colour),
        ]
        layout = depth_layout(same, 230, {"range": [-0.1, 1.05]})
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, 230))
    return tuple(panels)


def bow_tie_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the bow-ties of base, tuned and their difference, a line each; all pairs, and pairs at equal distance."""
    panels = []
    for metric, title in (
        ("bow_tie", "all pairs of layers"),
        ("bow_tie_equal_distance", "pairs at equal distance"),
    ):
        rows = only(table, metric=metric).filter(pl.col("value").is_not_null())
        names = [
            (kind, model)
            for kind in TIES
            if kind in values(rows, "similarity")
            for model in ("base", "tuned", "tuned_minus_base")
        ]
        if not names:
            continue
        traces = []
        for place, (kind, model) in enumerate(reversed(names)):
            record = only(rows, similarity=kind, model=model).row(0, named=True)
            ink = style.BASE_COLOUR if model == "base" else colour
            traces.append(_dot(place, f"{TIES[kind]}, {model.replace('_', ' ')}", record, ink))
        labels = [f"{TIES[kind]}: {SHORT[model]}" for kind, model in reversed(names)]
        height = 60 + 24 * len(names)
        layout = style.layout(
            height,
            xaxis=style.axis("within halves minus between", zeroline=True, zerolinecolor=style.ZERO),
            yaxis=style.named_axis(labels),
            margin={"l": 150, "r": 12, "t": 8, "b": 40},
        )
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, height))
    return tuple(panels)


SHORT = {"base": "base", "tuned": "tuned", "tuned_minus_base": "change"}


def _dot(place: int, name: str, record: Record, colour: str) -> Record:
    trace: Record = {
        "type": "scatter", "mode": "markers", "x": [record["value"]], "y": [place],
        "marker": {"size": 8, "color": colour, "symbol": "diamond" if "minus" in name else "circle"},
        "hoverinfo": "text", "text": [f"{name}<br>{interval(record['value'], record['low'], record['high'])}"],
    }  # fmt: skip
    if finite(record["low"]) is not None:
        trace["error_x"] = {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1.4, "width": 0,
            "array": [record["high"] - record["value"]], "arrayminus": [record["value"] - record["low"]],
        }  # fmt: skip
    return trace


def probe_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return accuracy and selectivity over depth (base, tuned, untrained, majority), and tuned minus base."""
    panels = []
    for metric, title in (("probe_accuracy", "accuracy"), ("selectivity", "selectivity")):
        rows = only(table, metric=metric)
        traces = [
            depth_line(only(rows, model=model).sort("layer"), model, ink)
            for model, ink in (("base", style.BASE_COLOUR), ("tuned", colour))
        ]
        untrained = depth_line(only(rows, model="untrained").sort("layer"), "untrained", style.BASE_COLOUR)
        untrained["line"]["dash"] = "dot"
        untrained["marker"]["symbol"] = "circle-open"
        traces.append(untrained)
        majority = only(table, metric="majority_accuracy")
        if metric == "probe_accuracy" and majority.height:
            traces.append(_majority(rows, majority.row(0, named=True)))
        if any(trace["x"] for trace in traces):
            layout = depth_layout(rows, 240)
            panels.append(style.Panel(title, {"data": traces, "layout": layout}, 240))
    change = only(table, metric="probe_accuracy", model="tuned_minus_base").sort("layer")
    if change.height:
        layout = depth_layout(change, 240, {"zeroline": True, "zerolinecolor": style.ZERO})
        trace = depth_line(change, "tuned minus base", colour)
        panels.append(style.Panel("tuned minus base", {"data": [trace], "layout": layout}, 240))
    return tuple(panels)


def _majority(rows: pl.DataFrame, record: Record) -> Record:
    layers = values(rows, "layer")
    said = f"majority class<br>{interval(record['value'], record['low'], record['high'])}"
    return {
        "type": "scatter", "mode": "lines", "name": "majority", "x": layers, "y": [record["value"]] * len(layers),
        "line": {"color": style.ZERO, "width": 1, "dash": "dash"}, "hoverinfo": "text", "text": [said] * len(layers),
    }  # fmt: skip
