"""The area under the ROC curve and the average precision of many resamples at once, from one sort."""

from __future__ import annotations

import numpy as np


class RankSweep:
    """The area under the ROC curve and the average precision as functions of the rows' weights.

    The area is the share of pairs of a positive and a negative row in which the positive one scores higher,
    ties counting half (Mann and Whitney). The average precision is scikit-learn's: the mean over positive
    rows of the precision at the row's score, without interpolation. Both depend on the negative rows only
    through how many score below and at each distinct score of a positive row, so that one sort and one pass
    over the sorted weights serve both.

    Args:
        scores: `[n]`, higher for what is thought positive.
        positive: `[n]`, true for positive rows; at least one of either kind.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        kind = positive[order]
        self._positive, self._negative = order[kind], order[~kind]
        distinct, self._starts = np.unique(scores[self._positive], return_index=True)
        negative = scores[self._negative]
        left, right = (np.searchsorted(negative, distinct, side) for side in ("left", "right"))
        # Negative rows between two bounds are always counted together; reduceat takes no empty last piece.
        bounds = np.unique(np.concatenate([[0], left, right]))
        self._bounds = bounds[bounds < len(negative)]
        self._left, self._right = (np.searchsorted(bounds, side) for side in (left, right))
        self._pieces = len(bounds)

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Return the areas, `[R]`, for weights `[n, R]`; NaN for a column that leaves none of a kind."""
        return self.both(weights)[0]

    def precisions(self, weights: np.ndarray) -> np.ndarray:
        """Return the average precisions, `[R]`; NaN for a column that leaves no positive row."""
        return self.both(weights)[1]

    def both(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the areas and the average precisions, `[R]` each."""
        positive = np.add.reduceat(weights[self._positive], self._starts, axis=0)  # [K, R]
        pieces = np.add.reduceat(weights[self._negative], self._bounds, axis=0)
        below = np.zeros((len(self._bounds) + 1, weights.shape[1]), dtype=weights.dtype)
        np.cumsum(pieces, axis=0, out=below[1:])
        negatives = below[-1].astype(np.float64)
        lower, upto = below[self._left], below[self._right]
        positives = positive.sum(axis=0, dtype=np.float64)
        won = (positive * (lower + upto)).sum(axis=0, dtype=np.float64) / 2
        pairs = positives * negatives
        area = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        hits = np.cumsum(positive[::-1], axis=0)[::-1]  # positive rows that score at least this
        found = hits + (below[-1] - lower)
        precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
        total = (positive * precision).sum(axis=0, dtype=np.float64)
        average = np.divide(total, positives, out=np.full(len(pairs), np.nan), where=positives > 0)
        return area, average
