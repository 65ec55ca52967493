"""The lanes of the depth strip: what each lens says of each layer, arm by arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.ablation import effects
from tunescope.report.figures.depth import Lane, Line
from tunescope.report.figures.select import first_seed, only, pooled, values
from tunescope.report.figures.similarity import STREAM_SITES, place_name
from tunescope.report.text import Estimate


def weight_lane(table: pl.DataFrame, arms: Sequence[str]) -> Lane | None:
    """Return the lane of how far each block's weights moved, as a share of their norm."""
    blocks = only(table, metric="relative_frobenius", site="block")
    lines = [
        Line(arm, style.arm_colour(arms, arm), points, {}, seeds=_of_seeds(only(blocks, arm=arm)))
        for arm in arms
        if (points := _by_layer(only(blocks, arm=arm)))
    ]
    return Lane("weight change, share of the block's norm", "weights", tuple(lines), {}) if lines else None


def reading_lane(
    table: pl.DataFrame, arms: Sequence[str], metric: str, title: str, short: str
) -> Lane | None:
    """Return the lane of what can be read off each layer, base and tuned.

    Args:
        table: The table of the lens ``probes`` or ``logit_lens``.
        arms: The run's arms.
        metric: Its accuracy.
        title: What is shown, in words.
        short: The same for the hover.
    """
    rows = only(table, metric=metric).filter(pl.col("site").is_in(STREAM_SITES))
    lines: list[Line] = []
    bases: list[dict[int, Estimate]] = []
    control: dict[int, tuple[float, float]] = {}
    for arm in arms:
        own = only(rows, arm=arm)
        base = _by_layer(only(own, model="base"))
        if base and base not in bases:
            bases.append(base)
            lines.append(Line(f"base of {arm}", style.arm_colour(arms, arm), base, {}, base=True))
        tuned = _by_layer(only(own, model="tuned"))
        if tuned:
            seeds = _of_seeds(only(own, model="tuned"))
            lines.append(Line(arm, style.arm_colour(arms, arm), tuned, {}, seeds=seeds))
        if "control" in own.columns:
            known = only(own, model="tuned").select("layer", "control").drop_nulls()
            for layer, value in known.iter_rows():
                low, high = control.get(layer, (value, value))
                control[layer] = (min(low, value), max(high, value))
    if len(bases) == 1:
        lines = [_plain_base(line) if line.base else line for line in lines]
    ordered = tuple(sorted(lines, key=lambda line: not line.base))
    return Lane(title, short, ordered, control, similarity=True) if lines else None


def cka_lane(table: pl.DataFrame, arms: Sequence[str]) -> Lane | None:
    """Return the lane of CKA between base and tuned at the same layer of the residual stream."""
    lines: list[Line] = []
    control: dict[int, tuple[float, float]] = {}
    across = _same_place(only(table, metric="cka", model="base_tuned"))
    for arm in arms:
        rows = only(across, arm=arm)
        points = _by_layer(rows)
        if points:
            lines.append(Line(arm, style.arm_colour(arms, arm), points, {}, seeds=_of_seeds(rows)))
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

    def points(arm: str, model: str, control: str) -> Points:
        rows = effects(only(table, arm=arm), site=site, edit=edit, model=model, control=control)
        return _by_layer(rows), {}, _of_seeds(rows)

    return _effect_lane(part, arms, points)


def head_lane(table: pl.DataFrame, arms: Sequence[str], edit: str) -> Lane | None:
    """Return the lane of the head with the largest effect in each layer of the tuned model.

    The base is shown for the same head, not for its own strongest, so that the two can be compared.
    """

    def points(arm: str, model: str, control: str) -> Points:
        every, own = only(table, arm=arm), first_seed(only(table, arm=arm))
        chosen = _strongest(effects(own, site="head_out", edit=edit, model="tuned", control="none"))
        of_all, rows = (
            effects(one, site="head_out", edit=edit, model=model, control=control) for one in (every, own)
        )
        found: dict[int, Estimate] = {}
        spans: dict[int, tuple[float, float]] = {}
        for layer, head in sorted(chosen.items()):
            point, span = (
                pooled(only(rows, layer=layer, head=head).to_dicts()),
                _span(only(of_all, layer=layer, head=head).to_dicts()),
            )
            found |= {layer: point} if point.known else {}
            spans |= {layer: span} if span is not None else {}
        return found, {layer: f"L{layer}H{head}" for layer, head in chosen.items()}, spans

    return _effect_lane("strongest head", arms, points)


def graft_lane(table: pl.DataFrame, arms: Sequence[str]) -> Lane | None:
    """Return the lane of the accuracy that tuned weights up to each block give the base, of tuning's gain."""
    lines: list[Line] = []
    control: dict[int, tuple[float, float]] = {}
    curve = only(table, scope="up_to_here", metric="recovered_accuracy", site="block")
    for arm in arms:
        own = only(curve, arm=arm, control="none")
        points = _by_layer(own)
        if points:
            lines.append(Line(arm, style.arm_colour(arms, arm), points, {}, seeds=_of_seeds(own)))
        for layer, point in _by_layer(only(curve, arm=arm, control="random")).items():
            bounds = [bound for bound in (point.value, point.low, point.high) if bound is not None]
            low, high = control.get(layer, (bounds[0], bounds[0]))
            control[layer] = (min(low, *bounds), max(high, *bounds))
    title = "share of the accuracy gain, grafted up to here"
    return Lane(title, "grafted up to here", tuple(lines), control) if lines else None


# Estimates, what the hover adds, and the span of single seeds, each by layer.
Points = tuple[dict[int, Estimate], dict[int, str], dict[int, tuple[float, float]]]
PointsOf = Callable[[str, str, str], Points]


def _effect_lane(part: str, arms: Sequence[str], points: PointsOf) -> Lane | None:
    title, short = f"{part} taken out, margin change", part
    lines: list[Line] = []
    bases: list[dict[int, Estimate]] = []
    control: dict[int, tuple[float, float]] = {}
    for arm in arms:
        base, notes, _ = points(arm, "base", "none")
        # Arms that start from one base share its numbers: drawn once, in grey, or once per arm in its colour.
        if base and base not in bases:
            bases.append(base)
            lines.append(Line(f"base of {arm}", style.arm_colour(arms, arm), base, notes, base=True))
        tuned, notes, seeds = points(arm, "tuned", "none")
        if tuned:
            lines.append(Line(arm, style.arm_colour(arms, arm), tuned, notes, seeds=seeds))
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


def _of_seeds(rows: pl.DataFrame) -> dict[int, tuple[float, float]]:
    """Return the lowest and the highest value of single seeds by layer, where there are several."""
    spans = {int(layer): _span(only(rows, layer=layer).to_dicts()) for layer in values(rows, "layer")}
    return {layer: span for layer, span in spans.items() if span is not None}


def _span(records: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    found = {one.get("seed"): float(one["value"]) for one in records if one["value"] is not None}
    return (min(found.values()), max(found.values())) if len(found) > 1 else None
