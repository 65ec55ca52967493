"""How well the arms do: the answer at the top, the table of arms, and the metrics with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.select import pooled
from tunescope.report.read import ArmRun, RunFolder
from tunescope.report.text import Estimate, finite, listed, number, plural, short_path

SHOWN_ARMS = 3


@dataclass(frozen=True)
class Strip:
    """A small drawing of an interval: all numbers are shares of its width, 0 to 100."""

    value: float
    low: float | None
    high: float | None
    marks: tuple[float, ...]


def strip(
    estimate: Estimate, marks: Iterable[float | None] = (), domain: tuple[float, float] = (0.0, 1.0)
) -> Strip | None:
    """Place an estimate and its reference marks on a line over ``domain``; None where there is no value."""
    if estimate.value is None:
        return None
    start, end = domain
    width = (end - start) or 1.0

    def place(value: float) -> float:
        return round(100 * min(max((value - start) / width, 0.0), 1.0), 2)

    return Strip(
        place(estimate.value),
        None if estimate.low is None else place(estimate.low),
        None if estimate.high is None else place(estimate.high),
        tuple(place(mark) for mark in marks if mark is not None),
    )


@dataclass(frozen=True)
class Score:
    """One arm on the headline split, over its seeds."""

    arm: str
    colour: int
    accuracy: Estimate
    f1: Estimate
    majority: float | None
    frequent: str
    seeds: int

    @property
    def learned(self) -> bool | None:
        """Whether the accuracy's interval clears the majority baseline; None where one is not known."""
        bound = self.accuracy.low if self.accuracy.low is not None else self.accuracy.value
        return None if bound is None or self.majority is None else bound > self.majority


def record_of(
    metrics: Mapping[str, Any] | None, split: str | None, metric: str, label: str | None = None
) -> dict[str, Any]:
    """Return the record of one metric, or an empty one."""
    for record in (metrics or {}).get("records", []):
        if (record.get("split"), record.get("metric"), record.get("class")) == (split, metric, label):
            return dict(record)
    return {}


def scores(run: RunFolder) -> list[Score]:
    """Return the arms that have an accuracy on the headline split, in the study's order."""
    found = []
    for position, arm in enumerate(run.arm_names):
        trained = [item for item in run.of(arm) if item.metrics is not None]
        accuracy = pooled(record_of(item.metrics, run.split, "accuracy") for item in trained)
        if accuracy.known:
            f1 = pooled(record_of(item.metrics, run.split, "f1_macro") for item in trained)
            majority = majority_of(trained[0].metrics, run.split)
            frequent = _frequent_class(trained[0].metrics, run.split)
            colour = position % len(style.ARM_COLOURS)
            found.append(Score(arm, colour, accuracy, f1, majority, frequent, len(trained)))
    return found


def majority_of(metrics: Mapping[str, Any] | None, split: str | None) -> float | None:
    """Return the accuracy of always answering with the most frequent class."""
    majority = (metrics or {}).get("majority") or {}
    found = majority.get(split) if isinstance(majority, dict) else None
    if isinstance(found, dict):
        return finite(found.get("accuracy"))
    return finite(record_of(metrics, split, "majority_accuracy").get("value"))


Piece = tuple[str, bool]
NO_ACCURACY: tuple[Piece, ...] = (
    ("This run holds no accuracy: metrics.json of its arms is missing. ", False),
)


def answer(run: RunFolder, found: Sequence[Score]) -> list[Piece]:
    """Return the one sentence that answers the study's question with numbers, in (text, bold) pieces.

    ``found`` must not be empty. An arm whose interval does not clear the majority baseline is called "task
    not learned".
    """
    ranked = sorted(found, key=lambda score: -(score.accuracy.value or 0.0))
    learned = [score for score in ranked if score.learned is not False]
    failed = [score for score in ranked if score.learned is False]
    n = found[0].accuracy.n
    pieces: list[Piece] = [
        (f"On {plural(n, f'{run.split} row')}" if n else f"On the {run.split} rows", False)
    ]
    for index, score in enumerate(learned[:SHOWN_ARMS]):
        pieces.append((", " if index == 0 or len(learned) > 2 else " and ", False))
        pieces.append((f"{score.arm}", False))
        pieces.append((" reaches accuracy " if index == 0 else " ", False))
        pieces.append((str(score.accuracy), True))
    if len(learned) > SHOWN_ARMS:
        pieces.append((f", {plural(len(learned) - SHOWN_ARMS, 'more arm')} below", False))
    known = [score for score in found if score.majority is not None]
    baseline = f"always answering {known[0].frequent} reaches {number(known[0].majority)}" if known else ""
    if learned and baseline:
        pieces.append((f"; {baseline}", False))
    if failed:
        pieces += _not_learned(failed, bool(learned), baseline)
    pieces.append((".", False))
    if any(score.seeds > 1 for score in found):
        pieces.append((" Values are means over seeds, intervals span all seeds.", False))
    return pieces


