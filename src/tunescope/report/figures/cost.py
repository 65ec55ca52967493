"""What quality costs: accuracy against time and trained parameters, and memory over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures import style
from tunescope.report.text import Estimate, duration, for_plotly, number, stored

HEIGHT = 330
MOST_TICKS = 8
Box = tuple[float, float, float, float]
TIMES = {
    0.01: "0.01 s", 0.1: "0.1 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min", 180: "3 min",
    600: "10 min", 1800: "30 min", 3600: "1 h", 10800: "3 h", 36000: "10 h", 86400: "1 d", 259200: "3 d",
    864000: "10 d", 8640000: "100 d",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One arm: its accuracy, and what it cost; None where a cost is not known."""

    name: str
    colour: str
    accuracy: Estimate
    seconds: float | None
    trained: float | None


def dominated(points: Sequence[tuple[float, float]]) -> list[int | None]:
    """Return, for each (cost, quality), the place of one that is no dearer and no worse and better in one, or None."""
    found: list[int | None] = []
    for cost, quality in points:
        better = [
            place
            for place, (other, value) in enumerate(points)
            if other <= cost and value >= quality and (other < cost or value > quality)
        ]
        found.append(max(better, key=lambda place: points[place][1]) if better else None)
    return found


def trade_off_panels(
    points: Sequence[Point], baselines: Sequence[tuple[str, float]]
) -> tuple[style.Panel, ...]:
    """Return accuracy against time and against trained parameters, where two arms or more have them.

    Args:
        points: The arms.
        baselines: Name and accuracy of what trains nothing, drawn as dotted lines.
    """
    panels = []
    for title, what in (("time", "seconds"), ("trained parameters", "trained")):
        known = [point for point in points if getattr(point, what) is not None]
        if len(known) > 1:
            panels.append(_trade_off(known, baselines, title, what))
    return tuple(panels)


def _trade_off(
    points: Sequence[Point], baselines: Sequence[tuple[str, float]], title: str, what: str
) -> style.Panel:
    costs = [float(getattr(point, what)) for point in points]
    places, ticks = log_places(costs, what == "seconds")
    beaten = dominated(
        [(cost, point.accuracy.value or 0.0) for cost, point in zip(costs, points, strict=True)]
    )
    left, right = min(places) - 0.45, max(places) + 0.55
    traces: list[dict[str, Any]] = []
    for name, value in baselines:
        shown = f"baseline {for_plotly(name, 24)}"
        traces.append(
            {
                "type": "scatter", "mode": "lines+text", "y": [value, value, value],
                "x": [left, left + 0.02 * (right - left), right],
                "line": {"color": style.BASE_COLOUR, "width": 1.2, "dash": "dot"}, "text": ["", shown, ""],
                "textposition": "top right", "textfont": {"color": style.BASE_COLOUR, "size": 11},
                "hoverinfo": "text", "hovertext": [f"{shown}: {number(value)}"] * 3,
            }
        )  # fmt: skip
    qualities = [point.accuracy.value or 0.0 for point in points]
    spots = label_spots(places, qualities, [len(point.name) for point in points])
    for index, (place, point) in enumerate(zip(places, points, strict=True)):
        by = beaten[index]
        rival = None if by is None else points[by].name
        traces.append(_mark(place, point, (_priced(costs[index], what), spots[index]), rival))
    axis_title = "training time (logarithmic)" if what == "seconds" else "trained parameters (logarithmic)"
    layout = style.layout(
        HEIGHT,
        xaxis=style.axis(axis_title, range=[left, right], tickmode="array", tickvals=[t for t, _ in ticks],
                         ticktext=[name for _, name in ticks]),
        yaxis=style.axis("accuracy"),
        hovermode="closest",
    )  # fmt: skip
    return style.Panel(f"accuracy and {title}", {"data": traces, "layout": layout}, HEIGHT)


