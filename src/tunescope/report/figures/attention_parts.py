"""Attention by part of the input, and whole maps of a sentence whose axes are named by its tokens."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.figures import cells, style
from tunescope.report.figures.select import only, values
from tunescope.report.text import finite, for_plotly, interval, number, percent

MAP_COLUMNS = ("arm", "model", "row_id", "layer", "head", "query", "key", "value")
STATISTICS = {
    "region_entropy_without_sink": "entropy without the first token",
    "region_distance": "distance in tokens",
    "region_sink_mass": "share on the first token",
    "region_gini": "concentration (Gini)",
    "region_jensen_shannon": "moved by (bits)",
}
MOST = 4  # maps of heads: the pairs of regions between which heads changed most
HEIGHT = 250
Record = dict[str, Any]


def share_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return which share of attention goes from region to region, mean over heads: base, tuned, even attention."""
    own = only(rows, metric="region_share").filter(
        pl.col("region").is_not_null() & pl.col("value").is_not_null()
    )
    if own.is_empty():
        return ()
    names = list(dict.fromkeys(own["region"].to_list()))
    mean = own.group_by("model", "region", "to_region").agg(pl.col("value", "control").mean())
    panels = [
        _square(only(mean, model=which), names, "value", title)
        for which, title in (("base", "base"), ("tuned", "tuned"))
    ]
    return (*panels, _square(only(mean, model="base"), names, "control", "even attention"))


def _square(rows: pl.DataFrame, names: list[str], column: str, title: str) -> style.Panel:
    known = {(row["region"], row["to_region"]): finite(row[column]) for row in rows.iter_rows(named=True)}
    grid = [[known.get((start, end)) for end in names] for start in names]
    height = 110 + 30 * len(names)
    trace = {
        "type": "heatmap", "x": list(range(len(names))), "y": list(range(len(names))), "z": grid, "zmin": 0, "zmax": 1,
        "colorscale": style.BLUES, "showscale": False, "xgap": 1, "ygap": 1, "hoverinfo": "text",
        "hovertext": [
            [f"from {start} to {end}<br>{percent(known.get((start, end)))} of attention" for end in names]
            for start in names
        ],
        "text": [[percent(one) for one in line] for line in grid], "texttemplate": "%{text}",
    }  # fmt: skip
    layout = style.map_layout(
        height,
        xaxis=style.named_axis(names, "to"),
        yaxis=style.named_axis(names, "from", range=[len(names) - 0.5, -0.5]),
    )
    return style.Panel(title, {"data": [trace], "layout": layout}, height)


def change_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return, head by head, how the share from one region to another changed, for the pairs that changed most."""
    own = only(rows, metric="region_share", model="tuned_minus_base").filter(pl.col("value").is_not_null())
    if own.is_empty() or not own["value"].abs().max():
        return ()
    size = own.group_by("region", "to_region").agg(pl.col("value").abs().max().alias("size"))
    order = size.sort("size", "region", "to_region", descending=[True, False, False]).head(MOST)
    most = float(order["size"].max())  # type: ignore[arg-type]
    look = cells.Look(-most, most, style.DIVERGING, HEIGHT, _sure)
    return tuple(
        cells.layer_map(
            f"from {start} to {end}",
            part := only(own, region=start, to_region=end),
            cells.head_names(part),
            look,
            _said,
        )
        for start, end, _ in order.rows()
    )


def _sure(cell: Record) -> bool:
    q = finite(cell.get("q"))
    return q is not None and q <= 0.05


def _said(cell: Record) -> str:
    changed = interval(cell["value"], cell["low"], cell["high"])
    return f"share changed by {changed}, q = {number(cell['q'])}, n = {number(cell['n'])}"


def statistic_panels(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return each statistic over the queries of each region, base beside tuned, with the spread over heads."""
    own = rows.filter(
        pl.col("region").is_not_null() & pl.col("to_region").is_null() & pl.col("value").is_not_null()
    )
    names = list(dict.fromkeys(own["region"].to_list()))
    panels = []
    for metric, title in STATISTICS.items():
        part = only(own, metric=metric)
        which = [name for name in ("base", "tuned", "base_tuned") if name in values(part, "model")]
        traces = [_bars(only(part, model=name), names, name, colour) for name in which]
        if traces:
            layout = style.layout(
                220, xaxis=style.named_axis(names), yaxis=style.axis("", rangemode="tozero")
            )
            panels.append(style.Panel(title, {"data": traces, "layout": layout}, 220))
    return tuple(panels)


