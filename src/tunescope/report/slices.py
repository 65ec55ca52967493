"""Parts of the rows, calibration and thresholds: what stands under the metrics of all rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunescope.report.figures import calibration, style
from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, record_of, shared_domain, strip
from tunescope.report.read import ArmRun, RunFolder, reading
from tunescope.report.text import Estimate, number, probability

FAIRNESS = {
    "demographic_parity_difference": "demographic parity difference",
    "demographic_parity_ratio": "demographic parity ratio",
    "equalized_odds_difference": "equalized odds difference",
}
OWN = {"tokens": "length in tokens", "truncated": "whether tokens were cut"}
SHOWN_RECALLS = 4  # classes whose recall has a column of its own
SHOWN_PANELS = 6


@dataclass(frozen=True)
class Slice:
    """One value of a column: how many rows have it, and how good the predictions are on them."""

    group: str
    n: int | None
    accuracy: Estimate
    drawn: Strip | None
    others: tuple[Estimate, ...]
    noted: tuple[int, ...]


@dataclass(frozen=True)
class Fairness:
    """One fairness difference of one class: value, interval, p from shuffled groups, and its note."""

    metric: str
    label: str
    value: Estimate
    p: str
    note: str


@dataclass(frozen=True)
class Column:
    """All slices by one column, how far its groups differ, and the notes (the first has number 1)."""

    name: str
    metrics: tuple[str, ...]
    slices: tuple[Slice, ...]
    fairness: tuple[Fairness, ...]
    notes: tuple[str, ...]
    own: bool


@dataclass(frozen=True)
class Sliced:
    """The slices of one arm on one split."""

    arm: str
    colour: int
    seed: int | None
    split: str
    columns: tuple[Column, ...]


def sliced(run: RunFolder) -> list[Sliced]:
    """Return the slices of each arm's first measured seed, on the headline split where it has them."""
    found = []
    for arm, item in _first(run):
        records = (item.metrics or {}).get("slices") or []
        with reading(run.folder, f"arms/{arm}/seed-{item.seed}/metrics.json"):
            splits = list(dict.fromkeys(record["split"] for record in records))
            split = run.split if run.split in splits else next(iter(splits), None)
            if split is None:
                continue
            own = [record for record in records if record["split"] == split]
            names = dict.fromkeys(str(record["column"]) for record in own)
            columns = tuple(_column(name, [r for r in own if str(r["column"]) == name]) for name in names)
            place = run.arm_names.index(arm) % len(style.ARM_COLOURS)
            found.append(Sliced(arm, place, item.seed, str(split), columns))
    return found


def _first(run: RunFolder) -> Iterable[tuple[str, ArmRun]]:
    for arm in run.arm_names:
        item = next((one for one in run.of(arm) if one.metrics is not None), None)
        if item is not None:
            yield arm, item


def _column(name: str, records: Sequence[Mapping[str, Any]]) -> Column:
    groups = dict.fromkeys(record["group"] for record in records if record["group"] is not None)
    labels = list(dict.fromkeys(str(r["class"]) for r in records if r["metric"] == "recall"))
    recalls = labels if len(labels) <= SHOWN_RECALLS else []
    wanted: list[tuple[str, str | None]] = [("f1_macro", None)]
    wanted += [("recall", label) for label in recalls]
    by_group = {
        group: {
            (str(r["metric"]), None if r["class"] is None else str(r["class"])): estimate(dict(r))
            for r in records
            if r["group"] == group
        }
        for group in groups
    }
    nothing = Estimate(None)
    accuracies = {group: cells.get(("accuracy", None), nothing) for group, cells in by_group.items()}
    domain = shared_domain(accuracies.values())
    shown = [("accuracy", None), *wanted]
    noted = {
        group: [part for key in shown for part in _parts(cells.get(key))] for group, cells in by_group.items()
    }
    notes = list(dict.fromkeys(note for own in noted.values() for note in own))
    slices = tuple(
        Slice(
            group=str(group),
            n=accuracies[group].n,
            accuracy=accuracies[group],
            drawn=strip(accuracies[group], (), domain),
            others=tuple(cells.get(key, nothing) for key in wanted),
            noted=tuple(sorted({notes.index(note) + 1 for note in noted[group]})),
        )
        for group, cells in by_group.items()
    )
    metrics = tuple("macro F1" if label is None else f"recall {label}" for metric, label in wanted)
    whole = [record for record in records if record["group"] is None]
    fairness = tuple(map(_fairness, whole))
    return Column(OWN.get(name, name), metrics, slices, fairness, tuple(notes), name in OWN)


