"""The area under the ROC curve of many resamples at once, from one sort."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 1 << 22  # numbers of resampling weights held at once (16 MB)


def resample_rows(n: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield `[n, R]` counts of how often each row is drawn, R resamples at a time.

    The counts are float32, in which whole numbers up to 16 million are exact.

    Args:
        n: How many rows there are, and are drawn.
        resamples: How many resamples are drawn altogether.
        generator: What draws them.
    """
    if n == 0:
        return
    step = max(1, min(resamples, CHUNK // n))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, n, (n, size)) * size + np.arange(size)
        yield np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size).astype(np.float32)


class AUCSweep:
    """The area under the ROC curve as a function of the rows' weights.

    The area is the share of pairs of a positive and a negative row in which the positive one scores higher,
    ties counting half (Mann and Whitney). After one sort, neighbours of one kind count as one: the better the
    scores, the fewer are left.

    Args:
        scores: `[n]`, higher for what is thought positive.
        positive: `[n]`, true for positive rows; at least one of either kind.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = np.lexsort((positive, scores))  # among ties the negative rows come first
        ordered, kind = scores[self.order], positive[self.order]
        new_score = np.r_[True, ordered[1:] != ordered[:-1]]
        new_kind = np.r_[True, kind[1:] != kind[:-1]]
        # Another kind at the same score: the first positive row behind the negative ones of a tie.
        tied = new_kind & ~new_score
        group = np.cumsum(new_score)
        mixed = np.isin(group, group[tied])
        # Rows of a mixed tie are not pooled with their neighbours, which do not tie with them.
        starts = new_kind | (new_score & (mixed | np.r_[False, mixed[:-1]]))
        self.starts = np.flatnonzero(starts)
        self.positive = kind[starts]
        self.tied = np.flatnonzero(tied[starts])

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Return the areas, `[R]`, for weights `[n, R]`; NaN for a column that leaves none of a kind."""
        runs = np.add.reduceat(weights[self.order], self.starts, axis=0)
        tie = (runs[self.tied] * runs[self.tied - 1]).sum(axis=0, dtype=np.float64)
        positive = runs[self.positive]
        runs[self.positive] = 0
        lower = np.cumsum(runs, axis=0)  # how many negative rows score no higher
        above = (positive * lower[self.positive]).sum(axis=0, dtype=np.float64)
        pairs = positive.sum(axis=0, dtype=np.float64) * lower[-1]
        return np.divide(above - tie / 2, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
