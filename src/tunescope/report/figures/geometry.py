"""Rogue dimensions, what single dimensions decide, and the variants of CKA over depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import EMBEDDINGS, only, values
from tunescope.report.text import finite, for_plotly, interval, number

SPREAD_COLUMNS = ("arm", "model", "site", "layer", "metric", "value", "dimension", "rank")
DIMENSION_COLUMNS = ("arm", "model", "metric", "value", "low", "high", "dimension", "by")
CKA_VARIANTS = {
    "cka": "as it is", "cka_standardised": "standardised", "cka_without_outliers": "without outlier dimensions",
}  # fmt: skip
LABELLED = 3
Record = dict[str, Any]


def spike_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return variance over the mean variance, dimension by dimension, at the last site: base and tuned."""
    rows = only(table, metric="variance_over_mean").filter(pl.col("value").is_not_null())
    panels = []
    top = finite(rows.filter(pl.col("layer") == rows["layer"].max())["value"].max()) if rows.height else None
    for model in ("base", "tuned"):
        own = only(rows, model=model)
        if own.is_empty():
            continue
        own = own.filter(pl.col("layer") == own["layer"].max()).sort("dimension")
        ink = style.BASE_COLOUR if model == "base" else colour
        spikes = {
            "type": "bar", "x": own["dimension"].to_list(), "y": own["value"].to_list(), "width": 1.6,
            "marker": {"color": ink, "line": {"width": 0}}, "hoverinfo": "text",
            "hovertext": [_spike(model, record) for record in own.iter_rows(named=True)],
        }  # fmt: skip
        named = own.sort("value", descending=True).head(LABELLED)
        labels = {
            "type": "scatter", "mode": "text", "x": named["dimension"].to_list(), "y": named["value"].to_list(),
            "text": [str(one) for one in named["dimension"]], "textposition": "top center", "hoverinfo": "skip",
        }  # fmt: skip
        layout = style.layout(
            260,
            xaxis=style.axis("dimension", showgrid=False),
            yaxis=style.axis("variance / mean variance", range=[0, 1.15 * (top or 1.0)]),
            bargap=0,
        )
        panels.append(style.Panel(model, {"data": [spikes, labels], "layout": layout}, 260))
    return tuple(panels)


def layer_spikes(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the tuned model's variance by dimension at every site but the last, as study 001's third figure."""
    rows = only(table, metric="variance_over_mean", model="tuned").filter(pl.col("value").is_not_null())
    panels = []
    for layer, site in rows.select("layer", "site").unique().sort("layer", "site").rows()[:-1]:
        own = only(rows, layer=layer, site=site).sort("dimension")
        named = own.sort("value", descending=True).head(LABELLED)
        data = [
            {"type": "bar", "x": own["dimension"].to_list(), "y": own["value"].round(3).to_list(), "width": 1.6,
             "marker": {"color": colour, "line": {"width": 0}}, "hoverinfo": "x+y"},
            {"type": "scatter", "mode": "text", "x": named["dimension"].to_list(), "y": named["value"].to_list(),
             "text": [str(one) for one in named["dimension"]], "textposition": "top center", "hoverinfo": "skip"},
        ]  # fmt: skip
        top = finite(own["value"].max()) or 1.0
        layout = style.layout(
            180, xaxis=style.axis("", showgrid=False), yaxis=style.axis("", range=[0, 1.2 * top]), bargap=0
        )
        title = _depth({"layer": layer, "site": site})
        panels.append(style.Panel(title, {"data": data, "layout": layout}, 180))
    return tuple(panels)


def _spike(model: str, record: Record) -> str:
    shown = interval(record["value"], record.get("low"), record.get("high"), 2)
    return f"{model}, dimension {record['dimension']}<br>{shown} times the mean, rank {record['rank'] + 1}"


def isotropy_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the measures of the whole cloud over depth, base and tuned."""
    titles = {
        "rogue_dimensions": "rogue dimensions", "participation_ratio": "participation ratio",
        "iso_score": "IsoScore", "mean_cosine": "mean cosine",
    }  # fmt: skip
    panels = []
    for metric, title in titles.items():
        traces = [
            depth_line(only(table, metric=metric, model=model).sort("layer"), model, ink)
            for model, ink in (("base", style.BASE_COLOUR), ("tuned", colour))
        ]
        if any(trace["x"] for trace in traces):
            panels.append(style.Panel(title, {"data": traces, "layout": depth_layout(table, 210)}, 210))
    shared = only(table, metric="shared_top_dimensions").filter(pl.col("value").is_not_null()).sort("layer")
    if shared.height:
        chance = depth_line(shared.with_columns(value=pl.col("control")), "by chance", style.BASE_COLOUR)
        traces = [chance, depth_line(shared, "base and tuned", colour)]
        layout = depth_layout(table, 210, {"rangemode": "tozero"})
        title = f"of the {shared['top'][0]} loudest, shared by base and tuned"
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, 210))
    return tuple(panels)


