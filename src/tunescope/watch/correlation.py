"""Do internal curves go with the validation metric? Rank correlations over the steps of a watched training."""

from __future__ import annotations

import polars as pl

from tunescope.lenses.over_steps.correlation import curves_with, every_curve
from tunescope.watch.records import Watched


def correlations(watched: Watched, metric: str = "eval_loss", seed: int = 0) -> pl.DataFrame:
    """Return Spearman's correlation of every internal curve with a logged metric over the steps, with its interval.

    See :func:`tunescope.lenses.over_steps.correlation.curves_with`.

    Args:
        watched: A training as it was watched.
        metric: A number that the training logged at steps at which lenses looked, such as ``eval_accuracy``.
        seed: Seeds the resamples.

    Raises:
        RunError: The log does not hold the metric at six steps at which lenses looked; it says what it holds.
    """
    return curves_with(watched.table, watched.log, metric, seed)


def every_correlation(watched: Watched, seed: int = 0) -> pl.DataFrame:
    """Return the correlations with every metric that was evaluated at enough steps, as rows of a result."""
    return every_curve(watched.table, watched.log, seed)
