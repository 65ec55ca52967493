"""Classification metrics with intervals, under scikit-learn's names.

Shares of rows (accuracy, recall, precision) have Wilson intervals; everything else the percentiles of a
bootstrap, one set of resamples for all metrics. Where rows share a group, whole groups are resampled and
Wilson's interval is that of the effective number of rows.

Rows are by default *not* resampled within their class. That would take the number of rows per class as given,
although another sample would have others, on which precision and F1 depend; ``docs/coverage.md`` has the
simulated coverage of both. A resample that loses a class says nothing about it; how many did so is in the note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tunescope.errors import DataError
from tunescope.evaluation.calibration import Binning
from tunescope.evaluation.confusion import (
    UNLABELLED,
    checked_rows,
    confusion_counts,
    confusion_matrix,
    derive,
)
from tunescope.evaluation.margins import margin
from tunescope.evaluation.records import Table, shares_of_grouped_rows, shares_of_rows, table_records
from tunescope.evaluation.resampling import group_index, resample_rows
from tunescope.evaluation.sweep import Key, MetricSweep, Values, confusion_values, joined
from tunescope.stats.arrays import as_integers

__all__ = [
    "UNLABELLED",
    "MetricOptions",
    "classification_metrics",
    "confusion_matrix",
    "derive",
    "margin",
    "measure",
    "metrics_from_confusion",
]

RESAMPLES = 1000


@dataclass(frozen=True)
class MetricOptions:
    """How metrics are measured.

    Attributes:
        seed: Seeds the bootstrap.
        groups: `[n]` group of each row where rows are not independent, or None.
        resampling: "rows", or "classes" for the stratified bootstrap; with groups, whole groups are drawn.
        resamples: How many resamples are drawn.
        binning: The bins of the expected calibration error.
    """

    seed: int = 0
    groups: Any | None = None
    resampling: Literal["rows", "classes"] = "rows"
    resamples: int = RESAMPLES
    binning: Binning = field(default_factory=Binning)

    def method(self, units: int) -> str:
        """Return the bootstrap in words; ``units`` is the number of groups."""
        if self.groups is not None:
            return f"clustered bootstrap, {self.resamples} resamples of {units} groups"
        stratified = self.resampling == "classes"
        return f"{'stratified bootstrap' if stratified else 'bootstrap of rows'}, {self.resamples} resamples"


def classification_metrics(
    labels: Any,
    logits: Any,
    label_names: Sequence[str],
    split: str,
    seed: int = 0,
    groups: Any | None = None,
) -> list[dict[str, Any]]:
    """Return every metric of one split as records; see :func:`measure`.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        label_names: The C names, in the order of indices.
        split: The name of the split, copied into the records.
        seed: Seeds the bootstrap.
        groups: `[n]` group of each row where rows are not independent of one another (texts that repeat, two
            versions of one sentence), or None.

    Returns:
        Mappings of split, metric, class (None, or a label's name), value, low, high, n, method, note.

    Raises:
        DataError: A label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    return measure(labels, logits, label_names, split, MetricOptions(seed=seed, groups=groups))


def measure(
    labels: Any, logits: Any, label_names: Sequence[str], split: str, options: MetricOptions
) -> list[dict[str, Any]]:
    """Return every metric of one split as records.

    Averages run over the classes that occur among the labels; where all do, they are scikit-learn's. What is
    undefined (a class that is absent, a precision without predictions) has the value None and a note; so does
    an interval whose coverage the simulations of ``docs/coverage.md`` do not vouch for at so few rows.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        label_names: The C names, in the order of indices.
        split: The name of the split, copied into the records.
        options: Seed, groups, resampling and bins.

    Returns:
        Mappings of split, metric, class (None, or a label's name), value, low, high, n, method, note.

    Raises:
        DataError: A label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    classes = len(label_names)
    truth, scores, known = checked_rows(labels, logits, classes)
    groups = group_index(options.groups, known)
    predictions = scores.argmax(axis=1) if len(scores) else truth
    counts = confusion_counts(truth, predictions, classes)
    units = len(truth) if groups is None else len(np.unique(groups))
    seen: dict[Key, float] = {}
    drawn: Values = {}
    calibrated = None
    if len(truth):
        sweep = MetricSweep(truth, scores, options.binning)
        seen = sweep.seen()
        strata = truth if options.resampling == "classes" and groups is None else None
        generator = np.random.default_rng([options.seed, 0])
        weights = resample_rows(len(truth), options.resamples, generator, strata, groups)
        drawn = joined([sweep.values(each) for each in weights])
        calibrated = sweep.calibration.calibrated(options.resamples, np.random.default_rng([options.seed, 1]))
    table = Table(counts, label_names, seen, drawn, options.method(units), units, calibrated)
    if groups is None:
        return table_records(table, shares_of_rows(counts), split, options.binning)
    return table_records(table, shares_of_grouped_rows(truth, predictions, groups), split, options.binning)


def metrics_from_confusion(
    matrix: Any, label_names: Sequence[str], split: str = "test", seed: int = 0
) -> list[dict[str, Any]]:
    """Return the metrics that a published confusion matrix allows, with intervals.

    Rows are taken as independent; resamples are drawn from the matrix's cells, which is what resampling its
    rows would give.

    Args:
        matrix: `[C, C]` counts: true classes are rows, predicted ones columns.
        label_names: The C names, in the order of the matrix.
        split: The name of the split, copied into the records.
        seed: Seeds the bootstrap.

    Returns:
        The records of :func:`classification_metrics` that need no logits.

    Raises:
        DataError: The matrix is not square, does not fit the names, or holds a negative count.
    """
    counts = as_integers(matrix)
    classes = len(label_names)
    if counts.shape != (classes, classes) or classes < 2:
        raise DataError(
            f"Expected a confusion matrix of shape ({classes}, {classes}), one line for each of {classes} names "
            f"(at least 2); found {counts.shape}."
        )
    if (counts < 0).any():
        raise DataError(f"Expected counts of at least 0 in a confusion matrix; found {counts.min()}.")
    rows, options = int(counts.sum()), MetricOptions(seed=seed)
    seen: dict[Key, float] = {}
    drawn: Values = {}
    if rows:
        generator = np.random.default_rng([seed, 0])
        draws = generator.multinomial(rows, counts.ravel() / rows, size=options.resamples)
        drawn = confusion_values(draws.reshape(-1, classes, classes))
        seen = {key: float(value[0]) for key, value in confusion_values(counts[None]).items()}
    table = Table(counts, label_names, seen, drawn, options.method(rows), rows)
    return table_records(table, shares_of_rows(counts), split)
