"""Information flow: a layered graph of the strongest edges, and how far each token reaches the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, for_plotly, interval, number

COLUMNS = ("arm", "model", "metric", "value", "low", "high", "n", "q", "layer", "site", "head")
EXAMPLE_COLUMNS = ("arm", "model", "row_id", "key", "value")
STRONGEST = 24
HEIGHT = 480
TITLES = {"base": "base", "tuned": "tuned", "tuned_minus_base": "tuned minus base"}
MORE, LESS = "#2166ac", "#b2182b"
Record = dict[str, Any]


def edges_of(rows: pl.DataFrame, model: str, between: bool = True) -> pl.DataFrame:
    """Return the strongest edges of one model, strongest first.

    Args:
        rows: The lens's rows of one training.
        model: ``base``, ``tuned`` or ``tuned_minus_base``.
        between: Only edges between heads and MLPs, without embeddings and logits.
    """
    own = only(rows, metric="direct_effect", model=model).filter(pl.col("value").is_not_null())
    if between:
        own = own.filter((pl.col("site") != "logits") & (pl.col("from_site") != "embeddings"))
    return own.sort(pl.col("value").abs(), "sender", "receiver", descending=[True, False, False])


def graph_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return the strongest edges as a layered graph for base, tuned and their difference, on one scale of widths."""
    found = {which: edges_of(rows, which).head(STRONGEST) for which in TITLES}
    most = max((abs(one) for edges in found.values() for one in edges["value"]), default=0.0)
    if not most:
        return ()
    shape = only(rows, metric="direct_effect")
    layers = values(shape, "layer")
    heads = values(only(shape, site="head_out"), "head")
    return tuple(
        _graph(TITLES[which], edges, layers, heads, most) for which, edges in found.items() if edges.height
    )


def _place(site: str, layer: int, head: int | None, heads: Sequence[int]) -> tuple[float, float]:
    """Return where a part stands: layers from left to right, heads from top to bottom, the MLP below and behind."""
    if site == "mlp_out":
        return layer + 0.45, float(len(heads))
    return float(layer), float(heads.index(head if head is not None else 0))


def _graph(
    title: str, edges: pl.DataFrame, layers: Sequence[int], heads: Sequence[int], most: float
) -> style.Panel:
    traces: list[Record] = [_all_nodes(layers, heads)]
    for edge in reversed(list(edges.iter_rows(named=True))):  # the strongest is drawn last, on top
        x, y = _place(edge["from_site"], edge["from_layer"], edge["from_head"], heads)
        to_x, to_y = _place(edge["site"], edge["layer"], edge["head"], heads)
        strength = abs(edge["value"]) / most
        colour = MORE if edge["value"] > 0 else LESS
        middle_x, middle_y = _middle((x, y), (to_x, to_y))
        traces.append({
            "type": "scatter", "mode": "lines", "x": [x, middle_x, to_x], "y": [y, middle_y, to_y],
            "hoverinfo": "skip",
            "line": {
                "color": style.faded(colour, 0.35 + 0.6 * strength), "width": 0.8 + 5 * strength, "shape": "spline",
            },
        })  # fmt: skip
    ends = {
        (edge[f"{side}site"], edge[f"{side}layer"], edge[f"{side}head"])
        for edge in edges.iter_rows(named=True)
        for side in ("", "from_")
    }
    traces += [_named(sorted(ends, key=str), heads), _middles(edges, heads)]
    names = [f"H{head}" for head in heads] + ["MLP"]
    layout = style.layout(
        HEIGHT,
        xaxis=style.axis("layer", tickmode="array", tickvals=list(layers), ticktext=[str(one) for one in layers],
                         showgrid=False, range=[-0.6, len(layers) - 0.1]),
        yaxis=style.named_axis(names, range=[len(names) - 1 + 0.5 * len(layers), -0.7]),
        hovermode="closest",
    )  # fmt: skip
    return style.Panel(title, {"data": traces, "layout": layout}, HEIGHT)


