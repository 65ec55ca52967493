"""Curves over a grid: the metric that chose, against each setting that was varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures import style
from tunescope.report.text import Estimate, for_plotly

HEIGHT = 280
MOST_LINES = 6


@dataclass(frozen=True)
class Trial:
    """One trial of a grid: its settings as text, the metric on validation rows, and whether it was chosen."""

    name: str
    point: Mapping[str, str]
    value: Estimate
    chosen: bool


def axis_panel(
    trials: Sequence[Trial], key: str, values: Sequence[str], others: Sequence[str], metric: str
) -> style.Panel | None:
    """Return the metric against one setting, a line for each combination of the others while they are few.

    Args:
        trials: All trials of the grid.
        key: The setting.
        values: Its values, in order.
        others: The other settings that were varied.
        metric: The metric that chose.
    """
    lines: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        if trial.value.value is not None and key in trial.point:
            lines.setdefault(tuple(trial.point.get(other, "") for other in others), []).append(trial)
    if not lines:
        return None
    traces = []
    for index, (rest, own) in enumerate(lines.items()):
        few = len(lines) <= MOST_LINES
        colour = style.ARM_COLOURS[index % len(style.ARM_COLOURS)] if few else style.BASE_COLOUR
        name = ", ".join(f"{other} {value}" for other, value in zip(others, rest, strict=True)) or key
        shift = 0.0 if len(lines) == 1 else 0.24 * (index / (len(lines) - 1) - 0.5)
        traces.append(_line(own, [values.index(t.point[key]) + shift for t in own], name, colour, few))
    layout = style.layout(
        HEIGHT,
        xaxis=style.named_axis([for_plotly(value, 14) for value in values], for_plotly(key)),
        yaxis=style.axis(for_plotly(metric)),
        hovermode="closest",
        showlegend=1 < len(lines) <= MOST_LINES,
        legend={"orientation": "h", "y": -0.3},
    )
    return style.Panel(key, {"data": traces, "layout": layout}, HEIGHT)


def _line(
    trials: Sequence[Trial], places: Sequence[float], name: str, colour: str, joined: bool
) -> dict[str, Any]:
    order = sorted(range(len(trials)), key=lambda index: places[index])
    own = [trials[index] for index in order]
    return {
        "type": "scatter", "mode": "lines+markers" if joined else "markers", "name": for_plotly(name, 40),
        "x": [places[index] for index in order], "y": [trial.value.value for trial in own],
        "line": {"color": colour, "width": 1.4},
        "marker": {
            "color": colour, "size": [13 if trial.chosen else 7 for trial in own],
            "symbol": ["star" if trial.chosen else "circle" for trial in own],
        },
        "error_y": error_bars([trial.value for trial in own]), "hoverinfo": "text",
        "text": [
            f"{for_plotly(trial.name, 40)}<br>{trial.value}{'<br>chosen on validation' if trial.chosen else ''}"
            for trial in own
        ],
    }  # fmt: skip


def error_bars(values: Sequence[Estimate]) -> dict[str, Any]:
    """Return the intervals of values as Plotly's error bars; nothing where one has no interval."""
    return {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 0,
        "array": [0 if one.high is None else one.high - (one.value or 0.0) for one in values],
        "arrayminus": [0 if one.low is None else (one.value or 0.0) - one.low for one in values],
    }  # fmt: skip


def learning_panel(
    curves: Sequence[tuple[str, Sequence[tuple[float, Estimate]]]], colour: str, metric: str
) -> style.Panel | None:
    """Return a learning curve: the metric against the share of train rows, a line a split.

    Args:
        curves: The split's name and its (share, value) points; the first is drawn in the arm's colour.
        colour: The arm's.
        metric: The metric.
    """
    traces: list[dict[str, Any]] = []
    for split, points in curves:
        own = sorted((one for one in points if one[1].value is not None), key=lambda one: one[0])
        if not own:
            continue
        ink = style.BASE_COLOUR if traces else colour
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": split, "x": [share for share, _ in own],
                "y": [value.value for _, value in own], "line": {"color": ink, "width": 2},
                "marker": {"size": 8, "color": ink}, "error_y": error_bars([value for _, value in own]),
                "hoverinfo": "text",
                "text": [f"{100 * share:g} % of the train rows, {split}<br>{value}" for share, value in own],
            }
        )  # fmt: skip
    if not traces:
        return None
    layout = style.layout(
        HEIGHT, xaxis=style.axis("share of the train rows", rangemode="tozero", tickformat=".0%"),
        yaxis=style.axis(for_plotly(metric)), hovermode="closest", showlegend=len(traces) > 1,
        legend={"orientation": "h", "y": -0.3},
    )  # fmt: skip
    return style.Panel("learning curve", {"data": traces, "layout": layout}, HEIGHT)
