"""The exact test of two trained models on the same rows: rows' answers (or losses) exchanged between the two.

Where the two models are equally good in law, which of them gave which of a row's two answers is chance. The
bootstrap's p speaks of the same question, but takes the few rows on which the two differ for a sample large enough:
with five such rows, all for one model, it says p = .01 where the exact test says .06.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import special
from scipy.stats import rankdata

from tunescope.evaluation.calibration import Binning, CalibrationSweep
from tunescope.evaluation.comparison.inputs import Aligned, Run
from tunescope.evaluation.confusion import ConfusionSweep
from tunescope.evaluation.margins import margin
from tunescope.evaluation.ranks import RankSweep
from tunescope.evaluation.sweep import BRIER, confusion_values
from tunescope.stats.intervals import CHUNK
from tunescope.stats.paired import Sample, Statistic, sample_of
from tunescope.stats.tests import sign_flip_p

OF_LOSSES = ("log_loss", BRIER)  # means over rows, of which few may carry the difference
OF_RANKS = ("roc_auc_ovr", "average_precision_macro")  # unchanged by any rising change of a model's scores
ROUNDING = 1e-12  # equal differences may differ in their last bits


def swap_p(
    rows: Aligned, metric: str, pair: tuple[Run, Run], *, resamples: int, seed: int | list[int]
) -> float:
    """Return the two-sided p value of "it does not matter which model gave which answer" (Noreen 1989).

    The answers of each row (of each group, where rows are not independent) stay with their model or are exchanged,
    by chance one half; p is ``(k + 1) / (R + 1)`` with k of R exchanges as far from zero as what was seen. For
    accuracy it is McNemar's exact test but for the chance of R draws; exact for every metric of the confusion matrix.

    Args:
        rows: Predictions side by side.
        metric: One of ``OF_CONFUSION``.
        pair: The two sets of predictions.
        resamples: R, how many exchanges are drawn.
        seed: Seeds the draws.
    """
    one, other = (rows.predictions[run] for run in pair)
    sample = sample_of(np.column_stack([rows.truth, one, other]), rows.groups)
    cells = sample.first
    # Every cell stands twice: with the first model's answer and with the second's.
    truth, guesses = np.tile(rows.truth[cells], 2), np.r_[one[cells], other[cells]]
    sweep = ConfusionSweep(truth, guesses, len(rows.names))

    def value(weights: np.ndarray) -> np.ndarray:
        return confusion_values(sweep.counts(weights))[metric, None]

    return _exchanged_p(value, sample, len(rows.names), resamples, seed)


def score_swap_p(
    rows: Aligned, metric: str, pair: tuple[Run, Run], *, resamples: int, seed: int | list[int]
) -> float:
    """Return the same of a metric that is no sum over rows: areas, average precision, calibration error.

    Areas and average precisions depend on the order of a model's scores alone, and two models' scores may lie on
    other scales; so each model's scores are first replaced by their ranks, class by class, and a row's ranks are
    exchanged (Bandos, Rockette and Gur 2005, "A permutation test sensitive to differences in areas for comparing ROC
    curves from a paired design"). For the calibration error the scores themselves are.

    Args:
        rows: Predictions side by side.
        metric: One of :data:`OF_RANKS`, or the calibration error.
        pair: The two sets of predictions.
        resamples: How many exchanges are drawn.
        seed: Seeds the draws.
    """
    sample = sample_of(np.arange(len(rows))[:, None], rows.groups)
    truth = np.tile(rows.truth[sample.first], 2)
    scores = [rows.scores[run][sample.first] for run in pair]
    value = _ranked(metric, truth, scores) if metric in OF_RANKS else _calibrated(truth, scores)
    return _exchanged_p(value, sample, 1, resamples, seed)


def _ranked(metric: str, truth: np.ndarray, scores: list[np.ndarray]) -> Statistic:
    """Return an area or average precision, the mean over classes, as a function of weights `[2n, R]`."""
    present = np.unique(truth).tolist()
    # of two classes one area serves both, as in the metric itself; average precisions differ
    once = metric == "roc_auc_ovr" and scores[0].shape[1] == 2
    sweeps = []
    for c in present[:1] if once else present:
        ranks = [rankdata(margin(own, np.full(len(own), c))) for own in scores]
        sweeps.append(RankSweep(np.concatenate(ranks), truth == c))
    place = OF_RANKS.index(metric)
    return lambda weights: np.mean([sweep.both(weights)[place] for sweep in sweeps], axis=0)


def _calibrated(truth: np.ndarray, scores: list[np.ndarray]) -> Statistic:
    return CalibrationSweep(truth, np.concatenate(scores), Binning()).errors


def _exchanged_p(
    value: Statistic, sample: Sample, classes: int, resamples: int, seed: int | list[int]
) -> float:
    """Return the p value of a metric of cells that stand twice, with the first model's answers and the second's."""

    def gap(kept: np.ndarray) -> np.ndarray:
        gone = sample.counts[:, None] - kept
        first, second = (value(np.concatenate(parts)) for parts in ((kept, gone), (gone, kept)))
        return np.abs(first - second)

    seen = gap(sample.counts[:, None].astype(np.float64))[0] - ROUNDING
    as_far = sum(int((gap(kept) >= seen).sum()) for kept in _kept(sample, resamples, classes, seed))
    return (as_far + 1) / (resamples + 1)


def flip_p(rows: Aligned, metric: str, pair: tuple[Run, Run], *, resamples: int, seed: int) -> float:
    """Return the same of a mean loss: exchanging a row's losses turns the sign of their difference.

    Args:
        rows: Predictions side by side.
        metric: One of :data:`OF_LOSSES`.
        pair: The two sets of predictions.
        resamples: How many exchanges are drawn.
        seed: Seeds the draws.
    """
    one, other = (_losses(rows.truth, rows.scores[run], metric) for run in pair)
    return float(sign_flip_p(one - other, rows.groups, resamples, seed))


def _losses(truth: np.ndarray, scores: np.ndarray, metric: str) -> np.ndarray:
    """Return `[n]`, each row's part of a mean loss, up to a factor that all rows share."""
    if metric == BRIER:
        squares = (special.softmax(scores, axis=1) - np.eye(scores.shape[1])[truth]) ** 2
        return np.asarray(squares.sum(axis=1))
    return np.asarray(special.logsumexp(scores, axis=1) - scores[np.arange(len(truth)), truth])


def _kept(sample: Sample, resamples: int, classes: int, seed: int | list[int]) -> Iterator[np.ndarray]:
    """Yield `[U, r]` numbers of rows in each cell that keep their answers, r exchanges at a time."""
    generator = np.random.default_rng(seed)
    step = max(1, min(resamples, CHUNK // max(2 * len(sample.counts), classes**2)))
    place = None if sample.groups is None else np.unique(sample.groups, return_inverse=True)[1]
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if place is None:
            yield generator.binomial(sample.counts[:, None], 0.5, (len(sample.counts), size)).astype(
                np.float64
            )
        else:
            stays = generator.integers(0, 2, (sample.units, size))
            yield (stays[place] * sample.counts[:, None]).astype(np.float64)
