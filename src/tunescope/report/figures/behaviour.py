"""Suites of behaviour: base beside tuned as dots, terms that stand out, and states of a pair side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, for_plotly, interval, number, probability

COLUMNS = (
    "arm",
    "model",
    "class",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "suite",
    "kind",
    "part",
    "term",
    "control",
)
MEASURES = {
    "absolute_margin_change": "size of the change of margin, logits",
    "largest_probability_change": "largest change of a probability, mean",
    "flip_share": "predictions that flip",
}  # fmt: skip
SHOWN_TERMS = 12
SHOWN_DIMENSIONS = 8
LONGEST = 28
NEAR = 0.05  # of the width: names of dimensions that lie nearer would stand on one another
Record = dict[str, Any]


def suite_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return base and tuned as dots with intervals, a line a suite, a panel a measure; controls as diamonds."""
    rows = only(table, part="all")
    suites = list(dict.fromkeys(only(rows, metric="absolute_margin_change", model="tuned")["suite"]))[::-1]
    panels = []
    for metric, title in MEASURES.items():
        traces = []
        for model, ink, shift in (("base", style.BASE_COLOUR, -0.15), ("tuned", colour, 0.15)):
            own = only(rows, **{"class": None}, metric=metric, model=model)
            traces.append(_dots(only(own, control=None), suites, shift, ink, model))
            for control in values(own, "control"):
                traces.append(_dots(only(own, control=control), suites, shift, ink, model, control))
        if not any(trace["x"] for trace in traces):
            continue
        height = 70 + 34 * max(len(suites), 2)
        layout = style.layout(
            height, xaxis=style.axis("", range=_from_zero(traces)),
            yaxis=style.named_axis([for_plotly(name, LONGEST) for name in suites]),
            margin={"l": 110, "r": 12, "t": 8, "b": 36},
        )  # fmt: skip
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, height))
    return tuple(panels)


def _dots(
    rows: pl.DataFrame,
    suites: Sequence[str],
    shift: float,
    colour: str,
    model: str,
    control: str | None = None,
) -> Record:
    records = [
        record
        for record in rows.to_dicts()
        if record["suite"] in suites and finite(record["value"]) is not None
    ]
    what = model if control is None else f"{model}, control {for_plotly(control)}"
    return {
        "type": "scatter", "mode": "markers", "name": what, "x": [r["value"] for r in records],
        "y": [suites.index(r["suite"]) + shift for r in records], "hoverinfo": "text",
        "error_x": interval_bars(records, colour, is_size=True),
        "marker": {
            "size": 8 if control is None else 7, "color": colour,
            "symbol": "circle" if control is None else "diamond-open",
        },
        "text": [
            f"{for_plotly(r['suite'])}, {what}<br>{interval(r['value'], r['low'], r['high'])}, n = {number(r['n'])}"
            for r in records
        ],
    }  # fmt: skip


def _from_zero(traces: Sequence[Record]) -> list[float]:
    """Return the range of an axis of sizes: from a little below 0, so that no dot is cut, to the last upper end."""
    ends = [x + above for one in traces for x, above in zip(one["x"], one["error_x"]["array"], strict=True)]
    most = max(ends, default=0.0) or 1.0
    return [-0.03 * most, 1.04 * most]


def interval_bars(records: Sequence[Record], colour: str, is_size: bool = False) -> Record:
    """Return the error bars of records with value, low and high; those of a size end at 0."""
    known = [(finite(r["low"]), finite(r["value"]), finite(r["high"])) for r in records]
    if is_size:
        known = [(None if low is None else max(low, 0.0), value, high) for low, value, high in known]
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 0,
        "array": [0.0 if h is None or v is None else h - v for _, v, h in known],
        "arrayminus": [0.0 if low is None or v is None else v - low for low, v, _ in known],
    }  # fmt: skip


def class_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return, for each suite with opposite directions, the turned change of every class's margin, base and tuned."""
    rows = only(table, part="all", metric="class_margin_change")
    rows = (
        rows.filter(pl.col("orientation") != "original to rewritten")
        if "orientation" in rows.columns
        else rows.clear()
    )
    panels = []
    for suite in dict.fromkeys(rows["suite"]):
        own = only(rows, suite=suite)
        names = list(dict.fromkeys(own["class"]))[::-1]
        traces = []
        for model, ink, shift in (("base", style.BASE_COLOUR, -0.15), ("tuned", colour, 0.15)):
            records = [r for r in only(own, model=model).to_dicts() if finite(r["value"]) is not None]
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": model, "x": [r["value"] for r in records],
                    "y": [names.index(r["class"]) + shift for r in records], "error_x": interval_bars(records, ink),
                    "marker": {"size": 8, "color": ink, "symbol": [_symbol(r.get("q")) for r in records]},
                    "hoverinfo": "text",
                    "text": [
                        f"{for_plotly(r['class'])}, {model}<br>{interval(r['value'], r['low'], r['high'])} logits"
                        f"<br>q {probability(r.get('q'))}, n = {number(r['n'])}"
                        for r in records
                    ],
                }
            )  # fmt: skip
        height = 76 + 30 * max(len(names), 2)
        layout = style.layout(
            height, xaxis=style.axis("change of margin, logits", zeroline=True, zerolinecolor=style.ZERO),
            yaxis=style.named_axis([for_plotly(name, LONGEST) for name in names]),
            margin={"l": 110, "r": 12, "t": 8, "b": 42},
        )  # fmt: skip
        title = f"{for_plotly(suite)}: {for_plotly(own['orientation'][0])}"
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, height))
    return tuple(panels)