def _bars(rows: pl.DataFrame, names: list[str], model: str, colour: str) -> Record:
    at = {
        row["region"]: row
        for row in rows.group_by("region")
        .agg(
            pl.col("value").mean(), pl.col("value").quantile(0.1).alias("low"),
            pl.col("value").quantile(0.9).alias("high"),
        )
        .iter_rows(named=True)
    }  # fmt: skip
    there = [place for place, name in enumerate(names) if name in at]
    own = [at[names[place]] for place in there]
    shift = {"base": -0.12, "tuned": 0.12}.get(model, 0.0)
    said = {"base": "base", "tuned": "tuned"}.get(model, "base against tuned")
    return {
        "type": "scatter", "mode": "markers", "name": said, "x": [place + shift for place in there],
        "y": [row["value"] for row in own],
        "marker": {"size": 9, "color": style.BASE_COLOUR if model == "base" else colour},
        "error_y": {
            "type": "data", "symmetric": False, "array": [row["high"] - row["value"] for row in own],
            "arrayminus": [row["value"] - row["low"] for row in own], "thickness": 1, "width": 3,
        },
        "hoverinfo": "text",
        "text": [
            f"{for_plotly(row['region'])}, {said}: {number(row['value'])} (mean over heads; four in five heads "
            f"between {number(row['low'])} and {number(row['high'])})"
            for row in own
        ],
    }  # fmt: skip


def map_panels(rows: pl.DataFrame) -> tuple[style.Panel, ...]:
    """Return one head's map of one sentence: base, tuned and their difference; queries down, keys across.

    Of a model that was looked at alone there is one map. The places of both axes are the tokens' own numbers, and
    their names are looked up by these.
    """
    size = int(rows["query"].max()) + 1  # type: ignore[arg-type]
    names = _tokens(rows, size)
    grids: dict[str, list[list[float | None]]] = {}
    alone = "base" not in values(rows, "model")
    for which in ("tuned",) if alone else ("base", "tuned"):
        grid: list[list[float | None]] = [[None] * size for _ in range(size)]
        for query, key, value in only(rows, model=which).select("query", "key", "value").rows():
            grid[query][key] = value
        grids[which] = grid
    height = 120 + (26 if size < 12 else 17) * size
    if alone:
        return (_map("attention", grids["tuned"], names, height, None),)
    grids["tuned minus base"] = [
        [None if one is None or other is None else one - other for one, other in zip(*lines, strict=True)]
        for lines in zip(grids["tuned"], grids["base"], strict=True)
    ]
    most = max(
        (abs(one) for line in grids["tuned minus base"] for one in line if one is not None), default=0.0
    )
    return tuple(
        _map(title, grid, names, height, most if title == "tuned minus base" else None)
        for title, grid in grids.items()
    )


def _tokens(rows: pl.DataFrame, size: int) -> list[str]:
    """Return each token's name, or its number where texts are not shown."""
    if "query_token" not in rows.columns:
        return [str(place) for place in range(size)]
    known = dict(rows.select("query", "query_token").unique().rows())
    return [str(place) if known.get(place) is None else for_plotly(known[place], 14) for place in range(size)]


def _map(title: str, grid: Any, names: list[str], height: int, most: float | None) -> style.Panel:
    reach = most or 1.0
    trace = {
        "type": "heatmap", "x": list(range(len(names))), "y": list(range(len(names))), "z": grid,
        "zmin": 0 if most is None else -reach, "zmax": 1 if most is None else reach,
        "colorscale": style.BLUES if most is None else style.DIVERGING, "showscale": False, "xgap": 1, "ygap": 1,
        "hoverinfo": "text",
        "hovertext": [
            [f"{query} looks at {key}<br>{title}: {number(one, 3)}" for key, one in zip(names, line, strict=True)]
            for query, line in zip(names, grid, strict=True)
        ],
    }  # fmt: skip
    layout = style.map_layout(
        height,
        xaxis=style.named_axis(names, "key", tickangle=-90),
        yaxis=style.named_axis(names, "query", range=[len(names) - 0.5, -0.5]),
    )
    if most is not None:
        title = f"{title}: ±{number(most)}"
    return style.Panel(title, {"data": [trace], "layout": layout}, height)
