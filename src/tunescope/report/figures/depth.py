"""The depth strip: what tuning changed, layer by layer, in lanes over one shared axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.ablation import effects
from tunescope.report.figures.select import first_seed, layer_name, only, pooled, values
from tunescope.report.figures.similarity import STREAM_SITES, place_name
from tunescope.report.text import Estimate, for_plotly, interval, signed

LANE_HEIGHT = 108
TITLE_HEIGHT = 21


@dataclass(frozen=True)
class Line:
    """One line in a lane: an estimate per layer, and what the hover adds per layer."""

    name: str
    colour: str
    points: dict[int, Estimate]
    notes: dict[int, str]
    base: bool = False


@dataclass(frozen=True)
class Lane:
    """One lane: its title and lines.

    Attributes:
        title: What is shown, in words.
        short: The same for the hover.
        lines: A line per arm, and per base.
        control: The range of the control per layer.
        similarity: Whether values are similarities (0 to 1), not effects around zero.
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


def cka_lane(table: pl.DataFrame, arms: Sequence[str]) -> Lane | None:
    """Return the lane of CKA between base and tuned at the same layer of the residual stream."""
    lines: list[Line] = []
    control: dict[int, tuple[float, float]] = {}
    across = _same_place(only(table, metric="cka", model="base_tuned"))
    for arm in arms:
        rows = only(across, arm=arm)
        points = _by_layer(rows)
        if points:
            lines.append(Line(arm, style.arm_colour(arms, arm), points, {}))
        if "control" in rows.columns:
            for layer, value in rows.select("layer", "control").drop_nulls().iter_rows():
                low, high = control.get(layer, (value, value))
                control[layer] = (min(low, value), max(high, value))
    ends = across.filter(pl.col("site") != "resid_post")
    # Arms of different depth share the axis: where one model's norm stands at another's block, both are named.
    blocks = set(values(only(across, site="resid_post"), "layer"))
    names = {
        layer: f"{layer}, {place_name((site, layer))}" if layer in blocks else place_name((site, layer))
        for layer, site in ends.select("layer", "site").unique().iter_rows()
    }
    seeds = {
        layer: (min(point.low or point.value or 0.0, point.value or 0.0), point.high or point.value or 0.0)
        for layer, point in _by_layer(_same_place(only(table, metric="cka", model="tuned_seeds"))).items()
    }
    title = "CKA, base against tuned"
    return Lane(title, "CKA", tuple(lines), control, True, names, seeds) if lines else None