def label_spots(x: Sequence[float], y: Sequence[float], lengths: Sequence[int]) -> list[str | None]:
    """Return where the label of each mark goes so that labels do not cover one another; None leaves it to the hover.

    Places are tried in turn on a drawing of about 470 by 240 pixels, from the best mark down.
    """
    wide, high = (max(x) - min(x) + 1.0) or 1.0, 1.3 * (max(y) - min(y)) or 1.0
    spots = [(470 * (a - min(x) + 0.45) / wide, 240 * (b - min(y)) / high) for a, b in zip(x, y, strict=True)]
    taken = [(a - 6, b - 6, a + 6, b + 6) for a, b in spots]
    found: list[str | None] = [None] * len(spots)
    for index in sorted(range(len(spots)), key=lambda one: -y[one]):
        across, up = spots[index]
        width = 6.4 * min(lengths[index], 30) + 4
        for name, left, low in (
            ("middle right", across + 8, up - 7), ("middle left", across - 8 - width, up - 7),
            ("top right", across + 4, up + 6), ("bottom right", across + 4, up - 20),
            ("top left", across - 4 - width, up + 6), ("bottom left", across - 4 - width, up - 20),
        ):  # fmt: skip
            box = (left, low, left + width, low + 14)
            others = [one for place, one in enumerate(taken) if place != index]
            if left < 0 or left + width > 480 or any(_overlap(box, one) for one in others):
                continue
            found[index] = name
            taken.append(box)
            break
    return found


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _mark(place: float, point: Point, told: tuple[str, str | None], beaten_by: str | None) -> dict[str, Any]:
    price, spot = told
    name = for_plotly(point.name, 30)
    lines = [name, f"accuracy {point.accuracy}", price]
    if beaten_by is not None:
        lines.append(f"dominated by {for_plotly(beaten_by, 30)}")
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "markers+text", "x": [place], "y": [point.accuracy.value],
        "marker": {
            "color": point.colour, "size": 11, "symbol": "circle" if beaten_by is None else "circle-open",
            "line": {"width": 2, "color": point.colour},
        },
        "text": [name if spot else ""], "textposition": spot or "middle right",
        "hoverinfo": "text", "hovertext": ["<br>".join(lines)],
    }  # fmt: skip
    if point.accuracy.low is not None and point.accuracy.high is not None:
        value = point.accuracy.value or 0.0
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": [point.accuracy.high - value],
            "arrayminus": [value - point.accuracy.low], "thickness": 1.4, "width": 0,
        }  # fmt: skip
    return trace


def _priced(cost: float, what: str) -> str:
    return f"{duration(cost)} of training" if what == "seconds" else f"{number(cost)} trained parameters"


def log_places(costs: Sequence[float], time: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where costs stand on a logarithmic axis, and its ticks; zero stands one decade left of the least.

    Args:
        costs: 0 or more.
        time: Whether they are seconds; otherwise they are counts.
    """
    positive = [cost for cost in costs if cost > 0]
    least = min(positive, default=1.0)
    nothing = math.log10(least) - 1
    places = [math.log10(cost) if cost > 0 else nothing for cost in costs]
    top = max(positive, default=1.0)
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(top))
    steps = (1, 2, 5) if last - first <= 1 else (1, 3) if last - first <= 2 else (1,)
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    named = list(TIMES.items()) if time else [(value, short(value)) for value in values]
    ticks = [(math.log10(value), name) for value, name in named if least / 3.2 <= value <= 3.2 * top]
    if len(ticks) > MOST_TICKS:
        ticks = ticks[:: math.ceil(len(ticks) / MOST_TICKS)]
    return places, [*([(nothing, "0")] if len(positive) < len(costs) else []), *ticks]


def short(value: float) -> str:
    """Return a large count in few signs: ``30 k``, ``1 M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def memory_panel(
    courses: Sequence[tuple[str, int | None, Sequence[tuple[float, float]]]], arms: Sequence[str]
) -> style.Panel | None:
    """Return memory over seconds, a line per training, or None where there is none.

    Args:
        courses: Arm, seed, and (seconds, bytes) in order.
        arms: All arms of the run, in the order that gives them their colours.
    """
    traces = []
    for arm, seed, course in courses:
        kept = course[:: max(1, len(course) // 400)]
        if not kept:
            continue
        name = for_plotly(arm, 40) if seed is None else f"{for_plotly(arm, 40)}, seed {seed}"
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": [seconds for seconds, _ in kept],
                "y": [size / 1e9 for _, size in kept],
                "line": {"color": style.arm_colour(arms, arm), "width": 1.6}, "hoverinfo": "text",
                "text": [f"{name}<br>{duration(seconds)}: {stored(size)}" for seconds, size in kept],
            }
        )  # fmt: skip
    if not traces:
        return None
    layout = style.layout(
        210, xaxis=style.axis("seconds", rangemode="tozero"), yaxis=style.axis("GB", rangemode="tozero"),
        hovermode="closest",
    )  # fmt: skip
    return style.Panel("memory", {"data": traces, "layout": layout}, 210)
