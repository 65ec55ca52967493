"""Classification metrics with intervals, and the logit margin, under scikit-learn's names.

Shares of rows (accuracy, recall, precision) have Wilson intervals; everything else the percentiles of a
bootstrap of rows. Metrics made of the confusion matrix need no rows for that: its cells are multinomial.

Rows are *not* resampled within their class. That would take the number of rows per class as given, although
another sample would have others, on which precision and F1 depend: in simulations the 95 % interval of the F1
of a class with 10 % of the rows then covers 88 %, at any number of rows, and this one 95 %. A resample that
loses a class says nothing about it; how many did so is in the note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tunescope.errors import DataError, ModelError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.ranks import AUCSweep, resample_rows
from tunescope.stats.arrays import as_float64, as_integers
from tunescope.stats.intervals import NO_ROWS, ONE_ROW, Interval, percentile_interval, wilson

RESAMPLES = 1000
UNLABELLED = -1
ONE_CLASS = "undefined: the split has one class only"


def classification_metrics(
    labels: Any, logits: Any, label_names: Sequence[str], split: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Return every metric of one split as records.

    Averages run over the classes that occur among the labels; where all do, they are scikit-learn's. What is
    undefined (a class that is absent, a precision without predictions) has the value None and a note.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        label_names: The C names, in the order of indices.
        split: The name of the split, copied into the records.
        seed: Seeds the bootstrap.

    Returns:
        Mappings of split, metric, class (None, or a label's name), value, low, high, n, method, note.

    Raises:
        DataError: A label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    truth, scores = _checked(labels, logits, len(label_names))
    predictions = scores.argmax(axis=1) if len(scores) else truth
    counts = _confusion(truth, predictions, len(label_names))
    rows = int(counts.sum())
    support = counts.sum(axis=1)
    correct = np.diagonal(counts)
    named: list[tuple[str, str | None, Interval]] = [
        ("accuracy", None, wilson(int(correct.sum()), rows)),
        ("majority_accuracy", None, _majority(support, label_names)),
    ]
    for index, name in enumerate(label_names):
        named.append(("precision", name, _precision(counts, index, name)))
        absent = None if support[index] else _absent(name)
        recall = wilson(int(correct[index]), int(support[index]))
        named.append(("recall", name, recall if absent is None else _without(recall, absent)))
    named += _from_confusion(counts, label_names, seed)
    named += _from_scores(truth, scores, label_names, seed)
    return [
        {"split": split, "metric": metric, "class": name, **interval.record()}
        for metric, name, interval in named
    ]


def confusion_matrix(labels: Any, predictions: Any, n_classes: int) -> list[list[int]]:
    """Return how many rows of each true class (rows) were predicted as each class (columns).

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        predictions: `[n]` class indices.
        n_classes: C.

    Raises:
        DataError: An index outside 0 to C - 1, or counts that do not fit.
    """
    truth, guesses = as_integers(labels), as_integers(predictions)
    if truth.shape != guesses.shape or truth.ndim != 1:
        raise DataError(f"Expected one prediction per label, found {truth.shape} and {guesses.shape}.")
    known = truth != UNLABELLED
    truth, guesses = truth[known], guesses[known]
    for name, values in (("label", truth), ("prediction", guesses)):
        _require_classes(values, n_classes, name)
    matrix: list[list[int]] = _confusion(truth, guesses, n_classes).tolist()
    return matrix


def _checked(labels: Any, logits: Any, classes: int) -> tuple[np.ndarray, np.ndarray]:
    truth, scores = as_integers(labels), as_float64(logits)
    if classes < 2:
        raise DataError(f"Classification metrics need at least 2 classes; there are {classes}.")
    if scores.ndim != 2 or scores.shape != (len(truth), classes):
        raise DataError(f"Expected logits of shape ({len(truth)}, {classes}), found {scores.shape}.")
    known = truth != UNLABELLED
    truth, scores = truth[known], scores[known]
    _require_classes(truth, classes, "label")
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise ModelError(
            f"The logits of {bad} of {len(scores)} rows are NaN or infinite.",
            hint="The training diverged: look at its log, and try a smaller learning rate.",
        )
    return truth, scores


def _require_classes(values: np.ndarray, classes: int, what: str) -> None:
    outside = values[(values < 0) | (values >= classes)]
    if len(outside):
        raise DataError(
            f"Expected every {what} from 0 to {classes - 1}; found {outside[0]} in {len(outside)} rows."
        )


def _confusion(truth: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    flat = np.bincount(truth * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


def _absent(name: str) -> str:
    return f"undefined: no row of this split has the label {name!r}"


def _without(interval: Interval, note: str) -> Interval:
    return Interval(None, None, None, interval.n, interval.method, note)


def _majority(support: np.ndarray, names: Sequence[str]) -> Interval:
    """Return the accuracy of always saying the most frequent class."""
    best = int(support.argmax())
    interval = wilson(int(support[best]), int(support.sum()))
    note = interval.note or f"always {names[best]!r}, the most frequent label of this split"
    return Interval(interval.value, interval.low, interval.high, interval.n, interval.method, note)


def _precision(counts: np.ndarray, index: int, name: str) -> Interval:
    predicted = int(counts[:, index].sum())
    interval = wilson(int(counts[index, index]), predicted)
    if not counts[index].sum():
        return _without(interval, _absent(name))
    return interval if predicted else _without(interval, f"undefined: no row was predicted as {name!r}")


@dataclass(frozen=True)
class Derived:
    """Metrics that follow from confusion matrices, one value per matrix.

    Attributes:
        f1: `[..., C]`, meaningless for classes without rows.
        values: `[...]` per metric.
    """

    f1: np.ndarray
    values: dict[str, np.ndarray]


def derive(counts: np.ndarray) -> Derived:
    """Return the metrics of confusion matrices, `[..., C, C]`.

    A ratio with denominator 0 is 0, as scikit-learn has it. Matthews' correlation is that of Gorodkin (2004)
    for any number of classes.
    """
    table = counts.astype(np.float64)
    support, predicted = table.sum(axis=-1), table.sum(axis=-2)
    correct = np.diagonal(table, axis1=-2, axis2=-1)
    rows = support.sum(axis=-1)
    present = support > 0
    per_class = {
        "precision": _over(correct, predicted),
        "recall": _over(correct, support),
        "f1": _over(2 * correct, support + predicted),
    }
    values = {}
    for name, each in per_class.items():
        values[f"{name}_macro"] = _over((each * present).sum(axis=-1), present.sum(axis=-1))
        values[f"{name}_weighted"] = _over((each * support).sum(axis=-1), rows)
    values["balanced_accuracy"] = values["recall_macro"]
    covariance = correct.sum(axis=-1) * rows - (support * predicted).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (support**2).sum(axis=-1))
    values["matthews_corrcoef"] = _over(covariance, np.sqrt(spread))
    return Derived(per_class["f1"], values)


def _over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _from_confusion(
    counts: np.ndarray, names: Sequence[str], seed: int
) -> list[tuple[str, str | None, Interval]]:
    """Return F1 per class, the averages, balanced accuracy and Matthews' correlation."""
    rows, support = int(counts.sum()), counts.sum(axis=1).tolist()
    generator = np.random.default_rng([seed, 0])
    shares = counts.ravel() / max(rows, 1)
    draws = generator.multinomial(rows, shares, size=RESAMPLES).reshape(RESAMPLES, *counts.shape)
    present = draws.sum(axis=-1) > 0
    seen, drawn = derive(counts), derive(draws)
    drawn.f1[~present] = np.nan
    drawn.values["matthews_corrcoef"][present.sum(axis=-1) < 2] = np.nan
    found: list[tuple[str, str | None, Interval]] = []
    for index, name in enumerate(names):
        note = None if support[index] else (_absent(name) if rows else NO_ROWS)
        found.append(("f1", name, _bootstrapped(seen.f1[index], drawn.f1[:, index], rows, note)))
    missing = [name for name, size in zip(names, support, strict=True) if not size]
    silent = [name for name, size in zip(names, counts.sum(axis=0), strict=True) if not size]
    for metric, value in seen.values.items():
        note = None if rows else NO_ROWS
        if metric == "matthews_corrcoef" and len(names) - len(missing) < 2:
            note = note or ONE_CLASS
        interval = _bootstrapped(value, drawn.values[metric], rows, note)
        if note is None:
            interval = _with(interval, _caveat(metric, missing, silent, len(names)))
        found.append((metric, None, interval))
    return found


