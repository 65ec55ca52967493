"""Records of metrics: values with their intervals, and in words what the reader must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.evaluation.calibration import Binning
from tunescope.evaluation.coverage import with_trust
from tunescope.evaluation.sweep import CALIBRATION, Drawn, Key, Values, interval_of
from tunescope.stats.clustered import wilson_clustered
from tunescope.stats.intervals import NO_ROWS, ONE_GROUP, ONE_ROW, Interval, wilson

ONE_CLASS = "undefined: the split has one class only"


@dataclass(frozen=True)
class Table:
    """What the records of one split are made of.

    Attributes:
        counts: `[C, C]`, true classes in rows.
        names: The C names.
        seen: Metrics of the rows.
        drawn: Metrics of the resamples, `[R]` each.
        method: How resamples were drawn, in words.
        units: How many rows, or groups of rows, were there to be drawn.
        calibrated: `[R]` calibration errors of a perfectly calibrated model, or None where there are no logits.
    """

    counts: np.ndarray
    names: Sequence[str]
    seen: dict[Key, float]
    drawn: Values
    method: str
    units: int
    calibrated: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.counts.sum())

    @property
    def support(self) -> list[int]:
        """How many rows each class has."""
        found: list[int] = self.counts.sum(axis=1).tolist()
        return found

    @property
    def missing(self) -> list[str]:
        """The names of classes without rows."""
        return [name for name, size in zip(self.names, self.support, strict=True) if not size]

    def absent(self, c: int) -> str | None:
        """Return why a metric of a class is undefined, or None where the class occurs."""
        if not self.rows:
            return NO_ROWS
        return None if self.support[c] else f"undefined: no row of this split has the label {self.names[c]!r}"

    def interval(self, key: Key, note: str | None, caveat: str | None = None) -> Interval:
        """Return a metric's bootstrap interval, undefined where there is a note."""
        if note is not None:
            return Interval(None, None, None, self.rows, self.method, note)
        value = self.seen[key]
        if self.units < 2:
            return Interval(
                value, None, None, self.rows, self.method, ONE_ROW if self.rows < 2 else ONE_GROUP
            )
        told = Drawn(self.rows, self.informative(*key), self.method, self.calibrated)
        return _noted(interval_of(key[0], value, self.drawn[key], told), caveat)

    def informative(self, metric: str, c: int | None) -> float:
        """Return how many rows a metric's spread hangs on: those of its class, or of the rarest class."""
        support = [size for size in self.support if size]
        if not support:
            return 0.0
        thinning = self.units / self.rows  # the rows of a group say as much as one row, in the worst case
        if metric in ("accuracy", CALIBRATION) or metric.endswith("_weighted"):
            return self.rows * thinning
        own = min(support) if c is None else self.support[c]
        return min(own, self.rows - own if metric == "roc_auc_ovr" and c is not None else own) * thinning


Named = tuple[str, int | None, Interval]
Shares = dict[Key, Interval]


def table_records(
    table: Table, shares: Shares, split: str, binning: Binning | None = None
) -> list[dict[str, Any]]:
    """Return the records of a table: shares of rows, what follows from counts, and what needs logits.

    Args:
        table: Counts, values and resampled values.
        shares: Intervals of accuracy, precision and recall.
        split: The name of the split, copied into the records.
        binning: The bins of the calibration error; None where there are no logits.
    """
    found = [*_of_shares(table, shares), *_of_counts(table)]
    if binning is not None:
        found += _ranked(table, binning)
    records = []
    for metric, c, interval in found:
        trusted = with_trust(interval, metric, table.informative(metric, c))
        name = None if c is None else table.names[c]
        records.append({"split": split, "metric": metric, "class": name, **trusted.record()})
    return records


def shares_of_rows(counts: np.ndarray) -> Shares:
    """Return the shares of independent rows."""
    correct, rows = np.diagonal(counts).tolist(), int(counts.sum())
    support, predicted = counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist()
    found: Shares = {("accuracy", None): wilson(sum(correct), rows)}
    found["majority_accuracy", None] = wilson(max(support), rows)
    for c, hits in enumerate(correct):
        found["precision", c], found["recall", c] = wilson(hits, predicted[c]), wilson(hits, support[c])
    return found


