"""The table of all arms and baselines: how good each is, what it trains, what it costs; and the trade-off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunescope.report import costs
from tunescope.report.cards import one_training
from tunescope.report.figures import cost, style
from tunescope.report.figures.select import pooled
from tunescope.report.of_method import of_method
from tunescope.report.quality import Strip, majority_of, record_of, shared_domain, strip
from tunescope.report.read import ArmRun, RunFolder, reading
from tunescope.report.tables import Table
from tunescope.report.text import (
    Estimate,
    finite,
    listed,
    percent,
    plural,
    short_path,
)

MOST_NAMED = 6  # undecided pairs that one sentence names
MODELS_NOT_METHODS = (
    "This is about these trained models; with one seed each, whether the methods differ is undecided."
)


@dataclass(frozen=True)
class ArmRow:
    """One row of the table: an arm over its seeds, one training, or a baseline.

    Attributes:
        name: The arm's or baseline's name.
        about: Method and model of an arm, or what a baseline is.
        colour: The arm's place among the colours; None for a baseline.
        seeds: The seeds it was trained with.
        accuracy: On the headline split; over several seeds the mean, with an interval for other seeds and rows.
        f1: Macro F1 likewise.
        spread: The least and the most accuracy over seeds, where there are several.
        learned: Whether the accuracy's interval clears the majority baseline; None where that is not known.
        trained: Trained parameters.
        parameters: All parameters.
        cost: ``stored_bytes, real_tokens_per_second, padding_share, peak_memory_bytes, seconds``, means over seeds
            (the most of ``peak_memory_bytes``).
        measured: Whether there is a metrics.json at all.
        drawn: The accuracy as a small drawing, the tick the majority baseline.
    """

    name: str
    about: str
    colour: int | None
    seeds: tuple[int | None, ...]
    accuracy: Estimate
    f1: Estimate
    spread: tuple[float, float] | None
    learned: bool | None
    trained: float | None
    parameters: float | None
    cost: Mapping[str, float | None]
    measured: bool = True
    drawn: Strip | None = None


COSTS = ("stored_bytes", "real_tokens_per_second", "padding_share", "peak_memory_bytes", "seconds")


@dataclass(frozen=True)
class Arms:
    """The section on arms: the table, the trainings one by one, notes and what the comparison leaves open."""

    rows: tuple[ArmRow, ...]
    baselines: tuple[ArmRow, ...]
    trainings: tuple[ArmRow, ...]
    notes: tuple[str, ...]
    unresolved: str
    itemised: tuple[tuple[str, int | None, str, Table], ...]

    @property
    def several_seeds(self) -> bool:
        """Whether any arm was trained more than once."""
        return any(len(row.seeds) > 1 for row in self.rows)

    @property
    def known(self) -> tuple[str, ...]:
        """The costs that any arm has."""
        return tuple(what for what in COSTS if self.knows(what))

    @property
    def scored(self) -> bool:
        """Whether accuracy has a column: not where arms were measured by other things alone, as summaries are."""
        measured = [row for row in self.rows if row.measured]
        return not measured or any(row.accuracy.known for row in (*measured, *self.baselines))

    def knows(self, what: str) -> bool:
        """Whether any arm has this cost, so that the table has a column for it."""
        return any(row.cost.get(what) is not None for row in self.rows)


NOTHING = Arms((), (), (), (), "", ())


def arms(run: RunFolder) -> Arms:
    """Return the section on arms; its tables are empty where nothing was trained."""
    rows = [_row(run, arm, run.of(arm)) for arm in run.arm_names if run.of(arm)]
    others = [_baseline(run, one.name, one.about, one.metrics) for one in run.baselines]
    several = any(len(row.seeds) > 1 for row in rows)
    trainings = (
        [_row(run, item.arm, [item]) for arm in run.arm_names for item in run.of(arm)] if several else []
    )
    marks = [mark for mark in (_majority(run, row.name) for row in rows) if mark is not None]
    domain = shared_domain([row.accuracy for row in (*rows, *others, *trainings)], marks)
    mark = marks[0] if marks else next((row.accuracy.value for row in others if row.name == "majority"), None)

    def draw(found: Iterable[ArmRow]) -> tuple[ArmRow, ...]:
        return tuple(replace(row, drawn=strip(row.accuracy, [mark], domain)) for row in found)

    return Arms(
        draw(rows),
        draw(others),
        draw(trainings),
        tuple(_notes(run)),
        unresolved(run),
        tuple(costs.itemised(run)),
    )


def _row(run: RunFolder, arm: str, trained: Sequence[ArmRun]) -> ArmRow:
    known = [item.metrics for item in trained if item.metrics is not None]
    records = [record_of(metrics, run.split, "accuracy") for metrics in known]
    measured = pooled(records)
    values = [value for value in (finite(record.get("value")) for record in records) if value is not None]
    first = known[0] if known else {}
    about = " · ".join(
        part
        for part in (
            str(first.get("method") or "").replace("_", " "),
            short_path(str(first.get("model") or "")),
            _point(first),
            _share(first),
        )
        if part
    )
    costs = {name: _cost(known, name) for name in COSTS}
    if not costs["real_tokens_per_second"]:  # no text was read while training: features were computed before
        costs |= {"real_tokens_per_second": None, "padding_share": None}
    return ArmRow(
        name=arm,
        about=about,
        colour=run.arm_names.index(arm) % len(style.ARM_COLOURS) if arm in run.arm_names else None,
        seeds=tuple(item.seed for item in trained),
        accuracy=of_method(run, arm, records, "accuracy"),
        f1=of_method(run, arm, [record_of(metrics, run.split, "f1_macro") for metrics in known], "f1_macro"),
        spread=(min(values), max(values)) if len(values) > 1 else None,
        learned=_learned(measured, majority_of(first, run.split)),
        trained=finite(first.get("trainable_parameters")),
        parameters=finite(first.get("parameters")),
        cost=costs,
        measured=bool(known),
    )


def _point(metrics: Mapping[str, Any]) -> str:
    point = metrics.get("point")
    if not metrics.get("grid") or not isinstance(point, Mapping):
        return ""
    return f"of grid {metrics['grid']}: " + ", ".join(f"{key} {said(value)}" for key, value in point.items())


def _share(metrics: Mapping[str, Any]) -> str:
    share = finite(metrics.get("train_share"))
    return "" if share is None or share >= 1 else f"{percent(share)} of the train rows"


def said(value: Any) -> str:
    """Return the value of a setting as a study writes it: ``0.0005``, ``[q, v]``, ``null``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(said, value))}]"
    return str(value)


