"""Calibration: does a confidence of 80 % mean that 80 % are right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from tunescope.evaluation.confusion import checked_rows
from tunescope.stats.intervals import Interval, percentile_interval, wilson


@dataclass(frozen=True)
class Binning:
    """How confidences are put into bins.

    Attributes:
        count: How many bins.
        kind: "width" for bins of equal width over 0 to 1; "mass" for bins that hold equally many rows (fewer
            bins where confidences tie).
    """

    count: int = 15
    kind: Literal["width", "mass"] = "width"

    def __post_init__(self) -> None:
        if self.count < 1 or self.kind not in ("width", "mass"):
            raise ValueError(
                f"expected at least 1 bin, of kind 'width' or 'mass'; found {self.count} of {self.kind!r}"
            )

    def __str__(self) -> str:
        return f"{self.count} bins of equal {self.kind}"

    def edges(self, confidence: np.ndarray) -> np.ndarray:
        """Return the edges of the bins, ascending, the first 0 or the smallest confidence."""
        if self.kind == "width" or not len(confidence):
            return np.linspace(0.0, 1.0, self.count + 1)
        return np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, self.count + 1)))


def bin_of(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of every confidence; bins hold their upper edge, the first one its lower edge too."""
    return np.searchsorted(edges[1:-1], confidence, side="left")


def top_confidence(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of the predicted class, `[n]`, and whether it is the true one, `[n]`."""
    if not len(scores):
        return np.zeros(0), np.zeros(0, dtype=bool)
    confidence = np.exp(scores.max(axis=1) - special.logsumexp(scores, axis=1))
    return confidence, scores.argmax(axis=1) == truth


def reliability_curve(labels: Any, logits: Any, binning: Binning | None = None) -> list[dict[str, Any]]:
    """Return, per bin of confidence, the mean confidence and the share of right predictions.

    Guo et al. (2017). The confidence is the probability of the predicted class. Where the share is below the
    confidence the model is over-confident.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        binning: 15 bins of equal width unless told.

    Returns:
        One mapping per bin that holds rows: low, high (edges), n, confidence, accuracy, and accuracy_low,
        accuracy_high (Wilson).

    Raises:
        DataError: A label outside 0 to C - 1, or counts that do not fit.
        ModelError: A logit is NaN or infinite.
    """
    truth, scores, _ = checked_rows(labels, logits, np.shape(logits)[-1])
    confidence, right = top_confidence(truth, scores)
    edges = (binning or Binning()).edges(confidence)
    index = bin_of(confidence, edges)
    curve = []
    for each in np.unique(index).tolist():
        inside = index == each
        share = wilson(int(right[inside].sum()), int(inside.sum()))
        curve.append({
            "low": float(edges[each]), "high": float(edges[min(each + 1, len(edges) - 1)]), "n": share.n,
            "confidence": float(confidence[inside].mean()), "accuracy": share.value,
            "accuracy_low": share.low, "accuracy_high": share.high,
        })  # fmt: skip
    return curve


def expected_calibration_error(labels: Any, logits: Any, binning: Binning | None = None) -> float | None:
    """Return the mean distance between confidence and accuracy over bins, weighted by their rows.

    `sum_b n_b / n * |accuracy_b - confidence_b|`, from 0 to 1 (Naeini et al. 2015; Guo et al. 2017). It is
    biased upwards: a perfectly calibrated model has a positive one, the more so the fewer rows a bin has.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        binning: 15 bins of equal width unless told.

    Returns:
        None where no row has a label.
    """
    curve = reliability_curve(labels, logits, binning)
    rows = sum(each["n"] for each in curve)
    if not rows:
        return None
    return float(sum(each["n"] * abs(each["accuracy"] - each["confidence"]) for each in curve) / rows)


class CalibrationSweep:
    """The expected calibration error as a function of the rows' weights, on fixed bins.

    Args:
        truth: `[n]` class indices.
        scores: `[n, C]` logits.
        binning: The bins; those of equal mass keep the edges of all rows.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray, binning: Binning) -> None:
        self._confidence, right = top_confidence(truth, scores)
        index = bin_of(self._confidence, binning.edges(self._confidence))
        self._inside = index == np.unique(index)[:, None]  # [bins, n]
        self._gap = self._inside * (self._confidence - right)

    def errors(self, weights: np.ndarray) -> np.ndarray:
        """Return the errors, `[R]`, for weights `[n, R]`."""
        gaps = self._gap.astype(weights.dtype) @ weights
        total: np.ndarray = np.abs(gaps).sum(axis=0, dtype=np.float64)
        return total / weights.sum(axis=0, dtype=np.float64)

    def calibrated(self, resamples: int, generator: np.random.Generator) -> np.ndarray:
        """Return what a perfectly calibrated model of these confidences would show, `[R]`.

        Each row is right with the probability that its confidence says (consistency resampling, Broecker and
        Smith 2007). The number of right rows of a bin is a sum of unequal coins; its normal approximation is
        taken, which needs no draws by row.
        """
        variance = self._inside @ (self._confidence * (1 - self._confidence))
        gaps = generator.normal(size=(resamples, len(variance))) * np.sqrt(variance)
        total: np.ndarray = np.abs(gaps).sum(axis=1)
        return total / len(self._confidence)


def calibration_interval(
    value: float, draws: np.ndarray, calibrated: np.ndarray, n: int, method: str
) -> Interval:
    """Return the expected calibration error with an interval that respects its bias.

    The error is a sum of absolute values: noise makes it larger, and resampling adds noise once more, so that
    the percentiles of resamples lie above the estimate. The lower end is therefore the reversed percentile
    `2 value - high`, and 0 where a perfectly calibrated model would show as much in more than one sample of 40.

    Args:
        value: The estimate.
        draws: `[R]` resampled values.
        calibrated: `[R]` values of a perfectly calibrated model; see :meth:`CalibrationSweep.calibrated`.
        n: How many rows the estimate is made of.
        method: How the draws were made, in words.
    """
    plain = percentile_interval(value, draws, n, method)
    if plain.low is None or plain.high is None:
        return plain
    bound = float(np.quantile(calibrated, 0.975, method="weibull"))
    low = 0.0 if value <= bound else max(0.0, 2 * value - plain.high)
    said = f"a perfectly calibrated model would show {calibrated.mean():.3f} on as many rows, seldom above {bound:.3f}"
    notes = "; ".join(each for each in (plain.note, said) if each)
    return Interval(value, low, max(plain.high, value), n, method, notes)
