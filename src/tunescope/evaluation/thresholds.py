"""Decision thresholds, chosen on validation rows and judged on test rows.

The test split chooses nothing: the threshold is a function of validation rows alone, and what it does to the
metric on test rows is a paired difference on the same resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from tunescope.errors import DataError
from tunescope.evaluation.confusion import ConfusionSweep, checked_rows, derive
from tunescope.evaluation.resampling import resample_rows
from tunescope.stats.intervals import NO_ROWS, ONE_ROW, Interval, percentile_interval

RESAMPLES = 1000
METRICS = ("f1", "balanced_accuracy", "accuracy", "matthews_corrcoef")
ThresholdMetric = Literal["f1", "balanced_accuracy", "accuracy", "matthews_corrcoef"]
CHOSEN = "the threshold was chosen on validation rows; test rows chose nothing"


@dataclass(frozen=True)
class Scored:
    """Labels and logits of one split.

    Attributes:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
    """

    labels: Any
    logits: Any


@dataclass(frozen=True)
class Threshold:
    """One decision threshold: a row is said to be of the class from this probability on.

    Attributes:
        value: The probability, from 0 to 1; just above where no row is to be said to be of the class.
        metric: What was maximised.
        before: The metric on the same rows at one half.
        after: The metric at the threshold: optimistic, as it was chosen for these rows.
    """

    value: float
    metric: str
    before: float
    after: float


def best_threshold(positive: Any, probability: Any, metric: ThresholdMetric = "f1") -> Threshold:
    """Return the threshold that maximises a metric of one class against the rest.

    Every distinct decision that a threshold can make on these rows is tried, in one sort. Of thresholds that
    do equally well the one nearest to one half is taken; it lies midway between two rows.

    Args:
        positive: `[n]` true for rows of the class.
        probability: `[n]` its probability.
        metric: "f1", "balanced_accuracy", "accuracy" or "matthews_corrcoef", of the class against the rest.

    Raises:
        ValueError: The metric is not one of these.
        DataError: All rows are of the class, or none is.
    """
    if metric not in METRICS:
        raise ValueError(f"expected one of {', '.join(METRICS)}; found {metric!r}")
    kind, share = np.asarray(positive, dtype=bool), np.asarray(probability, dtype=np.float64)
    if kind.all() or not kind.any():
        raise DataError(
            f"A threshold needs validation rows of the class and others; {int(kind.sum())} of {len(kind)} are of it.",
            hint="Use a validation split that holds every class (`stratify: true`).",
        )
    values, index = np.unique(share, return_inverse=True)
    hits = np.bincount(index, kind, minlength=len(values))[::-1].cumsum()[
        ::-1
    ]  # positives from each value on
    said = np.bincount(index, minlength=len(values))[::-1].cumsum()[::-1]
    hits, said = np.r_[hits, 0], np.r_[said, 0]  # above all values nothing is said to be of the class
    scores = _binary(hits, said, int(kind.sum()), len(kind), metric)
    middle = (values[1:] + values[:-1]) / 2
    # Between neighbouring floats the middle may round down onto the lower one, which it must exclude.
    middle = np.where(middle > values[:-1], middle, values[1:])
    cuts = np.r_[min(values[0], 0.5) / 2, middle, (values[-1] + max(1.0, values[-1])) / 2]
    cuts[-1] = max(cuts[-1], np.nextafter(values[-1], 2.0))
    low, high = np.r_[0.0, values], np.r_[values, np.inf]
    half = (low < 0.5) & (high >= 0.5)  # where one half itself decides so, it is the threshold
    cuts = np.where(half, 0.5, cuts)
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    chosen = best[np.abs(cuts[best] - 0.5).argmin()]
    before = scores[np.flatnonzero(half)[0]]
    return Threshold(float(cuts[chosen]), metric, float(before), float(scores[chosen]))


def _binary(hits: np.ndarray, said: np.ndarray, positives: int, rows: int, metric: str) -> np.ndarray:
    """Return a metric of the class against the rest for each way of deciding."""
    missed, false = positives - hits, said - hits
    counts = np.array([[rows - positives - false, false], [missed, hits]]).transpose(2, 0, 1)
    return _binary_metric(counts, metric)


def _binary_metric(counts: np.ndarray, metric: str) -> np.ndarray:
    derived = derive(counts)
    return derived.f1[..., 1] if metric == "f1" else derived.values[metric]


def tune_thresholds(
    validation: Scored,
    test: Scored,
    label_names: Sequence[str],
    metric: ThresholdMetric = "f1",
    seed: int = 0,
) -> dict[str, Any]:
    """Choose a threshold per class on validation rows, and say what it does on test rows.

    With two classes there is one threshold, on the probability of the second. With more there is one for each
    class against the rest; the answers of several classes may then overlap, and a row may have none.

    Args:
        validation: The rows that choose.
        test: The rows that judge.
        label_names: The C names, in the order of indices.
        metric: What is maximised, of the class against the rest.
        seed: Seeds the bootstrap.

    Returns:
        ``{"metric", "chosen_on": "validation", "note", "thresholds": [...]}``; each threshold has class,
        threshold, validation (before, after) and test (before, after, difference: each value, low, high, n,
        method, note; "before" is a threshold of one half). A class that a split lacks has threshold None and
        a note.

    Raises:
        DataError: A label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    classes = len(label_names)
    truth, scores, _ = checked_rows(validation.labels, validation.logits, classes)
    judged, judging, _ = checked_rows(test.labels, test.logits, classes)
    shares, seen = special.softmax(scores, axis=1), special.softmax(judging, axis=1)
    found: list[dict[str, Any]] = []
    for c in range(classes) if classes > 2 else [1]:
        own = truth == c
        if own.all() or not own.any():
            which = "no" if not own.any() else "every"
            note = f"undefined: {which} validation row has the label {label_names[c]!r}"
            found.append({
                "class": label_names[c], "threshold": None, "validation": None, "test": None, "note": note,
            })  # fmt: skip
            continue
        threshold = best_threshold(own, shares[:, c], metric)
        generator = np.random.default_rng([seed, 3, c])
        found.append({
            "class": label_names[c], "threshold": threshold.value,
            "validation": {"before": threshold.before, "after": threshold.after, "n": len(truth)},
            "test": _judged(judged == c, seen[:, c], threshold, generator), "note": CHOSEN,
        })  # fmt: skip
    return {"metric": metric, "chosen_on": "validation", "note": CHOSEN, "thresholds": found}


