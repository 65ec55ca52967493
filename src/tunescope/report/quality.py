"""How well the arms do: the answer at the top, the table of arms, and the metrics with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.select import estimate, only, pooled
from tunescope.report.of_method import of_method
from tunescope.report.read import RunFolder
from tunescope.report.text import Estimate, finite, interval, listed, number, plural

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
    """One arm on the headline split, over its seeds; ``trained`` is about these very trainings on other rows."""

    arm: str
    colour: int
    accuracy: Estimate
    trained: Estimate
    f1: Estimate
    majority: float | None
    frequent: str
    seeds: int

    @property
    def learned(self) -> bool | None:
        """Whether the accuracy's interval clears the majority baseline; None where one is not known."""
        bound = self.trained.low if self.trained.low is not None else self.trained.value
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
        measured = pooled(record_of(item.metrics, run.split, "accuracy") for item in trained)
        if measured.known:
            accuracy, f1 = (
                of_method(run, arm, [record_of(item.metrics, run.split, metric) for item in trained], metric)
                for metric in ("accuracy", "f1_macro")
            )
            majority = majority_of(trained[0].metrics, run.split)
            frequent = _frequent_class(trained[0].metrics, run.split)
            colour = position % len(style.ARM_COLOURS)
            found.append(Score(arm, colour, accuracy, measured, f1, majority, frequent, len(trained)))
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


def without_accuracy(run: RunFolder) -> list[Piece]:
    """Return what stands first on a page without accuracy: verdicts on behaviour, losses, or that there is none."""
    pieces = _verdicts(run) if "behaviour" in run.results else []
    for arm in run.arm_names[:SHOWN_ARMS]:
        for trained in run.of(arm)[:1]:
            own, base = (
                record_of(trained.metrics, run.split, name)
                for name in ("loss_per_token", "loss_per_token_of_base")
            )
            if finite(own.get("value")) is not None:
                pieces += [(f"{arm} has a loss of ", False), (str(pooled([own])), True)]
                pieces.append((f" nats per token, its base {pooled([base])}. ", False))
    return pieces or list(NO_ACCURACY)


def _verdicts(run: RunFolder) -> list[Piece]:
    """Return what was found of each suite: the verdict, and by how much the margin moves."""
    table = only(run.results["behaviour"].table, metric="margin_change", model="tuned")
    rows = table.filter(pl.col("verdict").is_not_null()) if "verdict" in table.columns else table.clear()
    rows = rows.unique(["arm", "seed", "suite"], keep="first", maintain_order=True)
    pieces: list[Piece] = []
    for row in rows.head(SHOWN_ARMS).iter_rows(named=True):
        pieces.append((f"{row['suite']}: {row['verdict']}, the margin moves by ", False))
        pieces += [
            (interval(row["value"], row["low"], row["high"]), True),
            (f" (n = {number(row['n'])}). ", False),
        ]
    return pieces


def answer(run: RunFolder, found: Sequence[Score]) -> list[Piece]:
    """Return the one sentence that answers the study's question with numbers, in (text, bold) pieces.

    ``found`` must not be empty. An arm whose interval does not clear the majority baseline is called "task
    not learned".
    """
    ranked = sorted(found, key=lambda score: -(score.accuracy.value or 0.0))
    learned = [score for score in ranked if score.learned is not False]
    failed = [score for score in ranked if score.learned is False]
    n = found[0].accuracy.n
    seeds = max(score.seeds for score in found)
    of_methods = all(score.accuracy != score.trained for score in found if score.seeds > 1)
    what = "of seeds and rows" if of_methods else "from end to end"
    several = f" (means over {seeds} seeds, intervals {what})" if seeds > 1 else ""
    on = f"On {plural(n, f'{run.split} row')}" if n else f"On the {run.split} rows"
    pieces: list[Piece] = [(on + several, False)]
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
    pieces += _better_baseline(run, learned)
    if failed:
        pieces += _not_learned(failed, bool(learned), baseline)
    pieces.append((".", False))
    return pieces


def _better_baseline(run: RunFolder, learned: Sequence[Score]) -> list[Piece]:
    """Say so where a baseline that trains no model is more accurate than every arm."""
    found = [(pooled([record_of(one.metrics, run.split, "accuracy")]), one.name) for one in run.baselines]
    known = [(value, name) for value, name in found if value.value is not None]
    if not known or not learned:
        return []
    best, name = max(known, key=lambda one: one[0].value or 0.0)
    if (best.value or 0.0) <= max(score.accuracy.value or 0.0 for score in learned):
        return []
    return [(f", and the baseline {name} reaches more than any arm, ", False), (str(best), True)]


