"""Standard errors of means whose pairs are grouped in several ways at once, as by template and by name."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from tunescope.stats.intervals import group_sums

SEVERAL = 40  # fewer groups than this: percentiles of resampled groups are too narrow, Student's t is taken


def crossed_error(values: np.ndarray, clusters: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the standard error of each column's mean and the degrees of freedom of Student's t.

    With several groupings the variances of all groupings are added, those of the intersections of two taken away, of
    three added, and so on (Cameron, Gelbach and Miller 2011), so that pairs that share a template or a name count as
    dependent; the sum is at least the largest of the single groupings, since it can come out below it by chance. Each
    variance is that of a ratio, ``G / (G - 1) * sum_g (sum_i (y_i - mean)) ** 2 / n ** 2``; the degrees of freedom are
    one less than the fewest groups.

    Args:
        values: `[n, K]`, n at least 1.
        clusters: By name, the group `[n]` of each pair.

    Returns:
        `[K]` standard errors, NaN where a grouping has one group; and the degrees of freedom, at least 0.
    """
    columns = [np.unique(groups, return_inverse=True)[1] for groups in clusters.values()]
    single = [_variance(values, groups) for groups in columns]
    total = np.sum(single, axis=0)
    for size in range(2, len(columns) + 1):
        for chosen in combinations(columns, size):
            both = np.unique(np.stack(chosen), axis=1, return_inverse=True)[1].reshape(-1)
            total = total + (-1) ** (size + 1) * _variance(values, both)
    freedom = min(int(groups.max()) for groups in columns)
    return np.sqrt(np.maximum(total, np.max(single, axis=0))), float(freedom)


def _variance(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the variance of each column's mean over one grouping; NaN with one group."""
    sums, _ = group_sums(values - values.mean(axis=0), groups)
    units = len(sums)
    if units < 2:
        return np.full(values.shape[1], np.nan)
    spread: np.ndarray = (sums**2).sum(axis=0) / len(values) ** 2 * units / (units - 1)
    return spread
