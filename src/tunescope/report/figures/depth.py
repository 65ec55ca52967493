"""The depth strip: what tuning changed, layer by layer, in lanes over one shared axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.select import layer_name
from tunescope.report.text import Estimate, for_plotly, interval, signed

LANE_HEIGHT, LEAST_HEIGHT = 190, 54
STRIP_HEIGHT = 384  # what a first screen has room for
TITLE_HEIGHT = 18
CROWDED = 60  # pixels: three ticks of a lower lane would touch one another


@dataclass(frozen=True)
class Line:
    """One line in a lane: an estimate per layer, and what the hover adds per layer.

    Attributes:
        name: Its arm, or of which arms it is the base.
        colour: Of line and interval.
        points: The estimates, pooled over seeds.
        notes: What stands in the hover before the name.
        base: Whether it is a base's.
        seeds: From the lowest to the highest value of single seeds, where there are several; drawn in grey.
    """

    name: str
    colour: str
    points: dict[int, Estimate]
    notes: dict[int, str]
    base: bool = False
    seeds: dict[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Lane:
    """One lane: its title and lines.

    Attributes:
        title: What is shown, in words.
        short: The same for the hover.
        lines: A line per arm, and per base.
        control: The range of the control per layer.
        similarity: Whether values are similarities or shares (0 to 1), not effects around zero.
        names: Places on the axis that are not a block: the embeddings, the final norm.
        seeds: The range of tuned models of two seeds per layer, over the arms; drawn like the control.
    """

    title: str
    short: str
    lines: tuple[Line, ...]
    control: dict[int, tuple[float, float]]
    similarity: bool = False
    names: dict[int, str] = field(default_factory=dict)
    seeds: dict[int, tuple[float, float]] = field(default_factory=dict)


def depth_strip(lanes: Sequence[Lane]) -> style.Panel:
    """Return the strip: lanes from top to bottom over one axis of layers, one hover answering in all."""
    layers = sorted({layer for lane in lanes for line in lane.lines for layer in line.points})
    names = {layer: name for lane in lanes for layer, name in lane.names.items()}
    share = 1 / len(lanes)
    lane_height = max(LEAST_HEIGHT, min(LANE_HEIGHT, STRIP_HEIGHT // len(lanes)))
    height = lane_height * len(lanes) + 46
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    for index, lane in enumerate(lanes):
        suffix = "" if index == 0 else str(index + 1)
        top = 1 - index * share
        axes[f"yaxis{suffix}"] = style.axis(
            domain=[top - share + 0.02, top - TITLE_HEIGHT / (height - 44)],
            nticks=3 if lane_height > CROWDED else 2,
            **_lane_range(lane),
        )
        notes.append(_lane_title(lane, top))
        data += _control_band(lane, lane.control, layers, f"y{suffix}")
        data += _control_band(lane, lane.seeds, layers, f"y{suffix}")
        for line in lane.lines:
            data += _control_band(lane, line.seeds, layers, f"y{suffix}")
            data += _line_traces(lane, line, f"y{suffix}")
    bottom = "y" if len(lanes) == 1 else f"y{len(lanes)}"
    axes["xaxis"] = style.axis(
        "layer", anchor=bottom, tickmode="array", tickvals=layers,
        ticktext=[names.get(item, layer_name(item)) for item in layers],
        range=[layers[0] - 0.35, layers[-1] + 0.35], showspikes=True, spikemode="across", spikethickness=1,
        spikedash="solid", spikecolor=style.ZERO, spikesnap="hovered data",
    )  # fmt: skip
    figure_layout = style.layout(
        height, **axes, annotations=notes, hovermode="x unified", hoversubplots="axis",
        margin={"l": 46, "r": 10, "t": 4, "b": 40},
    )  # fmt: skip
    return style.Panel("", {"data": data, "layout": figure_layout}, height)


def _lane_title(lane: Lane, top: float) -> dict[str, Any]:
    return {
        "text": lane.title, "x": 0, "y": top, "xref": "paper", "yref": "paper",
        "xanchor": "left", "yanchor": "top", "showarrow": False, "font": {"size": 12},
    }  # fmt: skip


def _lane_range(lane: Lane) -> dict[str, Any]:
    bounds = [bound for band in (lane.control, lane.seeds) for pair in band.values() for bound in pair]
    for line in lane.lines:
        for point in line.points.values():
            bounds += [bound for bound in (point.value, point.low, point.high) if bound is not None]
    if lane.similarity:
        return {"range": [min(0.0, *bounds) - 0.04, 1.04]}
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    room = 0.1 * ((high - low) or 1.0)
    return {
        "range": [low - room, high + room],
        "zeroline": True,
        "zerolinecolor": style.ZERO,
        "zerolinewidth": 1,
    }


def _control_band(
    lane: Lane, band: dict[int, tuple[float, float]], layers: Sequence[int], yaxis: str
) -> list[dict[str, Any]]:
    known = [layer for layer in layers if layer in band]
    if not known:
        return []
    lows = [band[layer][0] for layer in known]
    highs = [band[layer][1] for layer in known]
    return [
        {
            "type": "scatter", "mode": "lines",
            "x": [*known, *reversed(known)], "y": [*highs, *reversed(lows)],
            "fill": "toself", "fillcolor": style.faded(style.BASE_COLOUR, 0.28), "hoverinfo": "skip",
            "line": {
                "width": 1 if lane.similarity else 0, "dash": "dot",
                "color": style.faded(style.BASE_COLOUR, 0.6),
            },
            "yaxis": yaxis, "xaxis": "x",
        }
    ]  # fmt: skip


def _line_traces(lane: Lane, line: Line, yaxis: str) -> list[dict[str, Any]]:
    layers = sorted(line.points)
    points = [line.points[layer] for layer in layers]
    traces: list[dict[str, Any]] = []
    banded = [(layer, p) for layer, p in zip(layers, points, strict=True) if None not in (p.low, p.high)]
    if not line.base and banded:
        band_x = [layer for layer, _ in banded]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "x": [*band_x, *reversed(band_x)],
                "y": [*(p.high for _, p in banded), *(p.low for _, p in reversed(banded))],
                "fill": "toself", "fillcolor": style.faded(line.colour, 0.16), "line": {"width": 0},
                "hoverinfo": "skip", "xaxis": "x", "yaxis": yaxis,
            }
        )  # fmt: skip
    hover = []
    for layer, point in zip(layers, points, strict=True):
        value = signed(point.value) if not lane.similarity else ""
        bounds = interval(point.value, point.low, point.high)
        shown = bounds if not value else value + bounds[len(bounds.split(" ")[0]) :]
        where = line.notes.get(layer, lane.short)
        hover.append(f"{where} · {for_plotly(line.name, 22)} {shown}")
    traces.append(
        {
            "type": "scatter", "mode": "lines+markers", "x": layers, "y": [p.value for p in points],
            "cliponaxis": False,  # a mark at a lane's edge is drawn whole
            "line": {
                "color": line.colour, "width": 1.4 if line.base else 2.2,
                "dash": "dot" if line.base else "solid",
            },
            "marker": {"size": 5 if line.base else 6.5, "color": line.colour,
                       "symbol": "circle-open" if line.base else "circle"},
            "text": hover, "hoverinfo": "text", "name": for_plotly(line.name, 28),
            "xaxis": "x", "yaxis": yaxis,
        }
    )  # fmt: skip
    return traces
