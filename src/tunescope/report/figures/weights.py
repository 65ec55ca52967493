"""How far the weights moved: matrices and heads by layers, ranks of the updates, intruder dimensions."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import cells, style
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, for_plotly, number, percent

COLUMNS = ("arm", "model", "site", "layer", "head", "metric", "value")
STATISTICS_COLUMNS = ("arm", "site", "layer", "metric", "value", "control")
STATISTICS = {"deviation": "deviation of entries", "greatest": "greatest entry", "stable_rank": "stable rank"}
ORDER = ("query", "key", "value", "attn_projection", "mlp_projection")
BY_HEAD = ("query", "key", "value", "attn_projection")
Record = dict[str, Any]


def limit(rows: pl.DataFrame) -> float:
    """Return the greatest relative change of any matrix or head of a block: the end of the colour scale."""
    moved = only(rows, metric="relative_frobenius").filter(pl.col("layer").is_not_null())
    return finite(moved["value"].max()) or 1.0


def statistic_map(rows: pl.DataFrame, metric: str) -> style.Panel | None:
    """Return one number of each matrix, matrices down and layers across; a rank as a share of its control."""
    own = only(rows, metric=metric).filter(pl.col("layer").is_not_null() & pl.col("value").is_not_null())
    if own.is_empty():
        return None
    share = metric == "stable_rank"
    if share:
        own = own.with_columns(rank=pl.col("value"), value=pl.col("value") / pl.col("control"))

    def say(cell: Record) -> str:
        if not share:
            return f"{STATISTICS[metric]}: {number(cell['value'])}"
        of = f"that of random entries, {number(cell['control'])}"
        return f"stable rank: {number(cell['rank'])}, {percent(cell['value'])} of {of}"

    names = values(own, "site")
    parts = [*(name for name in ORDER if name in names), *(name for name in names if name not in ORDER)]
    low, high = finite(own["value"].min()) or 0.0, finite(own["value"].max()) or 1.0
    ends = (percent(low), percent(high)) if share else (number(low), number(high))
    look = cells.Look(low, high, style.BLUES, 90 + 24 * len(parts))
    title = f"{STATISTICS[metric]}, {ends[0]} to {ends[1]}"
    return cells.layer_map(title, own, ("site", parts, [for_plotly(name, 34) for name in parts]), look, say)


def matrix_panel(rows: pl.DataFrame, top: float) -> style.Panel | None:
    """Return the relative change of each matrix, matrices down and layers across."""
    own = only(rows, metric="relative_frobenius", head=None).filter(pl.col("layer").is_not_null())
    if own.is_empty():
        return None
    names = values(own, "site")
    others = [name for name in names if name not in (*ORDER, "block")]
    parts = [*(name for name in ORDER if name in names), *others, "block"]
    look = cells.Look(0, top, style.BLUES, 90 + 24 * len(parts))
    return cells.layer_map("", own, ("site", parts, [for_plotly(name, 34) for name in parts]), look, _moved)


def head_panels(rows: pl.DataFrame, top: float) -> tuple[style.Panel, ...]:
    """Return the relative change of each head's slice, one map a matrix, heads down and layers across."""
    panels = []
    for part in BY_HEAD:
        own = only(rows, metric="relative_frobenius", site=part).filter(pl.col("head").is_not_null())
        if not own.is_empty():
            look = cells.Look(0, top, style.BLUES, 250)
            panels.append(cells.layer_map(part, own, cells.head_names(own), look, _moved))
    return tuple(panels)


def head_rank_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return the effective rank of each head's update, one map a matrix on one scale; none without spectra."""
    own = only(rows, metric="effective_rank").filter(
        pl.col("head").is_not_null() & pl.col("value").is_finite()
    )
    most = finite(own["value"].max()) if own.height else None
    if most is None:
        return ()
    look = cells.Look(0, most, style.BLUES, 250)
    panels = []
    for part in BY_HEAD:
        of_part = only(own, site=part)
        if of_part.height:
            title = f"{part}, 0 to {number(most)}"
            panels.append(cells.layer_map(title, of_part, cells.head_names(of_part), look, _spread))
    return tuple(panels)


def _spread(cell: Record) -> str:
    return f"its update goes in about {number(cell['value'])} directions (effective rank)"


def _moved(cell: Record) -> str:
    return f"moved by {percent(cell['value'], 2)} of its norm"


def rank_panels(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return stable and effective rank of every update over depth, with the control's in grey."""
    panels = []
    for metric, title in (("stable_rank", "stable rank"), ("effective_rank", "effective rank")):
        own = only(rows, metric=metric, head=None).filter(
            pl.col("layer").is_not_null() & pl.col("value").is_not_null()
        )
        if own.is_empty():
            continue
        traces = [
            _dots(own, "control", style.BASE_COLOUR, "update without structure"),
            _dots(own, "value", colour, "update"),
        ]
        layout = style.layout(
            230, xaxis=style.axis("layer", dtick=1, showgrid=False), yaxis=style.axis(title, type="log")
        )
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, 230))
    return tuple(panels)


