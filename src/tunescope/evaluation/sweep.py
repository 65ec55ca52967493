"""Every classification metric as a function of the rows' weights.

A resample is a weight for every row. One set of weights therefore gives the intervals of all metrics, and the
same weights on two models' logits give the interval of any metric's paired difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from tunescope.evaluation.calibration import Binning, CalibrationSweep, calibration_interval
from tunescope.evaluation.confusion import ConfusionSweep, derive
from tunescope.evaluation.margins import margin
from tunescope.evaluation.ranks import RankSweep
from tunescope.stats.intervals import Interval, percentile_interval
from tunescope.stats.scaled import Scale, scaled_interval

Key = tuple[str, int | None]
Values = dict[Key, np.ndarray]

CALIBRATION = "expected_calibration_error"
BRIER = "brier_score_loss"


class MetricSweep:
    """Metrics of one model on one split as functions of the rows' weights.

    Args:
        truth: `[n]` class indices, none unlabelled; at least one row.
        scores: `[n, C]` finite logits.
        binning: The bins of the expected calibration error; 15 of equal width unless told.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray, binning: Binning | None = None) -> None:
        rows, self.classes = scores.shape
        self.present: list[int] = np.unique(truth).tolist()
        self._counts = ConfusionSweep(truth, scores.argmax(axis=1), self.classes)
        ranked = self.present if len(self.present) > 1 else []
        # The log odds rank rows as the probability does, but do not tie where that saturates.
        self._ranks = {c: RankSweep(margin(scores, np.full(rows, c)), truth == c) for c in ranked}
        self.calibration = CalibrationSweep(truth, scores, binning or Binning())
        own = scores[np.arange(rows), truth]
        self._log_loss = special.logsumexp(scores, axis=1) - own
        squares = (special.softmax(scores, axis=1) - np.eye(self.classes)[truth]) ** 2
        # scikit-learn's scale: of two classes, the square of one probability's error; of more, their sum.
        self._brier = squares.sum(axis=1) / (2 if self.classes == 2 else 1)

    def values(self, weights: np.ndarray) -> Values:
        """Return every metric for weights `[n, R]`: `[R]` by metric and class, NaN where undefined."""
        found = confusion_values(self._counts.counts(weights))
        total = weights.sum(axis=0, dtype=np.float64)
        areas, averages = [], []
        for c, sweep in self._ranks.items():
            area, average = sweep.both(weights)
            found["roc_auc_ovr", c], found["average_precision", c] = area, average
            areas.append(area)
            averages.append(average)
        if areas:
            found["roc_auc_ovr", None] = _mean(areas)
            found["average_precision_macro", None] = _mean(averages)
        found[CALIBRATION, None] = self.calibration.errors(weights)
        found[BRIER, None] = self._brier.astype(weights.dtype) @ weights / total
        found["log_loss", None] = self._log_loss.astype(weights.dtype) @ weights / total
        return found

    def seen(self) -> dict[Key, float]:
        """Return every metric of the rows themselves."""
        ones = np.ones((len(self._log_loss), 1))
        return {key: float(value[0]) for key, value in self.values(ones).items()}


def confusion_values(counts: np.ndarray) -> Values:
    """Return the metrics of confusion matrices `[R, C, C]`: `[R]` by metric and class, NaN where undefined.

    Per class, a metric is undefined without rows of the class; precision also without predictions of it.
    """
    derived = derive(counts)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    found: Values = {}
    for metric, each in derived.per_class.items():
        known = (support > 0) & ((predicted > 0) | (metric != "precision"))
        for c in range(counts.shape[-1]):
            found[metric, c] = np.where(known[..., c], each[..., c], np.nan)
    for metric, value in derived.values.items():
        known = (support > 0).sum(axis=-1) >= (2 if metric == "matthews_corrcoef" else 1)
        found[metric, None] = np.where(known, value, np.nan)
    return found


def joined(parts: list[Values]) -> Values:
    """Return the values of several chunks of resamples one after another."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}


def _mean(draws: list[np.ndarray]) -> np.ndarray:
    """Return the mean over classes, in each resample over those that it holds."""
    table = np.array(draws)
    known = np.isfinite(table).sum(axis=0)
    total: np.ndarray = np.nansum(table, axis=0)
    return np.where(known > 0, total / np.maximum(known, 1), np.nan)


def interval_of(metric: str, value: float, draws: np.ndarray, told: Drawn) -> Interval:
    """Return the interval of one metric from its resampled values.

    Areas under the ROC curve and average precisions are taken to the logit scale, losses to the log scale; the
    calibration error has its own; the others are the percentiles (``docs/coverage.md`` says why).
    """
    if metric == CALIBRATION and told.calibrated is not None:
        return calibration_interval(value, draws, told.calibrated, told.rows, told.method)
    scale: Scale | None = {BRIER: "log", "log_loss": "log"}.get(metric)  # type: ignore[assignment]
    if metric.startswith(("roc_auc", "average_precision")):
        scale = "logit"
    if scale is None:
        return percentile_interval(value, draws, told.rows, told.method)
    return scaled_interval(value, draws, told.rows, told.method, scale, told.rarest - 1)


@dataclass(frozen=True)
class Drawn:
    """What is known of resamples besides the values.

    Attributes:
        rows: How many rows the metrics are made of.
        rarest: How many rows the rarest class has; fewer where rows share groups.
        method: How resamples were drawn, in words.
        calibrated: `[R]` calibration errors of a perfectly calibrated model, or None where there are no logits.
    """

    rows: int
    rarest: float
    method: str
    calibrated: np.ndarray | None = None