def variant_panels(table: pl.DataFrame, colour: str, band: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return CKA of base against tuned, site by site, one panel a variant; nothing where only one was measured.

    Args:
        table: CKA rows of one arm and seed.
        colour: The arm's.
        band: CKA rows of the arm between tuned models of two seeds; a grey band where there are any.
    """
    same = only(table, model="base_tuned").filter(
        (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
    )
    present = [metric for metric in CKA_VARIANTS if metric in values(same, "metric")]
    if len(present) < 2:
        return ()
    panels = []
    for metric in present:
        own = only(same, metric=metric).sort("layer")
        control = own.with_columns(value=pl.col("control"), low=None, high=None)
        traces = [
            *_seed_band(band, metric),
            depth_line(control, "rows shuffled", style.BASE_COLOUR),
            depth_line(own, "base against tuned", colour),
        ]
        layout = depth_layout(same, 230, {"range": [-0.05, 1.05]})
        panels.append(style.Panel(CKA_VARIANTS[metric], {"data": traces, "layout": layout}, 230))
    return tuple(panels)


def _seed_band(band: pl.DataFrame, metric: str) -> Iterable[Record]:
    """Yield the grey band of tuned models of two seeds, from the lowest to the highest end of their intervals."""
    own = only(band, metric=metric).filter(pl.col("value").is_not_null())
    low, high = pl.min_horizontal("low", "value").min(), pl.max_horizontal("high", "value").max()
    ends = own.group_by("layer").agg(low.alias("low"), high.alias("high")).sort("layer")
    if ends.height:
        x, lows, highs = (ends[name].to_list() for name in ("layer", "low", "high"))
        yield {
            "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)],
            "y": [*highs, *reversed(lows)], "fill": "toself",
            "fillcolor": style.faded(style.BASE_COLOUR, 0.28), "hoverinfo": "skip", "name": "tuned models of two seeds",
            "line": {"width": 1, "dash": "dot", "color": style.faded(style.BASE_COLOUR, 0.6)},
        }  # fmt: skip


def depth_line(rows: pl.DataFrame, name: str, colour: str) -> Record:
    """Return one line over depth, with intervals where the rows have them."""
    records = [record for record in rows.iter_rows(named=True) if finite(record["value"]) is not None]
    bars = [
        (finite(r.get("low")), finite(r.get("high"))) if r.get("low") is not None else (None, None)
        for r in records
    ]
    trace: Record = {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": [r["layer"] for r in records],
        "y": [r["value"] for r in records], "line": {"color": colour, "width": 2}, "marker": {"size": 6},
        "hoverinfo": "text",
        "text": [
            f"{name}, {_depth(r)}<br>{interval(r['value'], r.get('low'), r.get('high'))}" for r in records
        ],
    }  # fmt: skip
    if any(low is not None for low, _ in bars):
        trace["error_y"] = {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 0,
            "array": [0 if h is None else h - r["value"] for (_, h), r in zip(bars, records, strict=True)],
            "arrayminus": [0 if low is None else r["value"] - low for (low, _), r in zip(bars, records, strict=True)],
        }  # fmt: skip
    return trace


def _depth(record: Record) -> str:
    if record.get("step") is not None:
        return f"step {record['step']}"
    if record["site"] == "final_norm_out":
        return "final norm"
    return "embeddings" if record["layer"] == EMBEDDINGS else f"layer {record['layer']}"


def depth_layout(table: pl.DataFrame, height: int, y: Record | None = None) -> Record:
    """Return the layout of lines over depth, one tick a site."""
    sites = sorted({(r["layer"], r["site"]) for r in table.select("layer", "site").iter_rows(named=True)})
    ticks = [
        "emb" if layer == EMBEDDINGS else "norm" if site == "final_norm_out" else str(layer)
        for layer, site in sites
    ]
    spots = [layer for layer, _ in sites]
    axis = style.axis("layer", tickmode="array", tickvals=spots, ticktext=ticks, showgrid=False)
    return style.layout(height, xaxis=axis, yaxis=style.axis("", **(y or {})), hovermode="closest")


def one_dimension_panel(table: pl.DataFrame, model: str, colour: str) -> style.Panel | None:
    """Return accuracy of the whole model, of chosen single dimensions, and of the controls, as dots with intervals."""
    own = only(table, model=model)
    lines: list[tuple[str, list[Record], str]] = [
        ("whole model", _records(only(own, metric="model_accuracy")), colour)
    ]
    one = only(own, metric="one_dimension_accuracy")
    machines = only(own, metric="support_vector_accuracy")
    named = {
        "variance": "greatest variance", "train accuracy": "best on train", "discriminant direction": "discriminant",
        "random direction": "random directions", "labels permuted": "labels permuted",
    }  # fmt: skip
    for by, title in named.items():
        control = by in ("random direction", "labels permuted")
        lines.append((title, _records(only(one, by=by)), style.BASE_COLOUR if control else colour))
        for name in values(machines, "classifier"):
            lines.append((f"{title}, {name}", _records(only(machines, by=by, classifier=name)), colour))
    for by in [one for one in values(one, "by") if one not in named]:
        lines.append((by, _records(only(one, by=by)), colour))
        for name in values(machines, "classifier"):
            lines.append((f"the same, {name}", _records(only(machines, by=by, classifier=name)), colour))
    lines = [line for line in lines if line[1]]
    if len(lines) < 2:
        return None
    traces = [
        _dots(place, title, records, ink) for place, (title, records, ink) in enumerate(reversed(lines))
    ]
    names = [title for title, _, _ in reversed(lines)]
    layout = style.layout(
        60 + 34 * len(lines),
        xaxis=style.axis("accuracy"),
        yaxis=style.named_axis(names),
        margin={"l": 290 if machines.height else 120, "r": 12, "t": 8, "b": 40},
    )
    return style.Panel(model, {"data": traces, "layout": layout}, 60 + 34 * len(lines))


def _records(rows: pl.DataFrame) -> list[Record]:
    return [record for record in rows.iter_rows(named=True) if finite(record["value"]) is not None]


def _dots(place: int, title: str, records: list[Record], colour: str) -> Record:
    one = len(records) == 1
    hover = []
    for record in records:
        dimension = "" if record.get("dimension") is None else f" (dimension {record['dimension']})"
        shown = interval(record["value"], record.get("low"), record.get("high"))
        paired = "" if record.get("p") is None else f"<br>against the whole model: p = {number(record['p'])}"
        hover.append(f"{for_plotly(title)}{dimension}<br>{shown}{paired}")
    trace: Record = {
        "type": "scatter", "mode": "markers", "x": [r["value"] for r in records], "y": [place] * len(records),
        "marker": {"size": 9 if one else 6, "color": colour, "opacity": 1 if one else 0.55},
        "hoverinfo": "text", "text": hover,
    }  # fmt: skip
    if one and records[0].get("low") is not None:
        record = records[0]
        trace["error_x"] = {
            "type": "data", "symmetric": False, "color": colour, "thickness": 1.4, "width": 0,
            "array": [record["high"] - record["value"]], "arrayminus": [record["value"] - record["low"]],
        }  # fmt: skip
    return trace


def removal_panels(table: pl.DataFrame, model: str) -> tuple[style.Panel, ...]:
    """Return accuracy against dimensions removed, a line an order: frozen head (mean, zero) and refitted head."""
    rows = only(table, model=model, metric="removal_accuracy")
    panels = []
    for fit, edit, title in (
        ("frozen", "mean", "set to the mean, head frozen"),
        ("frozen", "zero", "set to zero, head frozen"),
        ("refitted", "removed", "left out, head refitted"),
    ):
        own = only(rows, head_fit=fit, edit=edit)
        if own.is_empty():
            continue
        orders = sorted(values(own, "order"), key=lambda name: name == "random")
        traces: list[Record] = []
        for index, order in enumerate(orders):
            colour = (
                style.BASE_COLOUR if order == "random" else style.ARM_COLOURS[index % len(style.ARM_COLOURS)]
            )
            traces += _curve(only(own, order=order).sort("removed"), order, colour)
        layout = style.layout(
            280, xaxis=style.axis("dimensions removed"), yaxis=style.axis("accuracy"), showlegend=True,
            legend={"orientation": "h", "y": -0.28}, hovermode="closest",
        )  # fmt: skip
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, 340))
        layout["height"] = 340
    return tuple(panels)


def share_panels(table: pl.DataFrame, model: str) -> tuple[style.Panel, ...]:
    """Return the dimensions' shares of each class's logit, added up along two orders, a panel an order."""
    rows = only(table, model=model, metric="cumulative_share")
    panels = []
    for order in values(rows, "order"):
        own = only(rows, order=order)
        traces = []
        for index, name in enumerate(values(own, "class")):
            line = only(own, **{"class": name}).sort("removed")
            x, y = line["removed"].to_list(), line["value"].to_list()
            hover = [
                f"{for_plotly(name, 22)}<br>{count} dimensions: {number(value)}"
                for count, value in zip(x, y, strict=True)
            ]
            traces.append({
                "type": "scatter", "mode": "lines", "name": for_plotly(name, 22), "x": x, "y": y, "hoverinfo": "text",
                "line": {"color": style.ARM_COLOURS[index % len(style.ARM_COLOURS)], "width": 2}, "text": hover,
            })  # fmt: skip
        layout = style.layout(
            280, xaxis=style.axis("dimensions counted"), yaxis=style.axis("share of the logit"),
            showlegend=True, legend={"orientation": "h", "y": -0.28}, hovermode="closest",
        )  # fmt: skip
        panels.append(style.Panel(order, {"data": traces, "layout": layout}, 280))
    return tuple(panels)


def _curve(rows: pl.DataFrame, name: str, colour: str) -> Iterable[Record]:
    x, y = rows["removed"].to_list(), rows["value"].to_list()
    low, high = rows["low"].to_list(), rows["high"].to_list()
    yield {
        "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself",
        "fillcolor": style.faded(colour, 0.13) if colour.startswith("#") else colour, "line": {"width": 0},
        "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
    yield {
        "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": {"color": colour, "width": 2},
        "hoverinfo": "text",
        "text": [
            f"{name}<br>{removed} removed: {interval(value, below, above)}"
            for removed, value, below, above in zip(x, y, low, high, strict=True)
        ],
    }  # fmt: skip