def _middle(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the middle of an edge; edges between MLPs hang below their line, the longer the lower."""
    sag = 0.45 * (other[0] - one[0]) if one[1] == other[1] else 0.0
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2 + sag


def _all_nodes(layers: Sequence[int], heads: Sequence[int]) -> Record:
    places = [_place("head_out", layer, head, heads) for layer in layers for head in heads]
    places += [_place("mlp_out", layer, None, heads) for layer in layers]
    return {
        "type": "scatter", "mode": "markers", "x": [x for x, _ in places], "y": [y for _, y in places],
        "marker": {"size": 4, "color": style.BASE_COLOUR, "opacity": 0.5}, "hoverinfo": "skip",
    }  # fmt: skip


def _named(parts: Sequence[tuple[str, int, int | None]], heads: Sequence[int]) -> Record:
    places = [_place(*part, heads) for part in parts]
    names = [f"L{layer}.mlp" if site == "mlp_out" else f"L{layer}H{head}" for site, layer, head in parts]
    return {
        "type": "scatter", "mode": "markers+text", "x": [x for x, _ in places], "y": [y for _, y in places],
        "marker": {"size": 8, "color": style.ZERO}, "text": names, "textposition": "top center",
        "textfont": {"size": 10}, "hoverinfo": "skip",
    }  # fmt: skip


def _middles(edges: pl.DataFrame, heads: Sequence[int]) -> Record:
    """Return invisible points in the middle of the edges, which carry what the hover says."""
    rows = list(edges.iter_rows(named=True))
    middles = [
        _middle(
            _place(row["from_site"], row["from_layer"], row["from_head"], heads),
            _place(row["site"], row["layer"], row["head"], heads),
        )
        for row in rows
    ]
    return {
        "type": "scatter", "mode": "markers", "x": [x for x, _ in middles], "y": [y for _, y in middles],
        "marker": {"size": 12, "opacity": 0},
        "hoverinfo": "text", "text": [said(row) for row in rows],
    }  # fmt: skip


def said(edge: Record) -> str:
    """Return what the hover says of an edge."""
    random = finite(edge.get("control"))
    beside = "" if random is None else f"<br>a random direction of its norm: {number(random)} in size"
    return (
        f"{edge['sender']} → {edge['receiver']}<br>{interval(edge['value'], edge['low'], edge['high'])} logits, "
        f"q = {number(edge['q'])}, n = {number(edge['n'])}{beside}"
    )


def strongest_panel(rows: pl.DataFrame, colour: str) -> style.Panel | None:
    """Return the strongest edges of the tuned model by name, embeddings and answer included, base beside them."""
    tuned = edges_of(rows, "tuned", between=False).head(STRONGEST)
    if tuned.is_empty():
        return None
    order = [f"{row['sender']} → {row['receiver']}" for row in tuned.iter_rows(named=True)]
    traces: list[Record] = []
    for which, ink in (("base", style.BASE_COLOUR), ("tuned", colour)):
        own = edges_of(rows, which, between=False)
        at = {f"{row['sender']} → {row['receiver']}": row for row in own.iter_rows(named=True)}
        there = [name for name in order if name in at]
        if there:
            traces.append(
                _bars([at[name] for name in there], [order.index(name) for name in there], which, ink)
            )
    height = 90 + 20 * len(order)
    layout = style.layout(
        height,
        xaxis=style.axis("logits", zeroline=True, zerolinecolor=style.ZERO),
        yaxis=style.named_axis(order, range=[len(order) - 0.5, -0.5]),
        hovermode="closest",
    )
    return style.Panel("strongest edges by name", {"data": traces, "layout": layout}, height)


def _bars(rows: Sequence[Record], places: Sequence[int], name: str, ink: str) -> Record:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [row["value"] for row in rows],
        "y": [place + (0.15 if name == "base" else -0.15) for place in places],
        "marker": {"size": 7, "color": ink}, "hoverinfo": "text", "text": [f"{name}<br>{said(row)}" for row in rows],
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 0, "color": ink,
            "array": [(finite(row["high"]) or row["value"]) - row["value"] for row in rows],
            "arrayminus": [row["value"] - (finite(row["low"]) or row["value"]) for row in rows],
        },
    }  # fmt: skip


def table_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the strongest edges of each model as a table, for files."""
    wanted = ["model", "sender", "receiver", "value", "low", "high", "q", "size", "control", "n"]
    return pl.concat(
        [edges_of(rows, which, between=False).head(STRONGEST).select(wanted) for which in TITLES]
    )


def rollout_panels(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return how the rollout to the answer's place changes with depth, base beside tuned."""
    panels = []
    for metric, title in (
        ("rollout_entropy", "evenness over tokens (entropy)"), ("rollout_first", "share of the first token"),
        ("rollout_last", "share of the last token"), ("rollout_jensen_shannon", "base against tuned (bits)"),
    ):  # fmt: skip
        traces = []
        for which, ink in (("base", style.BASE_COLOUR), ("tuned", colour), ("base_tuned", colour)):
            own = only(rows, metric=metric, model=which).sort("layer")
            if own.height:
                traces.append(_line(own, which, ink))
        if traces:
            layout = style.layout(
                220,
                xaxis=style.axis("layer", dtick=1, showgrid=False),
                yaxis=style.axis("", rangemode="tozero"),
            )
            panels.append(style.Panel(title, {"data": traces, "layout": layout}, 220))
    return tuple(panels)


def _line(rows: pl.DataFrame, name: str, ink: str) -> Record:
    value, low, high = (rows[column].to_list() for column in ("value", "low", "high"))
    ends = [
        (one if top is None else top, one if bottom is None else bottom)
        for one, top, bottom in zip(value, high, low, strict=True)
    ]
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": rows["layer"].to_list(), "y": value,
        "line": {"color": ink, "width": 2}, "marker": {"size": 5}, "hoverinfo": "text",
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 2,
            "array": [top - one for one, (top, _) in zip(value, ends, strict=True)],
            "arrayminus": [one - bottom for one, (_, bottom) in zip(value, ends, strict=True)],
        },
        "text": [
            f"{name}, layer {row['layer']}: {interval(row['value'], row['low'], row['high'])}, n = {number(row['n'])}"
            for row in rows.iter_rows(named=True)
        ],
    }  # fmt: skip


