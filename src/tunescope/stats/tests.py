"""Tests: what chance alone would do, and what many tests together would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64
from tunescope.stats.intervals import CHUNK, group_sums


def benjamini_hochberg(p: Any) -> np.ndarray:
    """Return q values, the smallest false discovery rate at which each test would be called (1995).

    Args:
        p: p values of any shape; NaN marks a test that was not made. It stays NaN and does not count.

    Raises:
        ValueError: A p value is not between 0 and 1.
    """

    def step_up(rising: np.ndarray) -> np.ndarray:
        scaled = rising * len(rising) / np.arange(1, len(rising) + 1)
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjusted(p, step_up)


def holm(p: Any) -> np.ndarray:
    """Return p values adjusted so that the chance of any false call is bounded (Holm 1979).

    The step-down of Bonferroni: sorted p values times the number of tests that are left, never decreasing.

    Args:
        p: p values of any shape; NaN marks a test that was not made. It stays NaN and does not count.

    Raises:
        ValueError: A p value is not between 0 and 1.
    """
    return _adjusted(p, lambda rising: np.maximum.accumulate(rising * np.arange(len(rising), 0, -1)))


def _adjusted(p: Any, step: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Adjust the p values that were made, handed to ``step`` in rising order; none becomes more than 1."""
    values = as_float64(p)
    flat = values.ravel()
    made = ~np.isnan(flat)
    known = flat[made]
    if ((known < 0) | (known > 1)).any():
        raise ValueError("expected p values from 0 to 1")
    order = np.argsort(known, kind="stable")
    adjusted = np.full(flat.shape, np.nan)
    adjusted[np.flatnonzero(made)[order]] = np.minimum(step(known[order]), 1.0)
    return adjusted.reshape(values.shape)


CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}


def sign_flip_p(
    values: Any, groups: Any | None = None, permutations: int = 9999, seed: int = 0
) -> np.ndarray:
    """Return the two-sided p value of a mean paired effect against 0, by flipping signs of rows.

    Under "no effect" a paired difference is as likely to have either sign. With m drawn flips, k of which
    reach the mean that was seen, p is `(k + 1) / (m + 1)`; where all flips are few enough, they are all taken
    and p is exact. p cannot be smaller than `2 ** (1 - n)`.

    Args:
        values: `[n]` or `[n, K]` differences; all columns see the same flips.
        groups: `[n]` cluster of each row; the rows of a cluster flip together.
        permutations: m, the most flips that are taken.
        seed: Seeds the flips.

    Returns:
        A scalar array, or `[K]`. NaN (a test not made) where there are no rows.

    Raises:
        LensError: A value is NaN or infinite.
    """
    table = as_float64(values)
    columns = table[:, None] if table.ndim == 1 else table
    if columns.ndim != 2:
        raise ValueError(f"expected [n] or [n, K] values, found {table.shape}")
    if not np.isfinite(columns).all():
        raise LensError(f"Permutation test: {int((~np.isfinite(columns)).sum())} values are NaN or infinite.")
    sums, _ = group_sums(columns, groups)
    if len(sums) == 0:
        return np.full(columns.shape[1:] if table.ndim == 2 else (), np.nan)
    # Sums that are equal in exact arithmetic must count as reached.
    seen = np.abs(sums.sum(axis=0)) - 1e-12 * np.abs(sums).sum(axis=0)
    units = len(sums)
    exact = units - 1 < 63 and 2 ** (units - 1) <= permutations
    total = 2 ** (units - 1) if exact else permutations
    generator = np.random.default_rng(seed)
    reached = np.zeros(columns.shape[1], dtype=np.int64)
    step = max(1, CHUNK // units)
    for start in range(0, total, step):
        size = min(step, total - start)
        if (
            exact
        ):  # the sign of the last unit is left out: with it all sums change sign, which changes nothing
            negative = (np.arange(start, start + size)[:, None] >> np.arange(units)) & 1
        else:
            negative = generator.integers(0, 2, (size, units), dtype=np.int8)
        signs = 1.0 - 2.0 * negative
        reached += (np.abs(signs @ sums) >= seen).sum(axis=0)
    p = reached / total if exact else (reached + 1) / (total + 1)
    return p[0] if table.ndim == 1 else p


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p value of McNemar's test for two classifiers on the same rows.

    Args:
        only_first: Rows that only the first classifier got right.
        only_second: Rows that only the second got right.

    Raises:
        ValueError: A count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"expected counts of at least 0, found {only_first} and {only_second}")
    n = only_first + only_second
    return float(min(1.0, 2 * special.bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0


def mcnemar_range(correct_first: int, correct_second: int, n: int) -> tuple[float, float]:
    """Return the least and the largest exact McNemar p that two published counts of right rows allow.

    Published accuracies do not say on which rows two classifiers differ. If k rows are right for the one with
    fewer right rows alone, then k and the gap are right for the other alone; k runs from 0 (or from what the
    number of rows forces) to what both counts allow, and p grows with k.

    Args:
        correct_first: Rows that the first got right.
        correct_second: Rows that the second got right.
        n: Rows, the same for both.

    Raises:
        ValueError: A count is not between 0 and n.
    """
    fewer, more = sorted((correct_first, correct_second))
    if not 0 <= fewer <= more <= n:
        raise ValueError(f"expected counts from 0 to {n}, found {correct_first} and {correct_second}")
    most = min(fewer, n - more)  # rows that only the one with fewer right rows gets right
    all_p = [mcnemar_exact(more - fewer + k, k) for k in range(most + 1)]
    return min(all_p), max(all_p)