def _not_learned(failed: Sequence[Score], others: bool, baseline: str) -> list[Piece]:
    pieces: list[Piece] = [("; " if others else ": ", False), ("task not learned", True), (" by ", False)]
    for index, score in enumerate(failed[:SHOWN_ARMS]):
        pieces += [(", " if index else "", False), (f"{score.arm} ", False), (str(score.accuracy), True)]
    if len(failed) > SHOWN_ARMS:
        pieces.append((f" and {plural(len(failed) - SHOWN_ARMS, 'more arm')}", False))
    if not others and baseline:
        pieces.append((f"; {baseline}", False))
    return pieces


def _frequent_class(metrics: Mapping[str, Any] | None, split: str | None) -> str:
    found = ((metrics or {}).get("majority") or {}).get(split)
    name = found.get("class") if isinstance(found, dict) else None
    return f"the most frequent class ({name})" if name else "the most frequent class"


@dataclass(frozen=True)
class ArmLine:
    """One row of the table of arms: one training."""

    run: ArmRun
    colour: int
    model: str
    method: str
    accuracy: Estimate
    f1: Estimate
    majority: float | None
    drawn: Strip | None = None


def arm_lines(run: RunFolder) -> list[ArmLine]:
    """Return one line per arm and seed, in the study's order."""
    lines = []
    for position, arm in enumerate(run.arm_names):
        for trained in run.of(arm):
            metrics = trained.metrics or {}
            lines.append(
                ArmLine(
                    run=trained,
                    colour=position % len(style.ARM_COLOURS),
                    model=short_path(str(metrics.get("model", ""))),
                    method=str(metrics.get("method", "")),
                    accuracy=pooled([record_of(metrics, run.split, "accuracy")]),
                    f1=pooled([record_of(metrics, run.split, "f1_macro")]),
                    majority=majority_of(metrics, run.split),
                )
            )
    domain = shared_domain([line.accuracy for line in lines], [line.majority for line in lines])
    return [replace(line, drawn=strip(line.accuracy, [line.majority], domain)) for line in lines]


def shared_domain(estimates: Iterable[Estimate], marks: Iterable[float | None] = ()) -> tuple[float, float]:
    """Return one stretch of the unit interval that holds all estimates and marks with a little room."""
    bounds = [bound for item in estimates for bound in (item.value, item.low, item.high)] + list(marks)
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return 0.0, 1.0
    room = 0.06 * (max(known) - min(known)) or 0.01
    return max(0.0, min(known) - room), min(1.0, max(known) + room)


@dataclass(frozen=True)
class MetricTable:
    """Metrics of one arm, seed and split: over all classes, and per class."""

    arm: str
    colour: int
    seed: int | None
    split: str
    overall: tuple[tuple[str, Estimate, Strip | None], ...]
    class_metrics: tuple[str, ...]
    classes: tuple[tuple[str, tuple[Estimate, ...]], ...]
    methods: str


def metric_tables(run: RunFolder) -> list[MetricTable]:
    """Return the metric tables, headline split first within each arm."""
    tables = []
    for position, arm in enumerate(run.arm_names):
        for trained in run.of(arm):
            records = (trained.metrics or {}).get("records", [])
            splits = dict.fromkeys([run.split, *(record.get("split") for record in records)])
            for split in splits:
                own = [record for record in records if record.get("split") == split]
                if own:
                    tables.append(_metric_table(own, arm, position, trained.seed, str(split)))
    return tables


def _metric_table(
    records: list[dict[str, Any]], arm: str, position: int, seed: int | None, split: str
) -> MetricTable:
    overall: list[tuple[str, Estimate]] = []
    per_class: dict[str, dict[str, Estimate]] = {}
    metrics: dict[str, None] = {}
    for record in records:
        name, label, found = str(record.get("metric")), record.get("class"), pooled([record])
        if label is None:
            overall.append((name, found))
        else:
            per_class.setdefault(str(label), {})[name] = found
            metrics[name] = None
    classes = tuple(
        (label, tuple(cells.get(name, Estimate(None)) for name in metrics))
        for label, cells in per_class.items()
    )
    methods = listed(dict.fromkeys(str(record["method"]) for record in records if record.get("method")))
    colour = position % len(style.ARM_COLOURS)
    shares = [found for _, found in overall if found.value is not None and 0 <= found.value <= 1]
    domain = shared_domain(shares)
    drawn = tuple(
        (name, found, strip(found, (), domain) if found in shares else None) for name, found in overall
    )
    return MetricTable(arm, colour, seed, split, drawn, tuple(metrics), classes, methods)
