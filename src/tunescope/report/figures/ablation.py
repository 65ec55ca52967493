"""Ablation figures: every head as a map, every sublayer as bars with intervals, classes by layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import layer_name, only, preferred_base_head, values
from tunescope.report.text import finite, for_plotly, interval, number, probability, signed

COLUMNS = (
    "arm", "model", "site", "layer", "head", "class", "edit", "control", "metric",
    "value", "low", "high", "n", "p", "q",
)  # fmt: skip
SIGNIFICANT = 0.05
EDIT_NAMES = {
    "zero": "set to zero", "mean": "set to its mean", "position_mean": "set to its mean at each position",
    "resample": "taken from another example", "resample_other_class": "taken from an example of another class",
    "noise": "with noise of its own spread",
}  # fmt: skip
SUBLAYERS = {"attn_out": "attention", "mlp_out": "MLP"}
MODEL_NAMES = {"tuned": "tuned", "base": "base", "tuned_minus_base": "tuned minus base"}
METRIC_NAMES = {
    "margin_change": "change of the logit margin",
    "log_likelihood_change": "change of the true tokens' log-probability (nats; minus the change of loss per token)",
    "probability_change": "change of the true class's probability",
    "predicted_margin_change": "change of the predicted class's logit margin",
    "kl": "divergence from the unchanged answer (nats)",
    "flip": "share of answers that flip",
}


def of_many(edit: str) -> str:
    """Return the words for an edit of several components."""
    return EDIT_NAMES.get(edit, edit).replace("its", "their")


def no_op(table: pl.DataFrame, metric: str) -> float | None:
    """Return how far a change of nothing moved the answer at most, over all blocks; None where it was not tried."""
    rows = only(table, **{"class": None}, control="no_op", metric=metric)
    found = [abs(value) for value in map(finite, rows["value"]) if value is not None]
    return max(found, default=None)


def effects(
    table: pl.DataFrame, *, site: str, edit: str, model: str, control: str, metric: str = "margin_change"
) -> pl.DataFrame:
    """Return the rows of one kind of edit over all rows of the data (no class), for one model."""
    rows = only(table, **{"class": None}, site=site, edit=edit, model=model, control=control, metric=metric)
    return preferred_base_head(rows) if model == "base" else rows


def edits(table: pl.DataFrame) -> list[str]:
    """Return the edits of a table, zero before mean before others."""
    found = [str(edit) for edit in values(table, "edit")]
    return sorted(found, key=lambda edit: [*EDIT_NAMES, edit].index(edit))


def shown_metrics(table: pl.DataFrame) -> list[str]:
    """Return the metrics that have one number a component, the change of the margin first."""
    return [metric for metric in METRIC_NAMES if metric in values(table, "metric")]


def head_panels(
    table: pl.DataFrame, metric: str, site: str = "head_out"
) -> tuple[tuple[style.Panel, ...], float]:
    """Return head maps (edits x models) of one arm and seed on one scale, and the end of that scale.

    Args:
        table: One arm and seed.
        metric: Which effect.
        site: ``head_out`` for heads taken out one by one, ``all_but_one:head_out`` for all others.
    """
    found, last = [], []  # controls come last, so that models stand side by side
    for edit in edits(table):
        for model, name in MODEL_NAMES.items():
            rows = effects(table, site=site, edit=edit, model=model, control="none", metric=metric)
            if not rows.is_empty():
                controls = effects(table, site=site, edit=edit, model=model, control="random", metric=metric)
                what = "head" if site == "head_out" else "all others"
                said = EDIT_NAMES.get(edit, edit) if site == "head_out" else of_many(edit)
                found.append((f"{name}, {what} {said}", rows, controls))
                if model == "tuned" and not controls.is_empty():
                    last.append(("control: random direction, tuned", controls, controls.clear()))
    found += last
    limit = max(
        (abs(v) for _, rows, _ in found for v in map(finite, rows["value"]) if v is not None), default=0.0
    )
    limit = limit or 1e-9
    return tuple(_head_map(title, rows, controls, limit) for title, rows, controls in found), limit


def _head_map(title: str, rows: pl.DataFrame, controls: pl.DataFrame, limit: float) -> style.Panel:
    layers, heads = values(rows, "layer"), values(rows, "head")
    cells = {(r["layer"], r["head"]): r for r in rows.iter_rows(named=True)}
    random = {(r["layer"], r["head"]): r for r in controls.iter_rows(named=True)}
    grid = [[cells.get((layer, head)) for head in heads] for layer in layers]
    data = {
        "type": "heatmap",
        "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
        "x": list(range(len(heads))), "y": list(range(len(layers))),
        "text": [["•" if _clear(cell) else "" for cell in line] for line in grid], "texttemplate": "%{text}",
        "hovertext": [
            [_head_hover(layer, head, cells.get((layer, head)), random.get((layer, head))) for head in heads]
            for layer in layers
        ],
        "hoverinfo": "text", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    height = max(220, 24 * len(layers) + 90)
    figure_layout = style.map_layout(
        height,
        xaxis=style.named_axis([str(head) for head in heads], "head"),
        yaxis=style.named_axis([layer_name(layer) for layer in layers], "layer"),
    )
    return style.Panel(title, {"data": [data], "layout": figure_layout}, height)


def _clear(cell: dict[str, Any] | None) -> bool:
    q = finite(cell["q"]) if cell else None
    return q is not None and q <= SIGNIFICANT


def _head_hover(layer: int, head: int, cell: dict[str, Any] | None, control: dict[str, Any] | None) -> str:
    return f"L{layer}H{head}<br>not measured" if cell is None else _hover(f"L{layer}H{head}", cell, control)


def _hover(where: str, cell: dict[str, Any], control: dict[str, Any] | None) -> str:
    bounds = interval(cell["value"], cell["low"], cell["high"]).partition(" ")[2]
    lines = [
        where,
        f"{signed(cell['value'])} {bounds}",
        f"p {probability(cell['p'])}, q {probability(cell['q'])}, n = {number(cell['n'])}",
    ]
    if control is not None:
        lines.append(f"control (random direction): {signed(control['value'])}")
    return "<br>".join(lines)


def sublayer_panels(table: pl.DataFrame, metric: str, colour: str) -> tuple[style.Panel, ...]:
    """Return bars with intervals per layer: attention and MLP sublayers x edits, tuned beside base."""
    wanted = [(site, edit) for edit in edits(table) for site in ("attn_out", "mlp_out")]
    rows = table.filter(pl.col("site").is_in(["attn_out", "mlp_out"]))
    bounds = [0.0]
    for column in ("value", "low", "high"):
        shown = only(rows, **{"class": None}, metric=metric, control="none")
        bounds += [value for value in map(finite, shown[column]) if value is not None]
    room = 0.06 * ((max(bounds) - min(bounds)) or 1.0)
    limits = [min(bounds) - room, max(bounds) + room]
    made = (_bars(table, site, edit, metric, colour, limits) for site, edit in wanted)
    return tuple(panel for panel in made if panel is not None)


def _bars(
    table: pl.DataFrame, site: str, edit: str, metric: str, colour: str, limits: Sequence[float]
) -> style.Panel | None:
    data = []
    for model, shade in (("base", style.BASE_COLOUR), ("tuned", colour)):
        rows = effects(table, site=site, edit=edit, model=model, control="none", metric=metric).sort("layer")
        if rows.is_empty():
            continue
        controls = effects(table, site=site, edit=edit, model=model, control="random", metric=metric).sort(
            "layer"
        )
        random = {r["layer"]: r for r in controls.iter_rows(named=True)}
        data.append(_bar_trace(rows, random, model, shade))
        if model == "tuned" and random:
            data.append(_control_marks(controls))
    if not data:
        return None
    layers = sorted({layer for trace in data for layer in trace["x"]})
    ticks = {"tickmode": "array", "tickvals": layers, "ticktext": [layer_name(layer) for layer in layers]}
    figure_layout = style.layout(
        250,
        barmode="group", bargap=0.3,
        xaxis=style.axis("layer", showgrid=False, **ticks),
        yaxis=style.axis("", range=list(limits), zeroline=True, zerolinecolor=style.ZERO),
    )  # fmt: skip
    return style.Panel(
        f"{SUBLAYERS[site]} {EDIT_NAMES.get(edit, edit)}", {"data": data, "layout": figure_layout}, 250
    )


def _bar_trace(
    rows: pl.DataFrame, random: dict[int, dict[str, Any]], model: str, colour: str
) -> dict[str, Any]:
    records = rows.to_dicts()
    return {
        "type": "bar", "name": model,
        "x": [r["layer"] for r in records], "y": [finite(r["value"]) for r in records],
        "marker": {"color": colour}, "hoverinfo": "text", "textposition": "none",
        "hovertext": [
            _hover(f"{model}, layer {layer_name(r['layer'])}", r, random.get(r["layer"])) for r in records
        ],
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 3, "color": style.ZERO,
            "array": [_gap(r["high"], r["value"]) for r in records],
            "arrayminus": [_gap(r["value"], r["low"]) for r in records],
        },
    }  # fmt: skip


def _gap(upper: Any, lower: Any) -> float | None:
    upper, lower = finite(upper), finite(lower)
    return None if upper is None or lower is None else max(upper - lower, 0.0)


def _control_marks(controls: pl.DataFrame) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": "random direction", "x": controls["layer"].to_list(),
        "y": [finite(value) for value in controls["value"]], "hoverinfo": "skip",
        "marker": {"symbol": "diamond-open", "size": 9, "color": style.ZERO, "line": {"width": 1.5}},
    }  # fmt: skip


def class_panels(
    table: pl.DataFrame, labels: Sequence[str], edit: str
) -> tuple[tuple[style.Panel, ...], float]:
    """Return layers x classes for attention and MLP sublayers of the tuned model, on one scale."""
    rows = only(table, edit=edit, model="tuned", control="none", metric="margin_change")
    rows = rows.filter(pl.col("class").is_not_null() & pl.col("site").is_in(["attn_out", "mlp_out"]))
    known = values(rows, "class")
    classes = [name for name in labels if name in known] + [name for name in known if name not in labels]
    limit = max((abs(v) for v in map(finite, rows["value"]) if v is not None), default=0.0) or 1e-9
    panels = []
    for site, name in SUBLAYERS.items():
        own = only(rows, site=site)
        if not own.is_empty():
            title = f"{name} {EDIT_NAMES.get(edit, edit)}, tuned"
            panels.append(_class_map(own, classes, title, limit))
    return tuple(panels), limit


def _class_map(rows: pl.DataFrame, classes: Sequence[str], title: str, limit: float) -> style.Panel:
    layers = values(rows, "layer")
    cells = {(r["layer"], r["class"]): r for r in rows.iter_rows(named=True)}
    grid = [[cells.get((layer, name)) for name in classes] for layer in layers]
    data = {
        "type": "heatmap",
        "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
        "x": list(range(len(classes))), "y": list(range(len(layers))),
        "text": [[number(finite(cell["value"]), 2) if cell else "" for cell in line] for line in grid],
        "texttemplate": "%{text}", "textfont": {"size": 11},
        "hovertext": [
            [
                "not measured" if cell is None else _hover(f"layer {layer}, {for_plotly(name)}", cell, None)
                for name, cell in zip(classes, line, strict=True)
            ]
            for layer, line in zip(layers, grid, strict=True)
        ],
        "hoverinfo": "text", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    height = max(200, 26 * len(layers) + 60)
    figure_layout = style.map_layout(
        height,
        margin={"l": 52, "r": 12, "t": 10, "b": 28},
        xaxis=style.named_axis([for_plotly(name, 18) for name in classes]),
        yaxis=style.named_axis([layer_name(layer) for layer in layers], "layer"),
    )
    return style.Panel(title, {"data": [data], "layout": figure_layout}, height)
