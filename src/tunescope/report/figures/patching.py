"""Maps of shares that patches and grafts carry, and the curve of what grafting recovers over depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import layer_name, only, preferred_base_head, values
from tunescope.report.text import finite, interval, probability

PATCH_COLUMNS = (
    "arm", "model", "site", "layer", "head", "metric", "value", "low", "high", "q", "control", "direction", "position",
    "estimator",
)  # fmt: skip
CERTAIN = "by_construction"  # a column of newer tables: what a place must carry whatever was learnt
CROSS_COLUMNS = (
    "arm",
    "site",
    "layer",
    "head",
    "metric",
    "value",
    "low",
    "high",
    "q",
    "control",
    "direction",
)
GRAFT_COLUMNS = (*CROSS_COLUMNS, "scope", "share", "picked")
SITE_NAMES = {
    "resid_pre": "stream", "resid_post": "stream after", "attn_out": "attention", "mlp_out": "MLP", "block": "block",
}  # fmt: skip
MODEL_NAMES = {"base": "base", "tuned": "tuned", "tuned_minus_base": "tuned minus base"}
SIGNIFICANT = 0.05
Record = dict[str, Any]
Key = tuple[str, int | None, str | None]  # site, head, position


def share_maps(
    tables: Sequence[tuple[str, pl.DataFrame, pl.DataFrame]], columns: Sequence[Key]
) -> tuple[tuple[style.Panel, ...], float]:
    """Return maps of layers by places on one scale, and its end.

    Args:
        tables: Title, shares, and the same places' control of each map.
        columns: The places, in order: site, head, position.
    """
    limit = max(
        (abs(value) for _, own, _ in tables for value in map(finite, own["value"]) if value is not None),
        default=0.0,
    )
    limit = limit or 1e-9
    return tuple(
        _map(title, own, control, columns, limit) for title, own, control in tables if own.height
    ), limit


def _map(
    title: str, rows: pl.DataFrame, control: pl.DataFrame, columns: Sequence[Key], limit: float
) -> style.Panel:
    layers = values(rows, "layer")
    cells, controls = (
        {
            (one["layer"], (one["site"], one["head"], one.get("position"))): one
            for one in table.iter_rows(named=True)
        }
        for table in (rows, control)
    )
    grid = [[cells.get((layer, column)) for column in columns] for layer in layers]
    data = {
        "type": "heatmap", "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
        "x": list(range(len(columns))), "y": list(range(len(layers))),
        "text": [[_mark(cell) for cell in line] for line in grid], "texttemplate": "%{text}",
        "hovertext": [
            [_hover(cells.get((layer, column)), controls.get((layer, column))) for column in columns]
            for layer in layers
        ],
        "hoverinfo": "text", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    named = [_column(column) for column in columns]
    height = max(220, 24 * len(layers) + (150 if any(len(name) > 3 for name in named) else 90))
    layout = style.map_layout(
        height,
        xaxis=style.named_axis(named),
        yaxis=style.named_axis([layer_name(layer) for layer in layers], "layer"),
    )
    return style.Panel(title, {"data": [data], "layout": layout}, height)


def _column(key: Key) -> str:
    site, head, position = key
    name = str(head) if head is not None else SITE_NAMES.get(site, site)
    return name if position is None or head is not None else f"{name} {position}"


def _mark(cell: Record | None) -> str:
    """Return ``=`` where a place must carry what it does, a dot where chance does not explain it."""
    if cell and cell.get(CERTAIN):
        return "="
    return "•" if _clear(cell) else ""


def _clear(cell: Record | None) -> bool:
    q = finite(cell["q"]) if cell else None
    return q is not None and q <= SIGNIFICANT


def _hover(cell: Record | None, control: Record | None) -> str:
    if cell is None:
        return "not measured"
    where = f"L{cell['layer']}H{cell['head']}" if cell["head"] is not None else f"layer {cell['layer']}"
    name = "" if cell["head"] is not None else f" {SITE_NAMES.get(cell['site'], cell['site'])}"
    position = cell.get("position")
    lines = [f"{where}{name}{f', {position}' if position else ''}: {_said(cell)}"]
    q = finite(cell["q"])
    lines.append(f"{'' if q is None else f'q {probability(q)}, '}n {cell['n']}")
    if control is not None:
        lines.append(f"control: {_said(control)}")
    if cell.get(CERTAIN):
        lines.append(f"carries {cell[CERTAIN]} by construction, whatever was learnt")
    return "<br>".join(lines)


def _said(record: Record) -> str:
    value = finite(record["value"])
    return "undefined" if value is None else interval(value, finite(record["low"]), finite(record["high"]))


def text_columns(table: pl.DataFrame, heads: bool) -> list[Key]:
    """Return the places of a patching table in order: the stream and sublayers by position, or heads."""
    found: list[Key] = []
    order = {name: index for index, name in enumerate(("all", "before", "at", "after", "pooled"))}
    positions = sorted(values(table, "position"), key=lambda one: (order.get(one, 9), one))
    for site in ("head_out",) if heads else ("resid_pre", "attn_out", "mlp_out", "resid_post"):
        own = only(table, site=site)
        for position in positions:
            here = only(own, position=position)
            if here.height:
                found += [(site, head, position) for head in values(here, "head") or [None]]
    return found


def cross_columns(table: pl.DataFrame) -> list[Key]:
    """Return the places of a table without positions: sites, then heads."""
    sites = [site for site in SITE_NAMES if only(table, site=site).height]
    return [
        *((site, None, None) for site in sites),
        *(("head_out", head, None) for head in values(table, "head")),
    ]


def patch_panels(table: pl.DataFrame, direction: str, heads: bool) -> tuple[tuple[style.Panel, ...], float]:
    """Return maps of base, tuned and tuned minus base for one direction of patching between texts."""
    own = only(table, direction=direction, estimator="ratio_of_sums")
    tables: list[tuple[str, pl.DataFrame, pl.DataFrame]] = []
    sites = pl.col("site") == "head_out" if heads else pl.col("site") != "head_out"
    for model, name in MODEL_NAMES.items():
        rows = preferred_base_head(only(own, model=model)) if model == "base" else only(own, model=model)
        rows = rows.filter(sites)
        tables.append((name, only(rows, control="none"), only(rows, control="unrelated")))
    shown = only(own, control="none")
    return share_maps([one for one in tables if one[1].height], text_columns(shown, heads))


def cross_panels(table: pl.DataFrame, scope: str | None = None) -> tuple[tuple[style.Panel, ...], float]:
    """Return maps of what is recovered in the base, and what the tuned model loses, of the margin's gain."""
    tables = []
    for metric, title in (("recovered_margin", "tuned into base"), ("lost_margin", "base into tuned")):
        rows = only(table, metric=metric)
        rows = rows if scope is None else only(rows, scope=scope)
        rows = rows.filter(pl.col("layer").is_not_null())
        tables.append((title, only(rows, control="none"), only(rows, control="random")))
    kept = [one for one in tables if one[1].height]
    return share_maps(kept, cross_columns(pl.concat([one[1] for one in kept]))) if kept else ((), 0.0)


