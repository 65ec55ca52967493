"""The drawing of a model: blocks down, matrices across in the order of the computation, coloured by what moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunescope.report.figures import style
from tunescope.report.text import for_plotly, number, percent

if TYPE_CHECKING:
    from tunescope.report.model_diagram import Cell, Diagram

ROW = 26  # pixels a block
NAMED_UP_TO = 14  # blocks that still have numbers in their cells
FROZEN = "#9aa3ad"
Record = dict[str, Any]


def model_panel(arm: str, made: Diagram, colour: str, top: float) -> style.Panel:
    """Return the diagram of one model: input above, a row a block, head below; under each column what it writes.

    Args:
        arm: Its name, the panel's title.
        made: The model's parts.
        colour: The arm's.
        top: The greatest relative change of any arm: the full colour.
    """
    columns = list(dict.fromkeys(part for parts in made.blocks.values() for part in parts))
    rows = ["embeddings", *made.blocks, "head"]
    lines = [[parts.get(column) for column in columns] for parts in made.blocks.values()]
    numbers = len(made.blocks) <= NAMED_UP_TO
    across = [float(place) for place in range(len(columns))]
    down = [float(place + 1) for place in range(len(lines))]
    data = _maps(lines, (across, down), (colour, top), numbers)
    notes: list[Record] = []
    for row, parts in ((0, made.before), (len(rows) - 1, made.after)):
        data += _bricks(list(parts.values()), row, len(columns), (colour, top))
        notes += _names(list(parts.values()), row, len(columns))
    height = ROW * len(rows) + 135
    layout = style.layout(
        height,
        xaxis=style.named_axis([_tick(made, column) for column in columns], tickangle=-38),
        yaxis=style.named_axis(rows, range=[len(rows) - 0.5, -0.5]),
        annotations=notes,
        shapes=[_stream(len(rows))],
    )
    return style.Panel(arm, {"data": data, "layout": layout}, height)


def _tick(made: Diagram, column: str) -> str:
    from tunescope.report.model_diagram import SITES

    cell = next(parts[column] for parts in made.blocks.values() if column in parts)
    site = SITES.get(cell.role)
    return for_plotly(cell.label, 20) + (f" → {site.split(', ')[-1]}" if site else "")


def _stream(rows: int) -> Record:
    """Return the line of the residual stream, at the left of all blocks."""
    return {
        "type": "line", "x0": 0, "x1": 0, "xref": "paper", "y0": -0.5, "y1": rows - 0.5, "yref": "y",
        "line": {"color": style.ZERO, "width": 2},
    }  # fmt: skip


def _maps(
    lines: list[list[Cell | None]],
    place: tuple[list[float], list[float]],
    ink: tuple[str, float],
    numbers: bool,
) -> list[Record]:
    """Return the cells as three maps: frozen, trained without a number, and moved by so much."""
    colour, top = ink
    full = [[0.0, _mixed(colour, 0.08)], [1.0, colour]]
    found = []
    for kind, scale in (
        ("frozen", _flat(_mixed(FROZEN, 0.35))),
        ("trained", _flat(_mixed(colour, 0.45))),
        ("", full),
    ):
        kept = [
            [cell if cell is not None and _kind(cell) == kind else None for cell in line] for line in lines
        ]
        if not any(cell for line in kept for cell in line):
            continue
        found.append({
            "type": "heatmap", "name": kind or "moved", "x": place[0], "y": place[1],
            "z": [[None if cell is None else (cell.moved if not kind else 0.5) for cell in line] for line in kept],
            "zmin": 0, "zmax": (top or 1.0) if not kind else 1, "colorscale": scale, "showscale": False,
            "xgap": 2, "ygap": 2, "hoverinfo": "text", "hoverongaps": False,
            "hovertext": [["" if cell is None else for_plotly(cell.said, 200) for cell in line] for line in kept],
            **({"text": [[_number(cell) for cell in line] for line in kept], "texttemplate": "%{text}",
                "textfont": {"size": 10}} if numbers else {}),
        })  # fmt: skip
    return found


def _number(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.moved is None or not cell.trained:
        return short_count(cell.of)
    return percent(cell.moved, 0 if cell.moved >= 0.1 else 1)


def short_count(count: int) -> str:
    """Return a number of parameters in three signs: ``590 k``, ``11.7 M``."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 20 * size else f"{count / size:.0f} {unit}"
    return str(count)


def _kind(cell: Cell) -> str:
    if cell.moved is not None and cell.trained:
        return ""
    return "trained" if cell.trained else "frozen"


def _bricks(cells: list[Cell], row: int, width: int, ink: tuple[str, float]) -> list[Record]:
    """Return what stands before or behind the blocks, as one row of equal bricks."""
    if not cells:
        return []
    step = width / len(cells)
    edges = [round(-0.5 + step * place, 4) for place in range(len(cells) + 1)]
    return _maps([list(cells)], (edges, [row - 0.5, row + 0.5]), ink, False)


def _names(cells: list[Cell], row: int, width: int) -> list[Record]:
    step = width / len(cells) if cells else 1.0
    return [
        {
            "x": -0.5 + step * (place + 0.5), "y": row, "text": for_plotly(cell.label, max(4, int(7 * step))),
            "showarrow": False, "font": {"size": 10, "color": "#16191d"},
        }
        for place, cell in enumerate(cells)
    ]  # fmt: skip


def _flat(colour: str) -> list[list[Any]]:
    return [[0.0, colour], [1.0, colour]]


def _mixed(colour: str, share: float) -> str:
    """Return ``share`` of a colour on white, so that cells look alike in both themes."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)


def parameter_panel(arm: str, kinds: Mapping[str, tuple[int, int]], colour: str) -> style.Panel:
    """Return how many parameters each kind of matrix has, trained and frozen."""
    names = list(kinds)
    series = (
        ("trained", [trained for trained, _ in kinds.values()], colour),
        ("frozen", [of - trained for trained, of in kinds.values()], style.faded(colour, 0.22)),
    )
    data = [
        {
            "type": "bar", "orientation": "h", "name": name, "x": sizes, "y": list(range(len(names))),
            "marker": {"color": ink}, "hoverinfo": "text", "textposition": "none",
            "text": [f"{for_plotly(kind)}: {number(size)} {name}" for kind, size in zip(names, sizes, strict=True)],
        }
        for name, sizes, ink in series
    ]  # fmt: skip
    height = 70 + 24 * len(names)
    layout = style.layout(
        height, barmode="stack", xaxis=style.axis("parameters"),
        yaxis=style.named_axis([for_plotly(name, 24) for name in names], range=[len(names) - 0.5, -0.5]),
    )  # fmt: skip
    return style.Panel(arm, {"data": data, "layout": layout}, height)
