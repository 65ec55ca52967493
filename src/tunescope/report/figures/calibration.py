"""Reliability curves: how often answers of a given confidence are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.report.figures import style
from tunescope.report.text import interval, number, plural

HEIGHT = 270


def reliability_panel(curve: Sequence[Mapping[str, Any]], title: str, colour: str) -> style.Panel | None:
    """Return one reliability curve, or None where it has no bins.

    Args:
        curve: Bins with ``low, high, n, confidence, accuracy, accuracy_low, accuracy_high``.
        title: What the panel is about, with its calibration error.
        colour: The arm's.
    """
    bins = [one for one in curve if one.get("accuracy") is not None]
    if not bins:
        return None
    most = max(int(one["n"]) for one in bins) or 1
    x, y = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    start = min(*x, *y, *(one.get("accuracy_low") or 1.0 for one in bins))
    low = max(0.0, start - 0.05)
    diagonal = {
        "type": "scatter", "mode": "lines", "x": [low, 1], "y": [low, 1], "hoverinfo": "skip",
        "line": {"color": style.BASE_COLOUR, "width": 1.2, "dash": "dot"},
    }  # fmt: skip
    points = {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": y,
        "line": {"color": colour, "width": 1.6},
        "marker": {"color": colour, "size": [5 + 11 * (one["n"] / most) ** 0.5 for one in bins]},
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1.2, "width": 0,
            "array": [_gap(one.get("accuracy_high"), one["accuracy"]) for one in bins],
            "arrayminus": [_gap(one["accuracy"], one.get("accuracy_low")) for one in bins],
        },
        "hoverinfo": "text",
        "text": [
            f"confidence {number(one['low'], 2)} to {number(one['high'], 2)}, mean {number(one['confidence'])}"
            f"<br>right {interval(one['accuracy'], one.get('accuracy_low'), one.get('accuracy_high'))}"
            f"<br>{plural(int(one['n']), 'row')}"
            for one in bins
        ],
    }  # fmt: skip
    layout = style.layout(
        HEIGHT, xaxis=style.axis("confidence", range=[low, 1.03]), yaxis=style.axis("share that is right"),
        hovermode="closest",
    )  # fmt: skip
    return style.Panel(title, {"data": [diagonal, points], "layout": layout}, HEIGHT)


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower
