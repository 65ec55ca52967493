"""The section on grids: every trial, which was chosen and on what, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.arms import said
from tunescope.report.figures import grids as curves
from tunescope.report.figures import style
from tunescope.report.figures.select import over_seeds
from tunescope.report.of_method import of_method
from tunescope.report.quality import Strip, record_of, shared_domain, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, duration, finite, listed, number

SHARE = "train_share"
OPEN_TRIALS = 24


@dataclass(frozen=True)
class TrialRow:
    """One trial: its settings, the metric on validation rows over seeds, its cost, and whether it was chosen."""

    name: str
    settings: tuple[tuple[str, str], ...]
    value: Estimate
    drawn: Strip | None
    least: float | None
    most: float | None
    trained: str
    seconds: str
    chosen: bool
    note: str


@dataclass(frozen=True)
class Grid:
    """One grid: its axes, its trials, its curves, and how the choice was made."""

    name: str
    keys: tuple[str, ...]
    rows: tuple[TrialRow, ...]
    how: str
    curve: bool
    seeds: int
    figure: style.Figure | None


@dataclass(frozen=True)
class Grids:
    """The section on grids."""

    metric: str
    lower: bool
    note: str
    grids: tuple[Grid, ...]


def grids(run: RunFolder) -> Grids | None:
    """Return the section, or None where the run holds no grids.json."""
    found = run.grids
    if found is None:
        return None
    with reading(run.folder, "grids.json"):
        made = tuple(_grid(run, one, str(found["metric"]), place) for place, one in enumerate(found["grids"]))
        lower = bool(found.get("lower_is_better"))
        return Grids(str(found["metric"]), lower, str(found.get("note") or ""), made)


def _grid(run: RunFolder, one: Mapping[str, Any], metric: str, place: int) -> Grid:
    chosen = set(map(str, one["chosen"]))
    axes = {str(axis["key"]): [said(value) for value in axis["values"]] for axis in one["axes"]}
    values = [over_seeds([dict(seed) for seed in point["seeds"]], metric) for point in one["points"]]
    domain = shared_domain(values)
    rows = tuple(
        _trial(point, value, strip(value, (), domain), chosen)
        for point, value in zip(one["points"], values, strict=True)
    )
    curve = one.get("kind") == "learning_curve"
    name = str(one["grid"])
    figure = _learning(run, one, metric, place) if curve else _curves(rows, axes, metric, (name, place))
    seeds = len(one.get("seeds") or [0])
    return Grid(name, tuple(axes), rows, str(one.get("how") or ""), curve, seeds, figure)


def _trial(point: Mapping[str, Any], value: Estimate, drawn: Strip | None, chosen: set[str]) -> TrialRow:
    per_seed = [
        number_ for number_ in (finite(seed.get("value")) for seed in point["seeds"]) if number_ is not None
    ]
    times = [
        seconds for seconds in (finite(seed.get("seconds")) for seed in point["seeds"]) if seconds is not None
    ]
    several = len(per_seed) > 1
    return TrialRow(
        name=str(point["arm"]),
        settings=tuple((str(key), said(item)) for key, item in point["point"].items()),
        value=value,
        drawn=drawn,
        least=min(per_seed) if several else None,
        most=max(per_seed) if several else None,
        trained=number(point.get("trainable_parameters")),
        seconds=duration(sum(times) / len(times)) if times else "–",
        chosen=str(point["arm"]) in chosen,
        note=value.note or "",
    )


def _curves(
    rows: Sequence[TrialRow], axes: Mapping[str, Sequence[str]], metric: str, named: tuple[str, int]
) -> style.Figure | None:
    trials = [curves.Trial(row.name, dict(row.settings), row.value, row.chosen) for row in rows]
    panels = []
    for key, values in axes.items():
        others = [other for other in axes if other != key]
        panel = curves.axis_panel(trials, key, values, others, metric)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return None
    caption = (
        f"{_first_upper(metric)} on validation rows of every trial, with 95 % intervals; the star is the trial that "
        "was chosen, on these same rows, so its value here flatters it: read its value on test under Arms."
    )
    how = "Where intervals of neighbouring settings overlap widely, these rows cannot tell which is better."
    return style.Figure(f"grid-{named[1]}", f"Curves of {named[0]}", tuple(panels), caption, how)


def _first_upper(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _learning(run: RunFolder, one: Mapping[str, Any], metric: str, place: int) -> style.Figure | None:
    names = [str(point["arm"]) for point in one["points"]]
    shares = [float(point["point"][SHARE]) for point in one["points"]]
    tested = [
        of_method(
            run,
            name,
            [record_of(item.metrics, run.split, metric) for item in run.of(name) if item.metrics],
            metric,
        )
        for name in names
    ]
    validation = [over_seeds([dict(seed) for seed in point["seeds"]], metric) for point in one["points"]]
    lines = [(str(run.split), list(zip(shares, tested, strict=True)))] if run.split else []
    if run.split != "validation":
        lines.append(("validation", list(zip(shares, validation, strict=True))))
    panel = curves.learning_panel(lines, style.arm_colour(run.arm_names, names[0]), metric)
    if panel is None:
        return None
    splits = listed(split for split, points in lines if any(value.known for _, value in points))
    caption = (
        f"{_first_upper(metric)} on {splits} against the share of the train rows; smaller shares lie within larger "
        "ones. 95 % intervals. Nothing was chosen here: every point was evaluated."
    )
    how = "Still rising at the right end: more labelled rows would help. Flat: more of this kind would help little."
    return style.Figure(f"grid-{place}", f"Learning curve of {one['grid']}", (panel,), caption, how)