def token_panels(examples: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return, for each kept text, how much of each token reaches the answer's place behind the last layer."""
    panels = []
    for row_id in examples["row_id"].unique(maintain_order=True):
        own = only(examples, row_id=row_id)
        size = int(own["key"].max()) + 1  # type: ignore[arg-type]
        known = dict(own.select("key", "key_token").rows()) if "key_token" in own.columns else {}
        names = [
            str(place) if known.get(place) is None else for_plotly(known[place], 14) for place in range(size)
        ]
        traces = []
        for which, ink in (("base", style.BASE_COLOUR), ("tuned", colour)):
            part = only(own, model=which).sort("key")
            traces.append({
                "type": "scatter", "mode": "lines+markers", "name": which, "x": part["key"].to_list(),
                "y": part["value"].to_list(), "line": {"color": ink, "width": 1.5}, "marker": {"size": 5},
                "hoverinfo": "text",
                "text": [
                    f"{names[key]}, {which}: {number(value)}" for key, value in part.select("key", "value").rows()
                ],
            })  # fmt: skip
        layout = style.layout(
            230, xaxis=style.named_axis(names, tickangle=-60), yaxis=style.axis("share", rangemode="tozero")
        )
        panels.append(style.Panel(f"row {row_id}", {"data": traces, "layout": layout}, 230))
    return tuple(panels)