def curve_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return what grafting recovers up to each depth, from each depth on, and by shares of matrix rows."""
    panels = []
    for scope, title in (("up_to_here", "grafted up to here"), ("from_here", "grafted from here on")):
        traces, layers = _curves(
            table, scope, colour, lambda row: -1 if row["layer"] is None else int(row["layer"])
        )
        if traces:
            ticks = {
                "tickmode": "array",
                "tickvals": layers,
                "ticktext": [layer_name(int(one)) for one in layers],
            }
            panels.append(_panel(title, traces, style.axis("layer", showgrid=False, **ticks)))
    traces, shares = _curves(table, "rows", colour, lambda row: float(row["share"]))
    if traces:
        ticks = {"tickmode": "array", "tickvals": shares, "ticktext": [f"{100 * one:g} %" for one in shares]}
        axis = style.axis("share of matrix rows", type="log", showgrid=False, **ticks)
        panels.append(_panel("rows that moved furthest", traces, axis))
    return tuple(panels)


def _curves(
    table: pl.DataFrame, scope: str, colour: str, place: Callable[[Record], float]
) -> tuple[list[Record], list[float]]:
    own = only(table, metric="recovered_accuracy", scope=scope).filter(pl.col("value").is_not_null())
    traces: list[Record] = []
    places: list[float] = []
    for control, ink in (("random", style.BASE_COLOUR), ("none", colour)):
        rows = sorted(only(own, control=control).to_dicts(), key=place)
        if not rows:
            continue
        x = [place(row) for row in rows]
        places = sorted({*places, *x})
        known = [(at, row) for at, row in zip(x, rows, strict=True) if None not in (row["low"], row["high"])]
        traces.append({
            "type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": style.faded(ink, 0.16),
            "x": [*(at for at, _ in known), *(at for at, _ in reversed(known))],
            "y": [*(row["high"] for _, row in known), *(row["low"] for _, row in reversed(known))],
            "line": {"width": 0}, "hoverinfo": "skip",
        })  # fmt: skip
        name = "random change of the same size" if control == "random" else "tuned weights"
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": x, "y": [row["value"] for row in rows],
            "line": {"color": ink, "width": 2, "dash": "dot" if control == "random" else "solid"},
            "marker": {"size": 6, "color": ink}, "hoverinfo": "text",
            "text": [f"{row['component']}, {name}: {_said(row)}, n {row['n']}" for row in rows],
        })  # fmt: skip
    return traces, places


def _panel(title: str, traces: list[Record], xaxis: Record) -> style.Panel:
    layout = style.layout(
        250, xaxis=xaxis, yaxis=style.axis("share of the gain in accuracy"), hovermode="closest",
        shapes=[
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level,
             "line": {"color": style.ZERO, "width": 1, "dash": "dot"}}
            for level in (0, 1)
        ],
    )  # fmt: skip
    return style.Panel(title, {"data": traces, "layout": layout}, 250)