def _judged(
    positive: np.ndarray, share: np.ndarray, threshold: Threshold, generator: np.random.Generator
) -> dict[str, Any]:
    """Return the metric on test rows at one half and at the threshold, and the paired difference."""
    rows = len(positive)
    method = f"bootstrap of rows, {RESAMPLES} resamples"
    parts = ("before", "after", "difference")
    if not positive.any() or positive.all():
        why = "undefined: no test row has this label" if rows else NO_ROWS
        why = "undefined: every test row has this label" if rows and positive.all() else why
        return {part: Interval(None, None, None, rows, method, why).record() for part in parts}
    cuts = (0.5, threshold.value)
    sweeps = [ConfusionSweep(positive.astype(int), (share >= cut).astype(int), 2) for cut in cuts]
    ones = np.ones((rows, 1), dtype=np.float32)
    value = [float(_binary_metric(sweep.counts(ones), threshold.metric)[0]) for sweep in sweeps]
    value.append(value[1] - value[0])
    if rows < 2:
        return {
            part: Interval(value[place], None, None, rows, method, ONE_ROW).record()
            for place, part in enumerate(parts)
        }
    drawn: list[list[np.ndarray]] = [[], []]
    for weights in resample_rows(rows, RESAMPLES, generator):
        for place, sweep in enumerate(sweeps):
            counts = sweep.counts(weights)
            lost = counts[:, 1].sum(axis=-1) == 0  # no row of the class in this resample
            drawn[place].append(np.where(lost, np.nan, _binary_metric(counts, threshold.metric)))
    draws = [np.concatenate(each) for each in drawn]
    draws.append(draws[1] - draws[0])
    return {
        part: percentile_interval(value[place], draws[place], rows, method).record()
        for place, part in enumerate(parts)
    }
