"""Training curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.report.figures import style
from tunescope.report.text import finite, for_plotly, number, percent

Log = Sequence[Mapping[str, Any]]
CURVES = (
    ("loss", "training loss"),
    ("eval_loss", "validation loss"),
    ("eval_accuracy", "validation accuracy"),
)


def curve_panels(logs: Mapping[tuple[str, int | None], Log], arms: Sequence[str]) -> tuple[style.Panel, ...]:
    """Return one panel per logged quantity, a line per arm and seed over epochs.

    Args:
        logs: ``(arm, seed)`` to the events of its ``log.jsonl``.
        arms: All arms of the run, in the order that gives them their colours.
    """
    panels = []
    for key, title in CURVES:
        traces = [
            trace
            for (arm, seed), log in sorted(
                logs.items(), key=lambda item: (arms.index(item[0][0]), item[0][1] or 0)
            )
            if (trace := _curve(log, key, arm, seed, style.arm_colour(arms, arm)))
        ]
        if traces:
            figure_layout = style.layout(
                250, xaxis=style.axis("epoch", rangemode="tozero"), yaxis=style.axis(""), hovermode="closest"
            )
            panels.append(style.Panel(title, {"data": traces, "layout": figure_layout}, 250))
    return tuple(panels)


def _curve(log: Log, key: str, arm: str, seed: int | None, colour: str) -> dict[str, Any] | None:
    points = {}
    for event in log:
        epoch, value = finite(event.get("epoch")), finite(event.get(key))
        if epoch is not None and value is not None:
            points[epoch] = value
    if not points:
        return None
    epochs = sorted(points)
    name = for_plotly(arm, 40) if seed is None else f"{for_plotly(arm, 40)}, seed {seed}"
    few = len(epochs) <= 12
    return {
        "type": "scatter", "mode": "lines+markers" if few else "lines", "name": name, "x": epochs,
        "y": [points[epoch] for epoch in epochs], "line": {"color": colour, "width": 2 if few else 1.6},
        "marker": {"size": 7}, "hoverinfo": "text",
        "text": [f"{name}<br>epoch {number(epoch, 2)}: {number(points[epoch])}" for epoch in epochs],
    }  # fmt: skip


def confusion_panel(matrix: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> style.Panel:
    """Return a confusion matrix: true classes down, predictions across, colour per row, counts as text.

    Args:
        matrix: Counts ``[true class, predicted class]`` in class index order.
        labels: Label names in class index order; numbered where they do not fit the matrix.
        title: What the panel is about.
    """
    names = list(labels) if len(labels) == len(matrix) else [f"class {index}" for index in range(len(matrix))]
    shares = [[count / sum(line) if sum(line) else None for count in line] for line in matrix]
    hover = [
        [
            f"true {for_plotly(names[i])}<br>predicted {for_plotly(names[j])}"
            f"<br>{count:,} rows, {percent(shares[i][j])} of this class"
            for j, count in enumerate(line)
        ]
        for i, line in enumerate(matrix)
    ]
    ticks = [for_plotly(name, 16) for name in names]
    data = {
        "type": "heatmap", "z": shares, "x": list(range(len(names))), "y": list(range(len(names))),
        "hovertext": hover, "hoverinfo": "text",
        "zmin": 0, "zmax": 1, "colorscale": style.BLUES, "showscale": False,
        "xgap": 2, "ygap": 2,
    }  # fmt: skip
    if len(names) <= 25:
        data |= {"text": [[f"{count:,}" for count in line] for line in matrix], "texttemplate": "%{text}"}
    height = min(max(240, 38 * len(names) + 100), 900)
    figure_layout = style.map_layout(
        height,
        xaxis=style.named_axis(ticks, "predicted", side="bottom"),
        yaxis=style.named_axis(ticks, "true", range=[len(names) - 0.5, -0.5]),
    )
    return style.Panel(title, {"data": [data], "layout": figure_layout}, height)
