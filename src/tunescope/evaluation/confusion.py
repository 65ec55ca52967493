"""Confusion matrices, the metrics that follow from them, and the check of labels against logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import DataError, ModelError
from tunescope.stats.arrays import as_float64, as_integers

UNLABELLED = -1


def checked_rows(labels: Any, logits: Any, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labels and logits of the labelled rows, and the mask `[n]` that says which these are.

    Raises:
        DataError: Fewer than 2 classes, a label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    truth, scores = as_integers(labels), as_float64(logits)
    if classes < 2:
        raise DataError(f"Classification metrics need at least 2 classes; there are {classes}.")
    if scores.ndim != 2 or scores.shape != (len(truth), classes):
        raise DataError(f"Expected logits of shape ({len(truth)}, {classes}), found {scores.shape}.")
    known = truth != UNLABELLED
    truth, scores = truth[known], scores[known]
    require_classes(truth, classes, "label")
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise ModelError(
            f"The logits of {bad} of {len(scores)} rows are NaN or infinite.",
            hint="The training diverged: look at its log, and try a smaller learning rate.",
        )
    return truth, scores, known


def require_classes(values: np.ndarray, classes: int, what: str) -> None:
    """Raise where an index is not one of a class.

    Raises:
        DataError: An index outside 0 to C - 1.
    """
    outside = values[(values < 0) | (values >= classes)]
    if len(outside):
        raise DataError(
            f"Expected every {what} from 0 to {classes - 1}; found {outside[0]} in {len(outside)} rows."
        )


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
        require_classes(values, n_classes, name)
    matrix: list[list[int]] = confusion_counts(truth, guesses, n_classes).tolist()
    return matrix


def confusion_counts(truth: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix `[C, C]` of checked indices."""
    flat = np.bincount(truth * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


class ConfusionSweep:
    """The confusion matrix as a function of the rows' weights.

    Args:
        truth: `[n]` class indices.
        predictions: `[n]` class indices.
        classes: C.
    """

    def __init__(self, truth: np.ndarray, predictions: np.ndarray, classes: int) -> None:
        cells = truth * classes + predictions
        self._classes = classes
        self._used = np.unique(cells)
        self._member = (cells == self._used[:, None]).astype(np.float32)  # [cells, n]

    def counts(self, weights: np.ndarray) -> np.ndarray:
        """Return the matrices, `[R, C, C]`, for weights `[n, R]`."""
        found = np.zeros((weights.shape[1], self._classes**2))
        found[:, self._used] = (self._member @ weights).T
        return found.reshape(-1, self._classes, self._classes)


@dataclass(frozen=True)
class Derived:
    """Metrics that follow from confusion matrices, one value per matrix.

    Attributes:
        per_class: `[..., C]` per metric (precision, recall, f1); meaningless for classes without rows.
        values: `[...]` per metric.
    """

    per_class: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    @property
    def f1(self) -> np.ndarray:
        """F1 of each class, `[..., C]`."""
        return self.per_class["f1"]


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
        "precision": ratio(correct, predicted),
        "recall": ratio(correct, support),
        "f1": ratio(2 * correct, support + predicted),
    }
    values = {"accuracy": ratio(correct.sum(axis=-1), rows)}
    for name, each in per_class.items():
        values[f"{name}_macro"] = ratio((each * present).sum(axis=-1), present.sum(axis=-1))
        values[f"{name}_weighted"] = ratio((each * support).sum(axis=-1), rows)
    values["balanced_accuracy"] = values["recall_macro"]
    covariance = correct.sum(axis=-1) * rows - (support * predicted).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (support**2).sum(axis=-1))
    values["matthews_corrcoef"] = ratio(covariance, np.sqrt(spread))
    return Derived(per_class, values)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)
