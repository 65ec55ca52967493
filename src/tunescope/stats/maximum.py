"""The largest of many test statistics under permutation: one correction for a whole sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64
from tunescope.stats.intervals import CHUNK, group_sums


def max_t_p(values: Any, groups: Any | None = None, permutations: int = 9999, seed: int = 0) -> np.ndarray:
    """Return p values of mean paired effects, adjusted for K tests by the permutation distribution of max |t|.

    All columns see the same sign flips of rows (clusters), so that their correlation is kept; the adjusted p of a
    column is the share of flips whose largest |t| over all columns reaches the column's own: `(k + 1) / (m + 1)`.
    It bounds the chance of any false call (Westfall and Young 1993), and is less strict than Bonferroni where
    columns are correlated. A column that is 0 throughout has p = 1.

    Args:
        values: `[n, K]` differences.
        groups: `[n]` cluster of each row; the rows of a cluster flip together.
        permutations: m.
        seed: Seeds the flips.

    Returns:
        `[K]`; NaN where there are no rows.

    Raises:
        LensError: A value is NaN or infinite.
    """
    table = as_float64(values)
    if table.ndim != 2:
        raise ValueError(f"expected [n, K] values, found {table.shape}")
    if not np.isfinite(table).all():
        raise LensError(f"Permutation test: {int((~np.isfinite(table)).sum())} values are NaN or infinite.")
    sums, _ = group_sums(table, groups)
    if len(sums) == 0 or table.shape[1] == 0:
        return np.full(table.shape[1], np.nan)
    squares = np.square(sums).sum(axis=0)  # flipping signs does not change them
    scale = np.where(squares > 0, squares, 1.0)
    # t grows with |sum| / sqrt(squares) alone, so that ratio orders the flips as t does.
    seen = np.abs(sums.sum(axis=0)) / np.sqrt(scale) * (1 - 1e-12)
    generator = np.random.default_rng(seed)
    reached = np.zeros(table.shape[1], dtype=np.int64)
    step = max(1, CHUNK // len(sums))
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        signs = 1.0 - 2.0 * generator.integers(0, 2, (size, len(sums)), dtype=np.int8)
        largest = (np.abs(signs @ sums) / np.sqrt(scale)).max(axis=1)  # [size]
        reached += (largest[:, None] >= seen).sum(axis=0)
    return np.where(squares > 0, (reached + 1) / (permutations + 1), 1.0)
