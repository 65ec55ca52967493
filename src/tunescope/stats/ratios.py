"""Ratios of sums over paired rows: one bootstrap for numerators and denominators together."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64
from tunescope.stats.intervals import (
    ALL_EQUAL,
    CHUNK,
    FEW,
    NO_ROWS,
    ONE_GROUP,
    ONE_ROW,
    Intervals,
    group_sums,
)

ZERO_SUM = "undefined: the denominators sum to 0"
UNSURE = "undefined interval: the denominators' sum is not clear of 0 over resamples"


def bootstrap_ratios(
    numerators: Any,
    denominators: Any,
    groups: Any | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Return sum(numerator) / sum(denominator) of every column, with a percentile bootstrap interval.

    Rows (or whole groups) are drawn with replacement; each resample's numerators and denominators are of the same
    rows, as a ratio of two dependent sums needs (Efron and Tibshirani 1993, chapter 10). All columns are on the same
    resamples.

    Args:
        numerators: ``[n, K]``.
        denominators: ``[n]`` for all columns alike, or ``[n, K]``.
        groups: ``[n]`` cluster of each row; whole clusters are drawn.
        level: The coverage of the intervals.
        resamples: How many resamples are drawn.
        seed: Seeds the resamples.

    Returns:
        K intervals. Where the denominators sum to 0 the ratio is undefined; where their sum changes its sign within
        the middle ``level`` of the resamples, the ratio has no interval, and the note says so.

    Raises:
        LensError: A number is NaN or infinite.
    """
    tops, bottoms, n = _sums(numerators, denominators, groups)
    width = tops.shape[1]
    name = f"percentile bootstrap of a ratio of sums, {resamples} resamples"
    name += "" if groups is None else f" of {len(tops)} groups"
    total = bottoms.sum(axis=0)
    value = np.divide(tops.sum(axis=0), total, out=np.full(width, np.nan), where=total != 0)
    if n == 0 or len(tops) < 2:
        blank = np.full(width, np.nan)
        note = NO_ROWS if n == 0 else (ONE_ROW if n == 1 else ONE_GROUP)
        return Intervals(value, blank, blank, n, name, (note,) * width)
    draws, signs = _drawn(tops, bottoms, resamples, seed)
    tails = [(1 - level) / 2, (1 + level) / 2]
    known = np.isfinite(draws)
    # A column without any ratio gives no ends; 0 stands in so that no warning is raised, and is taken out below.
    draws = np.where(known, draws, np.where(known.any(axis=0), np.nan, 0.0))
    low, high = np.nanquantile(draws, tails, axis=0)
    clear = (signs > 0).mean(axis=0) >= tails[1]
    exact = np.ptp(np.where(np.isfinite(draws), draws, value), axis=0) == 0
    low, high = (np.where(clear & (total != 0), end, np.nan) for end in (low, high))
    few = f"only {len(tops)} {'rows' if groups is None else 'groups'}: the interval is likely too narrow"
    notes = tuple(
        ZERO_SUM if total[k] == 0 else UNSURE if not clear[k] else ALL_EQUAL if exact[k] else
        few if len(tops) < FEW else None
        for k in range(width)
    )  # fmt: skip
    return Intervals(value, low, high, n, name, notes)


def bootstrap_ratio_differences(
    first: tuple[Any, Any],
    second: tuple[Any, Any],
    groups: Any | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Return the first ratio of sums minus the second of every column, both of the same rows, paired.

    Each resample draws rows (or whole groups) once for both ratios, so what the rows have in common cancels.

    Args:
        first: Numerators and denominators, as in :func:`bootstrap_ratios`.
        second: The same of what is subtracted, on the same n rows.
        groups: ``[n]`` cluster of each row; whole clusters are drawn.
        level: The coverage of the intervals.
        resamples: How many resamples are drawn.
        seed: Seeds the resamples.

    Returns:
        K intervals; undefined where either ratio is, with the note of that ratio.

    Raises:
        LensError: A number is NaN or infinite.
    """
    one, other = (
        bootstrap_ratios(*ratio, groups, level=level, resamples=resamples, seed=seed) for ratio in (first, second)
    )  # fmt: skip
    width = len(one.value)
    notes = [a or b for a, b in zip(one.notes, other.notes, strict=True)]
    low = high = np.full(width, np.nan)
    if np.isfinite(one.low).any():
        draws = np.zeros((resamples, width))
        for sign, ratio in ((1, first), (-1, second)):
            tops, bottoms, _ = _sums(*ratio, groups)
            draws += sign * _drawn(tops, bottoms, resamples, seed)[0]  # the same rows in every resample
        known = np.isfinite(one.low) & np.isfinite(other.low)
        draws = np.where(known & ~np.isnan(draws).all(axis=0), draws, 0.0)
        ends = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        low, high = (np.where(known, end, np.nan) for end in ends)
    name = one.method.replace("a ratio of sums", "a difference of two ratios of sums")
    return Intervals(one.value - other.value, low, high, one.n, name, tuple(notes))


def _sums(numerators: Any, denominators: Any, groups: Any | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Return numerators and denominators summed by group, [units, K] both, and the number of rows."""
    above, below = as_float64(numerators), as_float64(denominators)
    if above.ndim != 2 or len(above) != len(below):
        raise ValueError(
            f"expected [n, K] numerators and n denominators, found {above.shape} and {below.shape}"
        )
    below = np.broadcast_to(below[:, None], above.shape) if below.ndim == 1 else below
    bad = int((~np.isfinite(above)).sum() + (~np.isfinite(below)).sum())
    if bad:
        raise LensError(f"Bootstrap of a ratio: {bad} numbers are NaN or infinite.")
    return group_sums(above, groups)[0], group_sums(below, groups)[0], len(above)


def _drawn(tops: np.ndarray, bottoms: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``[R, K]`` ratios of resampled groups; 1 where a denominator has the sign of the whole, else -1, 0."""
    generator = np.random.default_rng(seed)
    units, width = tops.shape
    draws, signs = np.empty((resamples, width)), np.empty((resamples, width))
    step = max(1, CHUNK // units)
    whole = np.sign(bottoms.sum(axis=0))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        down = weights @ bottoms
        ratio = np.divide(weights @ tops, down, out=np.full_like(down, np.nan), where=down != 0)
        draws[start : start + size] = ratio
        signs[start : start + size] = np.sign(down) * whole
    return draws, signs
