"""Attention by head and layer: what changed, in which direction, and what it was."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import cells, style
from tunescope.report.figures.select import only
from tunescope.report.text import finite, interval, number

COLUMNS = ("arm", "model", "layer", "head", "metric", "value", "low", "high", "n", "q", "control")
CHANGES = {
    "entropy_without_sink": "entropy without the first token",
    "sink_mass": "share on the first token",
    "distance": "distance in tokens",
    "gini": "concentration (Gini)",
}
HEIGHT = 250
Record = dict[str, Any]


def divergence_panels(rows: pl.DataFrame) -> tuple[tuple[style.Panel, ...], float]:
    """Return how far base and tuned are apart, head by head, and the end of the first map's scale.

    Jensen-Shannon first; Kullback-Leibler beside it on a scale of its own, named over it.
    """
    own = only(rows, metric="jensen_shannon")
    top = finite(own["value"].max()) if own.height else None
    if not top:
        return (), 1.0
    look = cells.Look(0, top, style.BLUES, HEIGHT)
    panels = [cells.layer_map("Jensen-Shannon", own, cells.head_names(own), look, _apart)]
    other = only(rows, metric="kl")
    most = finite(other["value"].max()) if other.height else None
    if most:
        title = f"KL from base to tuned: 0 to {number(most)} nats"
        look = cells.Look(0, most, style.BLUES, HEIGHT)
        panels.append(cells.layer_map(title, other, cells.head_names(other), look, _diverged))
    return tuple(panels), top


def _diverged(cell: Record) -> str:
    return f"{interval(cell['value'], cell['low'], cell['high'])} nats (KL), n = {number(cell['n'])}"


def _apart(cell: Record) -> str:
    shown = (
        f"{interval(cell['value'], cell['low'], cell['high'])} bits (Jensen-Shannon), n = {number(cell['n'])}"
    )
    control = finite(cell.get("control"))
    return shown if control is None else f"{shown}<br>two heads of this layer of the base: {number(control)}"


def change_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return tuned minus base of each statistic, each on its own scale around zero."""
    panels = []
    for metric, title in CHANGES.items():
        own = only(rows, metric=metric, model="tuned_minus_base")
        most = max((abs(value) for value in own["value"].drop_nulls()), default=0.0) if own.height else 0.0
        if not most:
            continue
        before = {
            (r["layer"], r["head"]): r for r in only(rows, metric=metric, model="base").iter_rows(named=True)
        }

        def say(cell: Record, known: dict[tuple[int, int], Record] = before) -> str:
            base = known.get((cell["layer"], cell["head"]), {}).get("value")
            changed = interval(cell["value"], cell["low"], cell["high"])
            return f"changed by {changed}, q = {number(cell['q'])}<br>base: {number(base)}, n = {number(cell['n'])}"

        look = cells.Look(-most, most, style.DIVERGING, HEIGHT, _sure)
        panels.append(cells.layer_map(f"{title}: ±{number(most)}", own, cells.head_names(own), look, say))
    return tuple(panels)


def _sure(cell: Record) -> bool:
    q = finite(cell.get("q"))
    return q is not None and q <= 0.05