def shares_of_grouped_rows(truth: np.ndarray, predictions: np.ndarray, groups: np.ndarray) -> Shares:
    """Return the shares of rows that come in groups."""
    right = truth == predictions
    found: Shares = {("accuracy", None): wilson_clustered(right, groups)}
    frequent = np.bincount(truth).argmax() if len(truth) else 0
    found["majority_accuracy", None] = wilson_clustered(truth == frequent, groups)
    for c in range(int(max(truth.max(initial=0), predictions.max(initial=0))) + 1):
        for metric, inside in (("precision", predictions == c), ("recall", truth == c)):
            found[metric, c] = wilson_clustered(right[inside], groups[inside])
    return found


def _of_shares(table: Table, shares: Shares) -> list[Named]:
    """Return accuracy, that of always saying the most frequent class, and precision and recall per class."""
    frequent = table.names[int(np.argmax(table.support))]
    majority = _noted(
        shares["majority_accuracy", None],
        f"always {frequent!r}, the most frequent label of this split" if table.rows else None,
    )
    found: list[Named] = [
        ("accuracy", None, shares["accuracy", None]),
        ("majority_accuracy", None, majority),
    ]
    for c, name in enumerate(table.names):
        absent = table.absent(c)
        for metric in ("precision", "recall"):
            interval = shares.get((metric, c), wilson(0, 0))
            why = absent or (None if interval.n else f"undefined: no row was predicted as {name!r}")
            if why is not None:
                interval = Interval(None, None, None, interval.n, interval.method, why)
            found.append((metric, c, interval))
    return found


def _of_counts(table: Table) -> list[Named]:
    """Return F1 per class, the averages, balanced accuracy and Matthews' correlation."""
    found: list[Named] = [
        ("f1", c, table.interval(("f1", c), table.absent(c))) for c in range(len(table.names))
    ]
    silent = [name for name, size in zip(table.names, table.counts.sum(axis=0), strict=True) if not size]
    averages = [f"{name}_{kind}" for name in ("precision", "recall", "f1") for kind in ("macro", "weighted")]
    for metric in (*averages, "balanced_accuracy", "matthews_corrcoef"):
        note = None if table.rows else NO_ROWS
        if metric == "matthews_corrcoef" and len(table.names) - len(table.missing) < 2:
            note = note or ONE_CLASS
        found.append((metric, None, table.interval((metric, None), note, _caveat(table, metric, silent))))
    return found


def _ranked(table: Table, binning: Binning) -> list[Named]:
    """Return what needs logits: one-vs-rest AUC, average precision, calibration error, Brier, log loss."""
    found: list[Named] = []
    for metric, mean in (("roc_auc_ovr", "roc_auc_ovr"), ("average_precision", "average_precision_macro")):
        one = ONE_CLASS if len(table.names) - len(table.missing) < 2 else None
        for c in range(len(table.names)):
            found.append((metric, c, table.interval((metric, c), table.absent(c) or one)))
        note = (None if table.rows else NO_ROWS) or one
        found.append((mean, None, table.interval((mean, None), note, _caveat(table, metric, []))))
    for metric in (CALIBRATION, "brier_score_loss", "log_loss"):
        interval = table.interval((metric, None), None if table.rows else NO_ROWS)
        if metric == CALIBRATION:
            method = f"{binning}; {interval.method}"
            interval = Interval(
                interval.value, interval.low, interval.high, interval.n, method, interval.note
            )
        found.append((metric, None, interval))
    return found


def _caveat(table: Table, metric: str, silent: list[str]) -> str | None:
    """Return what the reader must know of an average over classes."""
    if metric == "matthews_corrcoef":
        all_one = len(silent) == len(table.names) - 1
        return "0 by convention: all rows were predicted as one class" if all_one else None
    notes = []
    if table.missing and not metric.endswith("_weighted"):
        notes.append(f"over the classes of this split, which lacks {', '.join(table.missing)}")
    never = [name for name in silent if name not in table.missing]
    if never and metric.startswith("precision"):
        notes.append(f"0 for {', '.join(never)}, which was never predicted")
    return "; ".join(notes) or None


def _noted(interval: Interval, note: str | None) -> Interval:
    notes = "; ".join(each for each in (interval.note, note) if each) or None
    return Interval(interval.value, interval.low, interval.high, interval.n, interval.method, notes)