def _parts(found: Estimate | None) -> list[str]:
    return [part for part in ((found.note if found else None) or "").split("; ") if part]


def _fairness(record: Mapping[str, Any]) -> Fairness:
    metric = str(record["metric"])
    return Fairness(
        FAIRNESS.get(metric, metric.replace("_", " ")), str(record["class"] or ""), estimate(dict(record)),
        probability(record.get("p")), str(record.get("note") or ""),
    )  # fmt: skip


def reliability_figure(run: RunFolder) -> style.Figure | None:
    """Return the reliability curves of the arms on the headline split, or None where there are none."""
    panels: list[style.Panel] = []
    more = 0
    for arm, item in _first(run):
        metrics = item.metrics or {}
        with reading(run.folder, f"arms/{arm}/seed-{item.seed}/metrics.json"):
            curve = (metrics.get("reliability") or {}).get(run.split)
            error = record_of(metrics, run.split, "expected_calibration_error")
            said = f"{arm}: ECE {estimate(error)}" if error else arm
            panel = calibration.reliability_panel(curve or [], said, style.arm_colour(run.arm_names, arm))
        if panel is not None and len(panels) < SHOWN_PANELS:
            panels.append(panel)
        elif panel is not None:
            more += 1
    if not panels:
        return None
    caption = (
        f"Rows of {run.split} by the probability of the class that was answered, in bins; size of a mark: its rows; "
        "whiskers: 95 % Wilson intervals. ECE: expected calibration error, the mean distance from the diagonal, "
        f"which noise alone makes positive.{f' {more} more arms are not drawn.' if more else ''}"
    )
    how = "Below the diagonal the model is more confident than it is right; on it, a stated 80 % is 80 %."
    return style.Figure("reliability", "Is the confidence deserved?", tuple(panels), caption, how)


@dataclass(frozen=True)
class Threshold:
    """One decision threshold: chosen on validation rows, judged on test rows."""

    arm: str
    colour: int
    label: str
    value: str
    validation: str
    before: Estimate
    after: Estimate
    difference: Estimate
    drawn: Strip | None
    noted: tuple[str, ...]


@dataclass(frozen=True)
class Thresholds:
    """All thresholds, the metric that they maximise, and notes: on all of them, and by number."""

    metric: str
    note: str
    rows: tuple[Threshold, ...]
    notes: tuple[str, ...]

    def numbers(self, row: Threshold) -> tuple[int, ...]:
        """Return the numbers of a row's notes, the first is 1."""
        return tuple(self.notes.index(note) + 1 for note in row.noted)


def thresholds(run: RunFolder) -> Thresholds | None:
    """Return the thresholds of each arm's first seed, or None where none were tuned."""
    rows: list[Threshold] = []
    metric, note = "", ""
    for arm, item in _first(run):
        found = (item.metrics or {}).get("threshold")
        if not found:
            continue
        with reading(run.folder, f"arms/{arm}/seed-{item.seed}/metrics.json"):
            metric, note = str(found["metric"]), str(found.get("note") or "")
            place = run.arm_names.index(arm) % len(style.ARM_COLOURS)
            rows += [_threshold(arm, place, one, note) for one in found["thresholds"]]
    bounds = [abs(b) for row in rows for b in (row.difference.low, row.difference.high) if b is not None]
    reach = 1.1 * max(bounds, default=0.1) or 0.1
    drawn = (replace(row, drawn=strip(row.difference, [0.0], (-reach, reach))) for row in rows)
    notes = tuple(dict.fromkeys(note for row in rows for note in row.noted))
    return Thresholds(metric, note, tuple(drawn), notes) if rows else None


def _threshold(arm: str, colour: int, one: Mapping[str, Any], common: str) -> Threshold:
    test, validation = one.get("test") or {}, one.get("validation") or {}
    difference = estimate(dict(test.get("difference") or {}))
    own = [str(one.get("note") or ""), *_parts(difference)]
    chosen = f"{number(validation.get('before'))} → {number(validation.get('after'))}" if validation else "–"
    return Threshold(
        arm, colour, str(one["class"]), number(one.get("threshold")), chosen, estimate(dict(test.get("before") or {})),
        estimate(dict(test.get("after") or {})), difference, None,
        tuple(part for part in own if part and part != common),
    )  # fmt: skip
