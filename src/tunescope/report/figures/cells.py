"""Maps of cells: something down, layers across, a number and what the hover says in each cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import values
from tunescope.report.text import finite

Record = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """How a map looks: its range of values, its colours, its height, and where a cell bears a dot."""

    low: float
    high: float
    colours: Sequence[Sequence[Any]]
    height: int
    dotted: Callable[[Record], bool] = lambda _record: False


def layer_map(
    title: str,
    rows: pl.DataFrame,
    down: tuple[str, Sequence[Any], Sequence[str]],
    look: Look,
    say: Callable[[Record], str],
) -> style.Panel:
    """Return a map whose columns are the layers of the rows, by name, never by order.

    Args:
        title: The panel's.
        rows: One row a cell at most.
        down: Column, its values and their names, from top to bottom.
        look: Range, colours, height.
        say: What the hover says of a cell, after its place.
    """
    column, wanted, names = down
    layers = values(rows, "layer")
    cells = {(record[column], record["layer"]): record for record in rows.iter_rows(named=True)}
    grid = [[cells.get((one, layer)) for layer in layers] for one in wanted]
    data: list[Record] = [
        {
            "type": "heatmap", "x": list(range(len(layers))), "y": list(range(len(names))),
            "z": [[finite(cell["value"]) if cell else None for cell in line] for line in grid],
            "zmin": look.low, "zmax": look.high, "colorscale": look.colours, "showscale": False,
            "xgap": 1, "ygap": 1, "hoverinfo": "text",
            "hovertext": [
                [
                    f"{name}, layer {layer}<br>{'not there' if cell is None else say(cell)}"
                    for layer, cell in zip(layers, line, strict=True)
                ]
                for name, line in zip(names, grid, strict=True)
            ],
        }
    ]  # fmt: skip
    dots = [
        (x, y) for y, line in enumerate(grid) for x, cell in enumerate(line) if cell and look.dotted(cell)
    ]
    if dots:
        data.append({
            "type": "scatter", "mode": "markers", "x": [x for x, _ in dots], "y": [y for _, y in dots],
            "marker": {"size": 4, "color": "#111"}, "hoverinfo": "skip",
        })  # fmt: skip
    layout = style.map_layout(
        look.height,
        xaxis=style.named_axis([str(one) for one in layers], "layer"),
        yaxis=style.named_axis(list(names), range=[len(names) - 0.5, -0.5]),
    )
    return style.Panel(title, {"data": data, "layout": layout}, look.height)


def head_names(rows: pl.DataFrame) -> tuple[str, list[Any], list[str]]:
    """Return the heads of a table as what stands down a map."""
    heads = values(rows, "head")
    return "head", heads, [f"H{head}" for head in heads]
