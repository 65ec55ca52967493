"""Predictions of several models on the same rows, and any metric of them on shared resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import special

from tunescope.config.problems import unknown
from tunescope.errors import DataError
from tunescope.evaluation.confusion import ConfusionSweep
from tunescope.evaluation.margins import margin
from tunescope.evaluation.ranks import RankSweep
from tunescope.evaluation.sweep import BRIER, CALIBRATION, MetricSweep, confusion_values
from tunescope.stats.paired import Draws, Sample, Statistic, sample_of, shared_bootstrap

OF_CONFUSION = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "f1_weighted",
    "precision_macro",
    "precision_weighted",
    "recall_macro",
    "recall_weighted",
    "matthews_corrcoef",
)
OF_SCORES = ("roc_auc_ovr", "average_precision_macro", "log_loss", BRIER, CALIBRATION)
METRICS = (*OF_CONFUSION, *OF_SCORES)
LOWER_IS_BETTER = ("log_loss", BRIER, CALIBRATION)


class Run(NamedTuple):
    """One set of predictions: of an arm trained with a seed, or of a baseline, which has none."""

    arm: str
    seed: int | None


@dataclass(frozen=True)
class Aligned:
    """Predictions of several runs on the same labelled rows of one split.

    Attributes:
        names: The labels' names.
        truth: `[n]` class indices.
        scores: `[n, C]` logits per run.
        groups: `[n]` group of each row where rows are not independent, or None.
    """

    names: tuple[str, ...]
    truth: np.ndarray
    scores: dict[Run, np.ndarray]
    groups: np.ndarray | None = None
    predictions: dict[Run, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        guesses = {run: scores.argmax(axis=1) for run, scores in self.scores.items()}
        object.__setattr__(self, "predictions", guesses)

    def __len__(self) -> int:
        return len(self.truth)

    def draws(self, metric: str, resamples: int, seed: int | list[int]) -> Draws:
        """Return a metric of every run on the rows and on shared resamples of them; keys are runs."""
        runs = list(self.scores)
        if metric in OF_CONFUSION:
            columns = np.column_stack([self.truth, *(self.predictions[run] for run in runs)])
            sample = sample_of(columns, self.groups)
            statistics = {run: self._of_confusion(run, metric, sample) for run in runs}
        else:
            sample = sample_of(np.arange(len(self))[:, None], self.groups)
            statistics = {run: self._of_scores(run, metric, sample) for run in runs}
        return shared_bootstrap(statistics, sample, resamples=resamples, seed=seed)

    def _of_confusion(self, run: Run, metric: str, sample: Sample) -> Statistic:
        truth, guesses = self.truth[sample.first], self.predictions[run][sample.first]
        sweep = ConfusionSweep(truth, guesses, len(self.names))
        return lambda weights: confusion_values(sweep.counts(weights))[metric, None]

    def _of_scores(self, run: Run, metric: str, sample: Sample) -> Statistic:
        truth, scores = self.truth[sample.first], self.scores[run][sample.first]
        if metric == "roc_auc_ovr":
            return _areas(truth, scores)
        if metric == "log_loss":
            losses = special.logsumexp(scores, axis=1) - scores[np.arange(len(truth)), truth]
            return lambda weights: losses @ weights / weights.sum(axis=0)
        sweep = MetricSweep(truth, scores)

        def statistic(weights: np.ndarray) -> np.ndarray:
            undefined = np.full(weights.shape[1], np.nan)  # an average precision needs two classes
            return sweep.values(weights).get((metric, None), undefined)

        return statistic


def _areas(truth: np.ndarray, scores: np.ndarray) -> Statistic:
    """Return the mean one-vs-rest area as a function of weights; of two classes one area serves both."""
    present = np.unique(truth).tolist()
    swept = [] if len(present) < 2 else (present[:1] if scores.shape[1] == 2 else present)
    sweeps = [RankSweep(margin(scores, np.full(len(truth), c)), truth == c) for c in swept]

    def statistic(weights: np.ndarray) -> np.ndarray:
        counts = weights.astype(np.float32)  # whole numbers, exact up to 16 million
        if not sweeps:
            return np.full(weights.shape[1], np.nan)
        areas = np.array([sweep.areas(counts) for sweep in sweeps])
        known = np.isfinite(areas).sum(axis=0)
        total: np.ndarray = np.nansum(areas, axis=0)
        return np.where(known > 0, total / np.maximum(known, 1), np.nan)

    return statistic


def align(
    predictions: Mapping[tuple[str, int | None], pl.DataFrame],
    label_names: Sequence[str],
    split: str,
    groups: Mapping[str, Any] | None = None,
) -> Aligned:
    """Put predictions of several runs on the same labelled rows of a split side by side, by row id.

    Args:
        predictions: Tables as in ``predictions.parquet`` by arm and seed; a baseline's seed is None.
        label_names: The labels' names, in class order.
        split: The split that is compared.
        groups: The group of each row id, where rows are not independent.

    Raises:
        DataError: A run has other rows or labels than the first, a row twice, or none; or rows have no group.
    """
    if not predictions:
        raise DataError("A comparison needs predictions of at least one arm; there are none.")
    reference: pl.DataFrame | None = None
    scores: dict[Run, np.ndarray] = {}
    columns = [f"logit_{name}" for name in label_names]
    for (arm, seed), frame in predictions.items():
        run = Run(arm, seed)
        own = frame.filter((pl.col("split") == split) & pl.col("label").is_not_null()).sort("row_id")
        reference = own if reference is None else reference
        _check_same(own, reference, run, next(iter(predictions)), split)
        missing = [name for name in columns if name not in own.columns]
        if missing:
            raise DataError(f"The predictions of {_named(run)} lack the column {missing[0]!r}.")
        scores[run] = own.select(columns).to_numpy().astype(np.float64)
        if not np.isfinite(scores[run]).all():
            raise DataError(f"The predictions of {_named(run)} hold logits that are NaN or infinite.")
    assert reference is not None
    truth = reference["label"].to_numpy().astype(np.int64)
    return Aligned(tuple(label_names), truth, scores, _groups_of(reference["row_id"], groups))


def _check_same(own: pl.DataFrame, reference: pl.DataFrame, run: Run, first: Any, split: str) -> None:
    if own.is_empty():
        raise DataError(
            f"{_named(run)} has no labelled {split} rows, so nothing can be compared on them.",
            hint="Choose another split with compare.split.",
        )
    if own["row_id"].is_duplicated().any():
        again = own.filter(pl.col("row_id").is_duplicated())["row_id"][0]
        raise DataError(f"{_named(run)} predicts the row {again!r} more than once.")
    if own is reference:
        return
    if not own["row_id"].equals(reference["row_id"], check_names=False):
        other = set(own["row_id"]) ^ set(reference["row_id"])
        raise DataError(
            f"{_named(run)} and {_named(Run(*first))} do not predict the same {split} rows: {len(other)} "
            f"rows are in one of the two only, first {min(other)!r}.",
            hint="Paired comparison needs the same rows for all arms; evaluate them on one data set.",
        )
    if not own["label"].equals(reference["label"], check_names=False):
        raise DataError(
            f"{_named(run)} and {_named(Run(*first))} do not have the same labels for {split} rows."
        )


def _groups_of(row_ids: pl.Series, groups: Mapping[str, Any] | None) -> np.ndarray | None:
    if groups is None:
        return None
    lost = [row for row in row_ids if row not in groups]
    if lost:
        raise DataError(f"{len(lost)} of {len(row_ids)} rows have no group, first {lost[0]!r}.")
    return np.unique([str(groups[row]) for row in row_ids], return_inverse=True)[1]


def _named(run: Run) -> str:
    return run.arm if run.seed is None else f"{run.arm} (seed {run.seed})"


def check_metric(metric: str) -> None:
    """Refuse a metric that arms cannot be compared by.

    Raises:
        DataError: The name is not one of :data:`METRICS`; the message has the nearest.
    """
    if metric not in METRICS:
        raise DataError(f"compare.metric: {unknown('metric', metric, METRICS)}")
