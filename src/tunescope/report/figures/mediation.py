"""What carries the change that a suite's pairs make: heads and sublayers as maps, single dimensions as dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.behaviour import interval_bars
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, for_plotly, interval, number, probability

RATIO = "ratio_of_sums"
SHORT = {"attn_out": "attn", "mlp_out": "MLP"}
SHOWN_DIMENSIONS = 12
CONTROL_COLOUR = style.BASE_COLOUR
Record = dict[str, Any]


def mediation_panels(table: pl.DataFrame) -> tuple[tuple[style.Panel, ...], float]:
    """Return for each suite and model the share of the change that every head, attention and MLP carries, as a map.

    Returns:
        The panels, and the end of their one colour scale.
    """
    rows = only(table, part="mediation", metric="mediated_share", estimator=RATIO)
    rows = rows.filter(pl.col("site").is_in(["head_out", "attn_out", "mlp_out"])) if rows.height else rows
    limit = (
        max((abs(v) for v in map(finite, only(rows, control=None)["value"]) if v is not None), default=0.0)
        or 1.0
    )
    panels = []
    for suite in dict.fromkeys(rows["suite"]):
        for model in ("tuned", "base"):
            own = only(rows, suite=suite, model=model)
            cells = {
                (r["site"], r["layer"], r["head"]): r for r in only(own, control=None).iter_rows(named=True)
            }
            if not cells:
                continue
            apart = {
                (r["site"], r["layer"], r["head"]): r
                for r in only(own, control="unrelated").iter_rows(named=True)
            }
            layers, heads = values(own, "layer"), values(own, "head")
            asked = {site for site, _, _ in cells}
            whole = [(site, None) for site in ("attn_out", "mlp_out") if site in asked]
            columns = [*(("head_out", head) for head in heads), *whole]
            places = [[(site, layer, head) for site, head in columns] for layer in layers]
            data = {
                "type": "heatmap", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
                "z": [[finite(cells[p]["value"]) if p in cells else None for p in line] for line in places],
                "hovertext": [[_shared(cells.get(p), apart.get(p)) for p in line] for line in places],
                "hoverinfo": "text", "xgap": 1, "ygap": 1,
            }  # fmt: skip
            height = max(200, 24 * len(layers) + 90)
            names = [*map(str, heads), *(SHORT[site] for site, _ in whole)]
            layout = style.map_layout(
                height,
                xaxis=style.named_axis(names, "head"),
                yaxis=style.named_axis([*map(str, layers)], "layer"),
            )
            panels.append(
                style.Panel(f"{for_plotly(suite)}, {model}", {"data": [data], "layout": layout}, height)
            )
    return tuple(panels), limit


def _shared(cell: Record | None, control: Record | None) -> str:
    if cell is None:
        return "not measured"
    own = f"{interval(cell['value'], cell['low'], cell['high'])} of the change, q {probability(cell['q'])}"
    return own if control is None else f"{own}<br>from an unrelated text: {number(control['value'])}"


def dimension_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return for each suite and model the dimensions whose shares of the change are largest, with their control.

    Args:
        table: The rows of one arm and seed.
        colour: The arm's.
    """
    if "dimension" not in table.columns:
        return ()
    rows = only(table, part="mediation", metric="mediated_share", estimator=RATIO)
    rows = rows.filter(pl.col("dimension").is_not_null() & pl.col("value").is_not_null())
    panels = []
    for suite in dict.fromkeys(rows["suite"]):
        for model, ink in (("tuned", colour), ("base", style.BASE_COLOUR)):
            for layer in values(only(rows, suite=suite, model=model), "layer"):
                own = only(rows, suite=suite, model=model, layer=layer)
                shares = only(own, control=None).sort(
                    pl.col("value").abs(), descending=True, maintain_order=True
                )
                records = shares.head(SHOWN_DIMENSIONS).to_dicts()
                apart = {r["dimension"]: r for r in only(own, control="unrelated").iter_rows(named=True)}
                others = [apart[r["dimension"]] for r in records if r["dimension"] in apart]
                title = f"{for_plotly(suite)}, {model}: behind block {layer}"
                panels.append(_dimensions(title, records, others, ink))
    return tuple(panels)


def _dimensions(title: str, records: Sequence[Record], others: Sequence[Record], ink: str) -> style.Panel:
    names = [r["dimension"] for r in records][::-1]
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": "from an unrelated text", "x": [r["value"] for r in others],
            "y": [names.index(r["dimension"]) for r in others], "hoverinfo": "text",
            "marker": {"size": 7, "color": CONTROL_COLOUR, "symbol": "diamond-open"},
            "text": [f"dimension {r['dimension']}, from an unrelated text<br>{number(r['value'])}" for r in others],
        },
        {
            "type": "scatter", "mode": "markers", "name": "share", "x": [r["value"] for r in records],
            "y": [names.index(r["dimension"]) for r in records], "hoverinfo": "text",
            "error_x": interval_bars(records, ink),
            "marker": {"size": 8, "color": ink, "symbol": [_filled(r.get("q")) for r in records]},
            "text": [
                f"dimension {r['dimension']}<br>{interval(r['value'], r['low'], r['high'])} of the change"
                f"<br>q {probability(r.get('q'))}, n = {number(r['n'])}"
                for r in records
            ],
        },
    ]  # fmt: skip
    height = 76 + 22 * max(len(names), 2)
    layout = style.layout(
        height, xaxis=style.axis("share of the change of margin", zeroline=True, zerolinecolor=style.ZERO),
        yaxis=style.named_axis([*map(str, names)], "dimension"), margin={"l": 64, "r": 12, "t": 8, "b": 42},
    )  # fmt: skip
    return style.Panel(title, {"data": traces, "layout": layout}, height)


def _filled(q: Any) -> str:
    known = finite(q)
    return "circle" if known is not None and known <= 0.05 else "circle-open"
