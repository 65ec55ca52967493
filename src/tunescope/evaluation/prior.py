"""Prior shift: where classes are rarer or more frequent than in training, logits can be moved to match.

Under prior shift (label shift) only the classes' shares differ, `p(x | y)` is the same. Bayes' rule then says
what becomes of a calibrated model's logits: `z_c + log(target_c / train_c)`. Where the rows also look different
within a class, or the model is not calibrated, this corrects the wrong thing: it is done on request only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tunescope.errors import DataError
from tunescope.evaluation.resampling import resample_rows
from tunescope.stats.arrays import as_float64

TOLERANCE = 1e-8
MOST_STEPS = 5000
RESAMPLES = 200


@dataclass(frozen=True)
class PriorEstimate:
    """The classes' shares among unlabelled rows, as a model sees them.

    Attributes:
        prior: `[C]` shares, summing to 1.
        low: `[C]` lower ends of the 95 % bootstrap intervals.
        high: `[C]` upper ends.
        steps: How many steps it took.
        converged: Whether the last step changed no share by more than 1e-8.
        n: How many rows it is made of.
    """

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray
    steps: int
    converged: bool
    n: int


def correct_prior(logits: Any, train_prior: Any, target_prior: Any) -> np.ndarray:
    """Return logits moved from the classes' shares in training to those of the target rows.

    `z_c + log(target_c / train_c)` (Saerens et al. 2002): the softmax of these is Bayes' rule with the other
    prior.

    Args:
        logits: `[n, C]`, torch or numpy.
        train_prior: `[C]` shares or counts of the classes in training, all positive; scaled to sum to 1.
        target_prior: `[C]` shares or counts among the rows to be predicted. A share of 0 gives minus infinity:
            the class cannot be.

    Raises:
        DataError: Shares that are negative, not finite, of another number than C, or 0 in training.
    """
    scores = as_float64(logits)
    train, target = _shares(train_prior, scores, "training"), _shares(target_prior, scores, "target")
    if (train == 0).any():
        raise DataError(
            f"Class {int((train == 0).argmax())} has no row in training: no prior corrects its logits.",
            hint="Leave the class out of the target, or train on rows that hold it.",
        )
    with np.errstate(divide="ignore"):
        return scores + np.log(target) - np.log(train)


def estimate_prior(logits: Any, train_prior: Any, seed: int = 0, resamples: int = RESAMPLES) -> PriorEstimate:
    """Return the classes' shares among unlabelled rows, by expectation maximisation.

    Saerens, Latinne and Decaestecker (2002): posterior of each row under the present shares, then shares as the
    mean posterior, until nothing changes. It maximises the likelihood of the rows, which has one maximum; it is
    right where the model is calibrated on training's shares. No label is read, so that it may be used on test
    rows without letting their labels choose anything.

    Args:
        logits: `[n, C]` of the model as trained.
        train_prior: `[C]` shares or counts of the classes in training.
        seed: Seeds the bootstrap.
        resamples: How many resamples the intervals are made of; 0 for none (NaN ends).

    Raises:
        DataError: No rows, or shares that do not fit.
    """
    scores = as_float64(logits)
    train = _shares(train_prior, scores, "training")
    if not len(scores):
        raise DataError("The classes' shares cannot be estimated from no rows.")
    if (train == 0).any():
        raise DataError(
            f"Class {int((train == 0).argmax())} has no row in training: its share cannot be estimated."
        )
    ratio = special.softmax(scores, axis=1) / train  # [n, C], p(x | c) up to a factor of each row
    prior, steps, converged = _maximised(ratio, np.ones((len(scores), 1)), train[:, None])
    draws = [
        _maximised(ratio, weights.astype(np.float64), np.repeat(prior, weights.shape[1], axis=1))[0]
        for weights in resample_rows(len(scores), resamples, np.random.default_rng([seed, 4]))
    ]
    low = high = np.full(len(train), np.nan)
    if draws:
        low, high = np.quantile(np.concatenate(draws, axis=1), [0.025, 0.975], axis=1)
    return PriorEstimate(prior[:, 0], low, high, steps, converged, len(scores))


def _maximised(ratio: np.ndarray, weights: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Return the shares `[C, R]` that maximise the likelihood for each column of weights `[n, R]`."""
    prior, total = start, weights.sum(axis=0)
    for step in range(1, MOST_STEPS + 1):
        evidence = weights / (ratio @ prior)
        new = prior * (ratio.T @ evidence) / total
        change = np.abs(new - prior).max()
        prior = new
        if change <= TOLERANCE:
            return prior, step, True
    return prior, MOST_STEPS, False


def _shares(prior: Any, scores: np.ndarray, name: str) -> np.ndarray:
    shares = as_float64(prior)
    if scores.ndim != 2 or shares.shape != scores.shape[1:]:
        raise DataError(
            f"Expected one {name} share per class, {scores.shape[1:]} of them; found {shares.shape}."
        )
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() == 0:
        raise DataError(f"Expected {name} shares of at least 0 with a positive sum; found {shares.tolist()}.")
    normal: np.ndarray = shares / shares.sum()
    return normal