def _dots(rows: pl.DataFrame, column: str, colour: str, name: str) -> Record:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": rows["layer"].to_list(),
        "y": rows[column].to_list(), "marker": {"color": colour, "size": 6, "opacity": 0.8}, "hoverinfo": "text",
        "text": [
            f"{for_plotly(row['site'], 34)}, layer {row['layer']}<br>{name}: {number(row[column], 2)}"
            for row in rows.iter_rows(named=True)
        ],
    }  # fmt: skip


def intruder_panel(rows: pl.DataFrame, colour: str) -> style.Panel | None:
    """Return how many leading singular vectors are like none before, over the threshold, summed over matrices."""
    own = only(rows, metric="intruder_dimensions", head=None)
    if own.is_empty():
        return None
    total = own.group_by("threshold").agg(pl.col("value", "control").sum(), pl.len().alias("matrices"))
    total = total.sort("threshold")
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": total["threshold"].to_list(),
            "y": total[column].to_list(), "line": {"color": ink, "width": 2}, "hoverinfo": "text",
            "text": [
                f"cosine below {row['threshold']:g}: {row[column]:.0f} vectors in {row['matrices']} matrices ({name})"
                for row in total.iter_rows(named=True)
            ],
        }
        for name, column, ink in (
            ("update without structure", "control", style.BASE_COLOUR), ("tuned", "value", colour),
        )
    ]  # fmt: skip
    layout = style.layout(
        230,
        xaxis=style.axis("threshold (cosine)"),
        yaxis=style.axis("intruder dimensions", rangemode="tozero"),
    )
    return style.Panel("intruder dimensions", {"data": traces, "layout": layout}, 230)


def arm_panels(tables: dict[str, pl.DataFrame], colours: dict[str, str]) -> tuple[style.Panel, ...]:
    """Return size, ranks and intruder dimensions of all arms, each panel with one axis for all.

    Args:
        tables: Each arm's rows of one training.
        colours: Each arm's.
    """
    panels = []
    for metric, title in (
        ("relative_frobenius", "size of the change"), ("stable_rank", "stable rank"),
        ("effective_rank", "effective rank"),
    ):  # fmt: skip
        traces: list[Record] = []
        for arm, rows in tables.items():
            own = only(rows, metric=metric, head=None).filter(
                pl.col("layer").is_not_null() & pl.col("value").is_not_null()
            )
            own = (
                only(own, site="block") if metric == "relative_frobenius" else own.filter(pl.col("value") > 0)
            )
            for column, dash in (("value", "solid"), ("control", "dash")):
                line = own.group_by("layer").agg(pl.col(column).median()).drop_nulls().sort("layer")
                if line.height:
                    traces.append(_arm_line(arm, line, column, (colours[arm], dash, "layer")))
        if traces:
            kind = "linear" if metric == "relative_frobenius" else "log"
            layout = style.layout(
                230, xaxis=style.axis("layer", dtick=1, showgrid=False), yaxis=style.axis(title, type=kind)
            )
            panels.append(style.Panel(title, {"data": traces, "layout": layout}, 230))
    curves = []
    for arm, rows in tables.items():
        own = only(rows, metric="intruder_dimensions", head=None)
        if own.height:
            total = own.group_by("threshold").agg(pl.col("value", "control").sum()).sort("threshold")
            curves += [
                _arm_line(arm, total, column, (colours[arm], dash, "cosine below"))
                for column, dash in (("value", "solid"), ("control", "dash"))
            ]
    if curves:
        layout = style.layout(
            230,
            xaxis=style.axis("threshold (cosine)"),
            yaxis=style.axis("intruder dimensions", rangemode="tozero"),
        )
        panels.append(style.Panel("intruder dimensions", {"data": curves, "layout": layout}, 230))
    return tuple(panels)


def _arm_line(arm: str, rows: pl.DataFrame, column: str, look: tuple[str, str, str]) -> Record:
    colour, dash, across = look
    name = for_plotly(arm) if column == "value" else f"{for_plotly(arm)}, without structure"
    places = rows[rows.columns[0]].to_list()
    return {
        "type": "scatter", "mode": "lines+markers" if column == "value" else "lines", "name": name, "x": places,
        "y": rows[column].to_list(), "line": {"color": colour, "width": 2 if column == "value" else 1.2, "dash": dash},
        "marker": {"size": 5}, "hoverinfo": "text",
        "text": [
            f"{name}, {across} {place:g}: {number(value)}"
            for place, value in zip(places, rows[column], strict=True)
        ],
    }  # fmt: skip
