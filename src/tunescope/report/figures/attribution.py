"""The logit lens over depth, direct attributions as a map, and the words that speak for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import layer_name, only, preferred_base_head, values
from tunescope.report.text import finite, for_plotly, interval, number, probability, signed

LENS_COLUMNS = ("arm", "model", "site", "layer", "metric", "value", "low", "high", "control")
DIRECT_COLUMNS = (
    "arm",
    "model",
    "site",
    "layer",
    "head",
    "class",
    "metric",
    "value",
    "low",
    "high",
    "q",
    "control",
)
WORD_COLUMNS = ("arm", "model", "class", "metric", "value", "low", "high", "q", "word", "by", "control")
MEASURES = {
    "accuracy": "accuracy", "margin": "margin of the true class",
    "probability_of_final": "probability of the final answer", "log_likelihood": "log-probability of the true token",
    "kl_to_final": "divergence from the final answer (nats)",
}  # fmt: skip
MODEL_NAMES = {"tuned": "tuned", "base": "base", "tuned_minus_base": "tuned minus base"}
SIGNIFICANT = 0.05
SHOWN_WORDS = 10
SHOWN_CLASSES = 8
Record = dict[str, Any]


def lens_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return accuracy, margin and probability of the final answer over depth, base and tuned, each with its chance."""
    panels = []
    for metric, title in MEASURES.items():
        traces: list[Record] = []
        for model, ink in (("base", style.BASE_COLOUR), ("tuned", colour)):
            rows = only(table, metric=metric, model=model).sort("layer")
            rows = preferred_base_head(rows).filter(pl.col("value").is_not_null())
            if rows.height:
                traces += [_chance(rows, model, ink), _curve(rows, model, ink)]
        if traces:
            layers = values(only(table, metric=metric), "layer")
            ticks = {"tickmode": "array", "tickvals": layers, "ticktext": [layer_name(one) for one in layers]}
            layout = style.layout(
                250,
                xaxis=style.axis("layer", showgrid=False, **ticks),
                yaxis=style.axis(""),
                hovermode="closest",
            )
            panels.append(style.Panel(title, {"data": traces, "layout": layout}, 250))
    return tuple(panels)


def _curve(rows: pl.DataFrame, model: str, colour: str) -> Record:
    records = rows.to_dicts()
    return {
        "type": "scatter", "mode": "lines+markers", "name": model, "x": [r["layer"] for r in records],
        "y": [r["value"] for r in records], "line": {"color": colour, "width": 2}, "marker": {"size": 6},
        "error_y": _bars(records, colour), "hoverinfo": "text",
        "text": [
            f"{model}, layer {layer_name(r['layer'])}<br>{interval(r['value'], r['low'], r['high'])}"
            f"<br>dealt at random: {number(r['control'])}"
            for r in records
        ],
    }  # fmt: skip


def _chance(rows: pl.DataFrame, model: str, colour: str) -> Record:
    return {
        "type": "scatter", "mode": "lines", "name": f"{model}, at random", "x": rows["layer"].to_list(),
        "y": [finite(value) for value in rows["control"]], "hoverinfo": "skip",
        "line": {"color": colour, "width": 1.2, "dash": "dot"},
    }  # fmt: skip


def _bars(records: Sequence[Record], colour: str) -> Record:
    known = [(finite(r["low"]), finite(r["value"]), finite(r["high"])) for r in records]
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 0,
        "array": [0.0 if h is None or v is None else h - v for _, v, h in known],
        "arrayminus": [0.0 if low is None or v is None else v - low for low, v, _ in known],
    }  # fmt: skip


def direct_panels(
    table: pl.DataFrame, classes: Sequence[str | None] = (None,), models: Sequence[str] = tuple(MODEL_NAMES)
) -> tuple[tuple[style.Panel, ...], float]:
    """Return maps of what heads, attention biases and MLPs write, layer by layer, on one scale, and its end.

    Args:
        table: One arm and seed.
        classes: True classes to take apart; None is all rows.
        models: Which models.
    """
    found = []
    for model in models:
        for name in classes:
            rows = only(table, **{"class": name}, metric="contrast", model=model)
            rows = preferred_base_head(rows) if model == "base" else rows
            rows = rows.filter(pl.col("site").is_in(["head_out", "attention_bias", "mlp_out"]))
            own, random = only(rows, control="none"), only(rows, control="random")
            if own.height:
                title = MODEL_NAMES[model] if name is None else f"{MODEL_NAMES[model]}, {for_plotly(name)}"
                found.append((title, own, random))
    limit = max(
        (abs(v) for _, own, _ in found for v in map(finite, own["value"]) if v is not None), default=0.0
    )
    limit = limit or 1e-9
    return tuple(_map(title, own, random, limit) for title, own, random in found), limit