def _caveat(metric: str, missing: list[str], silent: list[str], classes: int) -> str | None:
    """Return what the reader must know of an average over classes."""
    if metric == "matthews_corrcoef":
        return "0 by convention: all rows were predicted as one class" if len(silent) == classes - 1 else None
    notes = []
    if missing and not metric.endswith("_weighted"):
        notes.append(f"over the classes of this split, which lacks {', '.join(missing)}")
    never = [name for name in silent if name not in missing]
    if never and metric.startswith("precision"):
        notes.append(f"0 for {', '.join(never)}, which was never predicted")
    return "; ".join(notes) or None


def _bootstrapped(value: Any, draws: np.ndarray, rows: int, note: str | None) -> Interval:
    method = f"bootstrap of rows, {RESAMPLES} resamples"
    if note is not None:
        return Interval(None, None, None, rows, method, note)
    if rows == 1:
        return Interval(float(value), None, None, rows, method, ONE_ROW)
    return percentile_interval(float(value), draws, rows, method)


def _with(interval: Interval, note: str | None) -> Interval:
    notes = "; ".join(each for each in (interval.note, note) if each) or None
    return Interval(interval.value, interval.low, interval.high, interval.n, interval.method, notes)


def _from_scores(
    truth: np.ndarray, scores: np.ndarray, names: Sequence[str], seed: int
) -> list[tuple[str, str | None, Interval]]:
    """Return one-vs-rest AUC per class and its mean, and the log loss, on the same resamples."""
    rows, classes = len(truth), len(names)
    if not rows:
        nothing = _bootstrapped(None, np.zeros(0), 0, NO_ROWS)
        return [*(("roc_auc_ovr", name, nothing) for name in (*names, None)), ("log_loss", None, nothing)]
    present = np.unique(truth).tolist()
    known = present if len(present) > 1 else []
    # The log odds rank rows as the probability does, but do not tie where that saturates. Of two classes they
    # mirror each other, so that one area serves both.
    swept = known[:1] if classes == 2 else known
    sweeps = [AUCSweep(margin(scores, np.full(rows, c)), truth == c) for c in swept]
    losses = special.logsumexp(scores, axis=1) - scores[np.arange(rows), truth]
    areas: list[list[np.ndarray]] = [[] for _ in sweeps]
    loss_draws = []
    for weights in resample_rows(rows, RESAMPLES, np.random.default_rng([seed, 1])):
        loss_draws.append(losses.astype(weights.dtype) @ weights / rows)
        for area, sweep in zip(areas, sweeps, strict=True):
            area.append(sweep.areas(weights))
    drawn = np.array([np.concatenate(area) for area in areas])
    seen = [float(sweep.areas(np.ones((rows, 1)))[0]) for sweep in sweeps]
    found: list[tuple[str, str | None, Interval]] = []
    for c, name in enumerate(names):
        if c in known:
            place = min(known.index(c), len(swept) - 1)
            found.append(("roc_auc_ovr", name, _bootstrapped(seen[place], drawn[place], rows, None)))
        else:
            note = ONE_CLASS if c in present else _absent(name)
            found.append(("roc_auc_ovr", name, _bootstrapped(None, np.zeros(0), rows, note)))
    if known:
        missing = [name for c, name in enumerate(names) if c not in present]
        known_in = np.isfinite(drawn).sum(axis=0)
        means = np.where(known_in > 0, np.nansum(drawn, axis=0) / np.maximum(known_in, 1), np.nan)
        mean = _bootstrapped(np.mean(seen), means, rows, None)
        found.append(("roc_auc_ovr", None, _with(mean, _caveat("roc_auc_ovr", missing, [], classes))))
    else:
        found.append(("roc_auc_ovr", None, _bootstrapped(None, np.zeros(0), rows, ONE_CLASS)))
    return [*found, ("log_loss", None, _bootstrapped(losses.mean(), np.concatenate(loss_draws), rows, None))]