def _cost(known: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return one cost over seeds: the mean, and of memory the peak."""
    found = []
    for metrics in known:
        price = metrics.get("cost")
        given = price.get(name) if isinstance(price, Mapping) else None
        value = finite(metrics.get(name) if given is None else given)
        if value is not None:
            found.append(value)
    if not found:
        return None
    return max(found) if name == "peak_memory_bytes" else sum(found) / len(found)


def _learned(accuracy: Estimate, majority: float | None) -> bool | None:
    bound = accuracy.low if accuracy.low is not None else accuracy.value
    return None if bound is None or majority is None else bound > majority


def _majority(run: RunFolder, arm: str) -> float | None:
    return next(
        (majority_of(item.metrics, run.split) for item in run.of(arm) if item.metrics is not None), None
    )


def _baseline(run: RunFolder, name: str, about: str, metrics: Mapping[str, Any]) -> ArmRow:
    accuracy = pooled([record_of(metrics, run.split, "accuracy")])
    f1 = pooled([record_of(metrics, run.split, "f1_macro")])
    learned = None if name == "majority" else _learned(accuracy, majority_of(metrics, run.split))
    return ArmRow(name, about, None, (None,), accuracy, f1, None, learned, None, None, {})


def _notes(run: RunFolder) -> list[str]:
    """Return what the arms' own files say about them, and which baselines could not be made."""
    notes = notes_of_arms(run)
    for name, reason in (run.left_out or {}).items():
        if name != "format_version":
            notes.append(f"Baseline {name} was left out: {str(reason).rstrip('.')}.")
    if any(_reads_nothing(item) for item in run.arms):
        notes.append(
            "Tokens are real ones, padding left out. No tokens per second: training read stored features, not texts."
        )
    halved = [item.arm for item in run.arms if _cost([item.metrics or {}], "halved")]
    if halved:
        notes.append(
            f"Memory ran out while training {listed(dict.fromkeys(halved))}: the micro-batch was halved, the effective "
            "batch kept."
        )
    stopped = [
        item.arm for item in run.arms if ((item.metrics or {}).get("cost") or {}).get("stopped_early") is True
    ]
    if stopped:
        notes.append(f"Stopped early: {listed(dict.fromkeys(stopped))}.")
    return notes


def notes_of_arms(run: RunFolder) -> list[str]:
    """Return what the arms' metrics.json say that every reader must know, each note with its arms."""
    told: dict[str, list[str]] = {}
    for item in run.arms:
        for note in (item.metrics or {}).get("notes") or []:
            names = told.setdefault(str(note).rstrip("."), [])
            if item.arm not in names:
                names.append(item.arm)
    return [f"{listed(names)}: {note}." for note, names in told.items()]


def _reads_nothing(item: ArmRun) -> bool:
    price = (item.metrics or {}).get("cost")
    return isinstance(price, Mapping) and price.get("real_tokens_per_second") == 0


def unresolved(run: RunFolder) -> str:
    """Return which differences between arms the comparison leaves open, in one sentence."""
    comparison = run.comparison
    if not comparison or not comparison.get("done", True) or not comparison.get("pairs"):
        return ""
    with reading(run.folder, "comparison.json"):
        pairs = [(f"{one['first']} and {one['second']}", one["verdict"]) for one in comparison["pairs"]]
        by = f"by {comparison['metric']} on {comparison['split']}"
        single = any(map(one_training, comparison["pairs"]))
    open_ = [names for names, verdict in pairs if verdict == "undecided"]
    void = sum(verdict == "task not learned" for _, verdict in pairs)
    lost = (
        f" {void} of {plural(len(pairs), 'pair')}: no arm of it has learned the task, so the difference says nothing."
        if void
        else ""
    )
    if not open_:
        resolved = len(pairs) - void
        said = f"Every difference between two arms is resolved {by} ({plural(len(pairs), 'pair')})."
        said = said if not void else f"{f'Resolved {by}: {resolved}.' if resolved else ''}{lost}".strip()
        return f"{said} {MODELS_NOT_METHODS}" if single and resolved else said
    named = "; ".join(open_[:MOST_NAMED]) + (
        f"; and {len(open_) - MOST_NAMED} more" if len(open_) > MOST_NAMED else ""
    )
    alone = f" {MODELS_NOT_METHODS}" if single and len(open_) + void < len(pairs) else ""
    return f"Not resolved {by}, {len(open_)} of {plural(len(pairs), 'pair')}: {named}.{lost}{alone}"


def trade_off_figure(run: RunFolder, found: Arms) -> style.Figure | None:
    """Return accuracy against time and against trained parameters; None below two measured arms."""
    points = [
        cost.Point(
            row.name,
            style.arm_colour(run.arm_names, row.name),
            row.accuracy,
            row.cost.get("seconds"),
            row.trained,
        )
        for row in found.rows
        if row.accuracy.known
    ]
    lines = [(row.name, row.accuracy.value) for row in found.baselines if row.accuracy.value is not None]
    if not lines and points:
        lines = [("majority", value) for value in [_majority(run, found.rows[0].name)] if value is not None]
    panels = cost.trade_off_panels(points, _shown_baselines(lines)) if len(points) > 1 else ()
    if not panels:
        return None
    caption = (
        f"Accuracy on {run.split} with its 95 % interval"
        f"{' (mean over seeds, interval for other seeds and rows)' if found.several_seeds else ''}. Open mark: "
        "dominated, another arm is at least as accurate and costs no more, by the estimates. Dotted: baselines, which "
        f"train nothing. Time is of training alone. {found.unresolved}"
    )
    how = (
        "Up is better, left is cheaper: the filled marks are the choices worth weighing against one another."
    )
    return style.Figure("trade-off", "What accuracy costs", panels, caption, how)


def _shown_baselines(lines: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the majority baseline and the best of the others: more lines would hide the arms."""
    others = sorted((line for line in lines if line[0] != "majority"), key=lambda line: -line[1])
    return [line for line in lines if line[0] == "majority"] + others[:1]