def _symbol(q: Any) -> str:
    known = finite(q)
    return "circle" if known is not None and known <= 0.05 else "circle-open"


def term_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return for each suite the terms that move the tuned model most, base beside; filled where they stand out."""
    rows = only(table, part="term", metric="absolute_margin_change")
    panels = []
    for suite in dict.fromkeys(rows["suite"]):
        own = only(rows, suite=suite)
        tuned = only(own, model="tuned").sort(["value", "term"], descending=[True, False]).head(SHOWN_TERMS)
        terms = tuned["term"].to_list()[::-1]
        if not terms:
            continue
        base = only(own, model="base").filter(pl.col("term").is_in(terms))
        traces = []
        for model, part, ink, shift in (
            ("base", base, style.BASE_COLOUR, -0.15),
            ("tuned", tuned, colour, 0.15),
        ):
            records = part.to_dicts()
            marks = ["circle" if r.get("stands_out") else "circle-open" for r in records]
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": model, "x": [r["value"] for r in records],
                    "y": [terms.index(r["term"]) + shift for r in records],
                    "error_x": interval_bars(records, ink, is_size=True),
                    "marker": {"size": 8, "color": ink, "symbol": marks}, "hoverinfo": "text",
                    "text": [
                        f"{for_plotly(r['term'])}, {model}<br>{interval(r['value'], r['low'], r['high'])} logits"
                        f"<br>pairs without it: {number(r.get('control_value'))}; q {probability(r.get('q'))}, "
                        f"n = {number(r['n'])}"
                        for r in records
                    ],
                }
            )  # fmt: skip
        height = 70 + 24 * len(terms)
        layout = style.layout(
            height, xaxis=style.axis("size of the change of margin, logits", range=_from_zero(traces)),
            yaxis=style.named_axis([for_plotly(term, 24) for term in terms]),
            margin={"l": 110, "r": 12, "t": 8, "b": 42},
        )  # fmt: skip
        panels.append(style.Panel(for_plotly(suite), {"data": traces, "layout": layout}, height))
    return tuple(panels)


def state_panels(
    rows: pl.DataFrame, remove_outliers: bool
) -> tuple[tuple[style.Panel, ...], float, list[int]]:
    """Return heatmaps of one pair in one model: original, rewritten and their difference, tokens by dimensions.

    The first two share a colour scale, and so does the difference; places without a counterpart stay empty.

    Args:
        rows: The aligned places of one pair and model.
        remove_outliers: Leave outlier dimensions empty, so that they do not set the scale.

    Returns:
        The panels, the end of the colour scale, and the outlier dimensions.
    """
    records = rows.sort("place").to_dicts()
    outliers = [int(one) for one in (records[0]["outliers"] or [])]
    hidden = set(outliers) if remove_outliers else set()
    first = [_line(record["original"], hidden) for record in records]
    second = [_line(record["rewritten"], hidden) for record in records]
    width = max((len(line) for line in [*first, *second]), default=0)
    first, second = ([line or [None] * width for line in part] for part in (first, second))
    change = [
        [None if a is None or b is None else b - a for a, b in zip(one, other, strict=True)]
        for one, other in zip(first, second, strict=True)
    ]
    limit = max(
        (abs(v) for part in (first, second, change) for line in part for v in line if v is not None),
        default=0.0,
    )
    names = [
        [for_plotly(r["token"] or "–", 14) for r in records],
        [for_plotly(r["token_rewritten"] or "–", 14) for r in records],
    ]
    both = [a if a == b else f"{a} → {b}" for a, b in zip(*names, strict=True)]
    parts = (
        ("original", first, names[0]),
        ("rewritten", second, names[1]),
        ("rewritten minus original", change, both),
    )
    panels = tuple(_states(title, grid, ticks, limit or 1.0, outliers) for title, grid, ticks in parts)
    return panels, limit, outliers


def _line(state: Sequence[float] | None, hidden: set[int]) -> list[float | None]:
    return [] if state is None else [None if place in hidden else finite(v) for place, v in enumerate(state)]


def _coarse(value: float | None) -> float | None:
    """Return two digits: more than a colour can show, and the tables have them all."""
    return None if value is None else float(f"{value:.2g}")


def _states(
    title: str, grid: list[list[float | None]], ticks: Sequence[str], limit: float, outliers: Sequence[int]
) -> style.Panel:
    data = {
        "type": "heatmap", "z": [[_coarse(value) for value in line] for line in grid],
        "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "hovertemplate": "dimension %{x}, place %{y}<br>%{z}<extra></extra>",
    }  # fmt: skip
    height = max(170, 20 * len(ticks) + 90)
    marks = list(outliers)[:SHOWN_DIMENSIONS]
    width = max((len(line) for line in grid), default=1)
    names = [
        f"▲{one}" if place == 0 or one - marks[place - 1] > NEAR * width else "▲"
        for place, one in enumerate(marks)
    ]
    places = {"tickmode": "array", "tickvals": marks, "ticktext": names, "tickangle": -90} if marks else {}
    layout = style.map_layout(
        height, xaxis=style.axis("dimension of the state (▲ outlier)", showgrid=False, **places),
        yaxis=style.named_axis(ticks, "", autorange="reversed"), margin={"l": 100, "r": 8, "t": 8, "b": 52},
    )  # fmt: skip
    return style.Panel(title, {"data": [data], "layout": layout}, height)