def _map(title: str, rows: pl.DataFrame, random: pl.DataFrame, limit: float) -> style.Panel:
    layers, heads = values(rows, "layer"), values(rows, "head")
    columns = [*(("head_out", head) for head in heads), ("attention_bias", None), ("mlp_out", None)]
    cells = {(r["layer"], r["site"], r["head"]): r for r in rows.iter_rows(named=True)}
    controls = {(r["layer"], r["site"], r["head"]): r for r in random.iter_rows(named=True)}
    grid = [[cells.get((layer, *column)) for column in columns] for layer in layers]
    data = {
        "type": "heatmap", "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
        "x": list(range(len(columns))), "y": list(range(len(layers))),
        "text": [["•" if _clear(cell) else "" for cell in line] for line in grid], "texttemplate": "%{text}",
        "hovertext": [
            [_hover(cells.get((layer, *column)), controls.get((layer, *column))) for column in columns]
            for layer in layers
        ],
        "hoverinfo": "text", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    height = max(220, 24 * len(layers) + 90)
    layout = style.map_layout(
        height,
        xaxis=style.named_axis([*map(str, heads), "bias", "MLP"], "head"),
        yaxis=style.named_axis([layer_name(layer) for layer in layers], "layer"),
    )
    return style.Panel(title, {"data": [data], "layout": layout}, height)


def _clear(cell: Record | None) -> bool:
    q = finite(cell["q"]) if cell else None
    return q is not None and q <= SIGNIFICANT


def _hover(cell: Record | None, control: Record | None) -> str:
    if cell is None:
        return "not measured"
    lines = [
        for_plotly(str(cell["component"])),
        f"{signed(cell['value'])} {interval(cell['value'], cell['low'], cell['high']).partition(' ')[2]}",
    ]
    if cell.get("q") is not None:
        lines.append(f"p {probability(cell['p'])}, q {probability(cell['q'])}, n = {number(cell['n'])}")
    if control is not None:
        shown = interval(control["value"], control["low"], control["high"])
        lines.append(f"random vector of equal norm: {shown}")
    return "<br>".join(lines)


def word_panels(table: pl.DataFrame, labels: Sequence[str], colour: str) -> tuple[style.Panel, ...]:
    """Return, class by class, the words whose loss costs the class most margin in the tuned model, base beside it."""
    rows = only(table, metric="word_effect", by="left_out").filter(
        pl.col("class").is_not_null() & pl.col("value").is_not_null()
    )
    known = values(rows, "class")
    classes = [name for name in labels if name in known] + [name for name in known if name not in labels]
    panels = []
    for name in classes[:SHOWN_CLASSES]:
        own = only(rows, **{"class": name})
        tuned = only(own, model="tuned").sort(["low", "word"], descending=[True, False], nulls_last=True)
        tuned = tuned.head(SHOWN_WORDS)
        if tuned.is_empty():
            continue
        words = tuned["word"].to_list()[::-1]
        base = preferred_base_head(only(own, model="base").filter(pl.col("word").is_in(words)))
        place = {word: index for index, word in enumerate(words)}
        traces = [
            _words(base, place, "base", style.BASE_COLOUR, -0.16),
            _words(tuned, place, "tuned", colour, 0.16),
        ]
        height = 70 + 26 * len(words)
        layout = style.layout(
            height,
            xaxis=style.axis("fall of the margin, logits", zeroline=True, zerolinecolor=style.ZERO),
            yaxis=style.named_axis([for_plotly(word, 24) for word in words]),
            margin={"l": 110, "r": 12, "t": 8, "b": 40},
        )
        panels.append(style.Panel(for_plotly(name), {"data": traces, "layout": layout}, height))
    return tuple(panels)


def _words(rows: pl.DataFrame, place: dict[str, int], model: str, colour: str, shift: float) -> Record:
    records = rows.to_dicts()
    bars = _bars(records, colour)
    return {
        "type": "scatter", "mode": "markers", "name": model, "x": [r["value"] for r in records],
        "y": [place[r["word"]] + shift for r in records], "error_x": bars, "hoverinfo": "text",
        "marker": {
            "size": 8, "color": colour,
            "symbol": ["circle" if _clear(r) else "circle-open" for r in records],
        },
        "text": [
            f"{for_plotly(r['word'])}, {model}<br>{interval(r['value'], r['low'], r['high'])} logits"
            f"<br>q {probability(r['q'])}, n = {number(r['n'])} places in {number(r.get('rows'))} rows"
            f"<br>another word of the same rows: {signed(r['control'])}"
            for r in records
        ],
    }  # fmt: skip