def _same_place(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(
        (pl.col("layer") == pl.col("layer_other"))
        & (pl.col("site") == pl.col("site_other"))
        & pl.col("site").is_in(STREAM_SITES)
    )


def sublayer_lane(table: pl.DataFrame, arms: Sequence[str], site: str, part: str, edit: str) -> Lane | None:
    """Return the lane of what taking out one kind of sublayer does to the margin."""

    def points(arm: str, model: str, control: str) -> tuple[dict[int, Estimate], dict[int, str]]:
        rows = effects(only(table, arm=arm), site=site, edit=edit, model=model, control=control)
        return _by_layer(rows), {}

    return _effect_lane(part, arms, points)


def head_lane(table: pl.DataFrame, arms: Sequence[str], edit: str) -> Lane | None:
    """Return the lane of the head with the largest effect in each layer of the tuned model.

    The base is shown for the same head, not for its own strongest, so that the two can be compared.
    """

    def points(arm: str, model: str, control: str) -> tuple[dict[int, Estimate], dict[int, str]]:
        own = first_seed(only(table, arm=arm))
        chosen = _strongest(effects(own, site="head_out", edit=edit, model="tuned", control="none"))
        rows = effects(own, site="head_out", edit=edit, model=model, control=control)
        found = {
            layer: pooled(only(rows, layer=layer, head=head).to_dicts())
            for layer, head in sorted(chosen.items())
        }
        return (
            {layer: point for layer, point in found.items() if point.known},
            {layer: f"L{layer}H{head}" for layer, head in chosen.items()},
        )

    return _effect_lane("strongest head", arms, points)


def graft_lane(table: pl.DataFrame, arms: Sequence[str]) -> Lane | None:
    """Return the lane of the accuracy that tuned weights up to each block give the base, of tuning's gain."""
    lines: list[Line] = []
    control: dict[int, tuple[float, float]] = {}
    curve = only(table, scope="up_to_here", metric="recovered_accuracy", site="block")
    for arm in arms:
        points = _by_layer(only(curve, arm=arm, control="none"))
        if points:
            lines.append(Line(arm, style.arm_colour(arms, arm), points, {}))
        for layer, point in _by_layer(only(curve, arm=arm, control="random")).items():
            bounds = [bound for bound in (point.value, point.low, point.high) if bound is not None]
            low, high = control.get(layer, (bounds[0], bounds[0]))
            control[layer] = (min(low, *bounds), max(high, *bounds))
    title = "accuracy recovered by grafting up to here, share of the gain"
    return Lane(title, "grafted up to here", tuple(lines), control) if lines else None


PointsOf = Callable[[str, str, str], tuple[dict[int, Estimate], dict[int, str]]]


def _effect_lane(part: str, arms: Sequence[str], points: PointsOf) -> Lane | None:
    title, short = f"{part} taken out, margin change", part
    lines: list[Line] = []
    bases: list[dict[int, Estimate]] = []
    control: dict[int, tuple[float, float]] = {}
    for arm in arms:
        base, notes = points(arm, "base", "none")
        # Arms that start from one base share its numbers: drawn once, in grey, or once per arm in its colour.
        if base and base not in bases:
            bases.append(base)
            lines.append(Line(f"base of {arm}", style.arm_colour(arms, arm), base, notes, base=True))
        tuned, notes = points(arm, "tuned", "none")
        if tuned:
            lines.append(Line(arm, style.arm_colour(arms, arm), tuned, notes))
        for layer, point in points(arm, "tuned", "random")[0].items():
            bounds = [bound for bound in (point.value, point.low, point.high) if bound is not None]
            low, high = control.get(layer, (bounds[0], bounds[0]))
            control[layer] = (min(low, *bounds), max(high, *bounds))
    if len(bases) == 1:
        lines = [_plain_base(line) if line.base else line for line in lines]
    return (
        Lane(title, short, tuple(sorted(lines, key=lambda line: not line.base)), control) if lines else None
    )


def _plain_base(line: Line) -> Line:
    return Line("base", style.BASE_COLOUR, line.points, line.notes, base=True)


def _strongest(rows: pl.DataFrame) -> dict[int, int]:
    chosen: dict[int, tuple[float, int]] = {}
    for layer, head, value in (
        rows.select("layer", "head", "value").drop_nulls().sort("layer", "head").iter_rows()
    ):
        if layer not in chosen or abs(value) > chosen[layer][0]:
            chosen[layer] = (abs(value), head)
    return {layer: head for layer, (_, head) in chosen.items()}


def _by_layer(rows: pl.DataFrame) -> dict[int, Estimate]:
    found = {int(layer): pooled(only(rows, layer=layer).to_dicts()) for layer in values(rows, "layer")}
    return {layer: point for layer, point in found.items() if point.known}


def depth_strip(lanes: Sequence[Lane]) -> style.Panel:
    """Return the strip: lanes from top to bottom over one axis of layers, one hover answering in all."""
    layers = sorted({layer for lane in lanes for line in lane.lines for layer in line.points})
    names = {layer: name for lane in lanes for layer, name in lane.names.items()}
    share = 1 / len(lanes)
    height = LANE_HEIGHT * len(lanes) + 46
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes: list[dict[str, Any]] = []
    for index, lane in enumerate(lanes):
        suffix = "" if index == 0 else str(index + 1)
        top = 1 - index * share
        axes[f"yaxis{suffix}"] = style.axis(
            domain=[top - share + 0.02, top - TITLE_HEIGHT / (height - 44)], nticks=4, **_lane_range(lane)
        )
        notes.append(_lane_title(lane, top))
        data += _control_band(lane, lane.control, layers, f"y{suffix}")
        data += _control_band(lane, lane.seeds, layers, f"y{suffix}")
        for line in lane.lines:
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