def _not_learned(failed: Sequence[Score], others: bool, baseline: str) -> list[Piece]:
    if others and len(failed) > 1:
        named = listed([score.arm for score in failed[:SHOWN_ARMS]])
        more = f" and {len(failed) - SHOWN_ARMS} more" if len(failed) > SHOWN_ARMS else ""
        return [("; ", False), ("task not learned", True), (f" by {named}{more}", False)]
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
    """Metrics of one arm (or baseline), seed and split: over all classes, and per class.

    Attributes:
        arm: The arm's or baseline's name.
        colour: The arm's place among the colours; None for a baseline.
        seed: The seed; None for a baseline or a checkpoint trained elsewhere.
        split: The split.
        overall: Metric, value, drawing, and the numbers of its notes.
        class_metrics: The columns of ``classes``.
        classes: Per class, a value per metric with the numbers of its notes.
        methods: How the intervals were made.
        notes: What cannot be trusted or is not defined, and why; the first has number 1.
        doubtful: How many values carry a warning that their interval cannot be trusted.
    """

    arm: str
    colour: int | None
    seed: int | None
    split: str
    overall: tuple[tuple[str, Estimate, Strip | None, tuple[int, ...]], ...]
    class_metrics: tuple[str, ...]
    classes: tuple[tuple[str, tuple[tuple[Estimate, tuple[int, ...]], ...]], ...]
    methods: str
    notes: tuple[str, ...] = ()
    doubtful: int = 0


DOUBTS = ("not to be trusted", "too narrow", "wider than it says")


def metric_tables(run: RunFolder) -> list[MetricTable]:
    """Return the metric tables, headline split first within each arm; the baselines follow the arms."""
    tables = []
    for position, arm in enumerate(run.arm_names):
        for trained in run.of(arm):
            named = (arm, position % len(style.ARM_COLOURS), trained.seed)
            tables += _metric_tables(run, trained.metrics, named)
    for baseline in run.baselines:
        tables += _metric_tables(run, baseline.metrics, (baseline.name, None, None))
    return tables


Named = tuple[str, int | None, int | None]


def _metric_tables(run: RunFolder, metrics: Mapping[str, Any] | None, named: Named) -> list[MetricTable]:
    records = (metrics or {}).get("records", [])
    splits = dict.fromkeys([run.split, *(record.get("split") for record in records)])
    tables = []
    for split in splits:
        own = [record for record in records if record.get("split") == split]
        if own:
            tables.append(_metric_table(own, named, str(split)))
    return tables


def _metric_table(records: list[dict[str, Any]], named: Named, split: str) -> MetricTable:
    overall: list[tuple[str, Estimate]] = []
    per_class: dict[str, dict[str, Estimate]] = {}
    metrics: dict[str, None] = {}
    notes: dict[str, int] = {}
    for record in records:
        name, label, found = str(record.get("metric")), record.get("class"), pooled_note(record)
        for note in _parts(found.note):
            notes.setdefault(note, len(notes) + 1)
        if label is None:
            overall.append((name, found))
        else:
            per_class.setdefault(str(label), {})[name] = found
            metrics[name] = None

    def numbers(found: Estimate) -> tuple[int, ...]:
        return tuple(notes[note] for note in _parts(found.note))

    nothing = Estimate(None)
    classes = tuple(
        (label, tuple((cells.get(name, nothing), numbers(cells.get(name, nothing))) for name in metrics))
        for label, cells in per_class.items()
    )
    methods = listed(dict.fromkeys(str(record["method"]) for record in records if record.get("method")))
    shares = [found for _, found in overall if found.value is not None and 0 <= found.value <= 1]
    domain = shared_domain(shares)
    drawn = tuple(
        (name, found, strip(found, (), domain) if found in shares else None, numbers(found))
        for name, found in overall
    )
    doubtful = sum(any(doubt in str(record.get("note") or "") for doubt in DOUBTS) for record in records)
    arm, colour, seed = named
    return MetricTable(
        arm, colour, seed, split, drawn, tuple(metrics), classes, methods, tuple(notes), doubtful
    )


def pooled_note(record: Mapping[str, Any]) -> Estimate:
    """Return a record's value with its note, also where the value is undefined."""
    return replace(estimate(dict(record)), note=str(record["note"]) if record.get("note") else None)


def _parts(note: str | None) -> list[str]:
    return [part for part in (note or "").split("; ") if part]
