"""Representational similarity analysis: do two sites put the same pairs of rows far apart?

Kriegeskorte, Mur and Bandettini 2008 (Frontiers in Systems Neuroscience 2:4). Each site gives one dissimilarity for
every pair of rows; two sites are compared by Spearman's rank correlation of these. No rotation is fitted and widths
may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64, as_floats
from tunescope.stats.kernels import MINIMUM_ROWS, NOISE, Estimate

Distance = Literal["cosine", "correlation", "whitened"]
STRIP = 256  # rows whose distances are held as a rectangle at once
METHOD = "Spearman over pairs of rows"


@dataclass(frozen=True)
class Dissimilarity:
    """The distances of every pair of n rows at one site.

    Attributes:
        pairs: `[n (n - 1) / 2]` in the order of ``scipy.spatial.distance.pdist``; empty where undefined.
        rows: n.
        undefined: None, or why there are none.
    """

    pairs: np.ndarray
    rows: int
    undefined: str | None = None


def dissimilarity(features: Any, distance: Distance) -> Dissimilarity:
    """Return the distance of every pair of rows.

    ``cosine`` is one minus the cosine, ``correlation`` the same after each row's mean over its dimensions was taken
    out, ``whitened`` the Mahalanobis distance under the rows' covariance, shrunk as Ledoit and Wolf (2004) do so that
    it has an inverse with fewer rows than dimensions.

    Args:
        features: `[n, D]`, torch or numpy, n at least 4.
        distance: Which.

    Returns:
        Values from 0 up (cosine and correlation to 2); a reason in their place where rows do not differ or, for the
        first two, where a row has no direction.

    Raises:
        LensError: There are fewer than 4 rows, or a number is NaN or infinite.
        ValueError: There is no such distance, or the features are no `[n, D]`.
    """
    given = as_floats(features)
    epsilon = float(np.finfo(given.dtype).eps)
    values = as_float64(given)
    if values.ndim != 2:
        raise ValueError(f"expected [n, D] features, found {values.shape}")
    if distance not in ("cosine", "correlation", "whitened"):
        raise ValueError(f"expected cosine, correlation or whitened, found {distance!r}")
    rows = len(values)
    if rows < MINIMUM_ROWS:
        raise LensError(f"RSA needs at least {MINIMUM_ROWS} rows; there are {rows}.")
    if not np.isfinite(values).all():
        raise LensError(f"RSA: {int((~np.isfinite(values)).sum())} of the features are NaN or infinite.")
    size = float(np.abs(values).max())
    if float(np.abs(values - values[0]).max()) <= NOISE * epsilon * size:
        return Dissimilarity(np.empty(0), rows, "every row has the same features, so no pair differs")
    if distance == "whitened":
        return Dissimilarity(_pairwise(whitened(values)), rows)
    if distance == "correlation":
        values = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1)
    if (norms <= NOISE * epsilon * size).any():
        lost = int(np.flatnonzero(norms <= NOISE * epsilon * size)[0])
        return Dissimilarity(np.empty(0), rows, f"row {lost} has no direction (its features are all equal)")
    return Dissimilarity(_pairwise(values / norms[:, None]) ** 2 / 2, rows)


def whitened(values: np.ndarray) -> np.ndarray:
    """Return centred rows `[n, D]` in coordinates in which their shrunk covariance is the identity."""
    centred = values - values.mean(axis=0)
    rows, width = centred.shape
    covariance = centred.T @ centred / rows
    mean = np.trace(covariance) / width
    squares = float(np.vdot(covariance, covariance))
    distance = squares - width * mean**2  # of the covariance from a multiple of the identity
    error = float(((centred**2).sum(axis=1) ** 2).sum()) / rows**2 - squares / rows
    share = 1.0 if distance <= 0 else min(max(error, 0.0) / distance, 1.0)
    shrunk = (1 - share) * covariance
    shrunk[np.diag_indices(width)] += share * mean
    # A share of 0 (many rows, or one loud dimension) may leave a direction without variance.
    shrunk[np.diag_indices(width)] += np.finfo(np.float64).eps * width * mean
    factor = scipy.linalg.cholesky(shrunk, lower=True)
    return np.asarray(scipy.linalg.solve_triangular(factor, centred.T, lower=True).T)


def _pairwise(values: np.ndarray) -> np.ndarray:
    """Return Euclidean distances of every pair, strip by strip; what rounding leaves of equal rows is 0."""
    rows = len(values)
    squares = (values**2).sum(axis=1)
    noise = NOISE * np.finfo(np.float64).eps
    parts = []
    for start in range(0, rows, STRIP):
        stop = min(start + STRIP, rows)
        both = squares[start:stop, None] + squares[None, start:]
        gap = both - 2 * (values[start:stop] @ values[start:].T)
        gap[gap <= noise * both] = 0.0
        parts.append(np.sqrt(gap)[np.triu_indices(stop - start, 1, rows - start)])
    return np.concatenate(parts)


def rsa(first: Any, second: Any, distance: Distance = "correlation") -> Estimate:
    """Return RSA of two representations of the same rows, Spearman's correlation of their pairwise distances.

    Args:
        first: `[n, D]` features.
        second: `[n, E]` features of the same rows in the same order.
        distance: ``cosine``, ``correlation`` or ``whitened``.

    Returns:
        A value from -1 to 1, 1 where the pairs are ranked alike, or NaN with the reason.

    Raises:
        LensError: Fewer than 4 rows, or numbers that are not finite.
        ValueError: The row counts differ.
    """
    if len(first) != len(second):
        raise ValueError(f"expected the same rows at both sites, found {len(first)} and {len(second)}")
    made = RankedPairs([dissimilarity(first, distance), dissimilarity(second, distance)])
    reason = next((why for why in made.undefined if why), None)
    return Estimate(float("nan"), reason) if reason else Estimate(float(made.correlations()[0, 1]))


@dataclass(frozen=True)
class Nulls:
    """What resampling says about RSA of every pair of S sites.

    Attributes:
        low: `[S, S]`, lower ends of the bootstrap intervals.
        high: `[S, S]`, upper ends.
        control: `[S, S]`, the mean over permutations: what unrelated rows give.
        p: `[S, S]`, one-sided, that unrelated rows reach the value that was seen.
    """

    low: np.ndarray
    high: np.ndarray
    control: np.ndarray
    p: np.ndarray


class RankedPairs:
    """The ranks of the pairwise distances of S sites over the same n rows.

    Args:
        sites: One dissimilarity a site.

    Attributes:
        rows: n.
        undefined: Per site None, or why it cannot be compared.

    Raises:
        ValueError: The sites differ in their number of rows.
    """

    def __init__(self, sites: Sequence[Dissimilarity]) -> None:
        counts = {site.rows for site in sites}
        if len(counts) != 1:
            raise ValueError(f"expected the same rows at every site, found {sorted(counts)}")
        self.rows = counts.pop()
        pairs = self.rows * (self.rows - 1) // 2
        self.groups = np.zeros((len(sites), pairs), dtype=np.int32)  # equal distances share a number
        reasons: list[str | None] = []
        for index, site in enumerate(sites):
            if site.undefined is None:
                self.groups[index] = np.unique(site.pairs, return_inverse=True)[1]
            flat = site.undefined is None and self.groups[index].max(initial=0) == 0
            reasons.append("every pair of rows is equally far apart" if flat else site.undefined)
        self.undefined = tuple(reasons)

    def _scores(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return mid-ranks `[S, pairs]`, centred and of norm 1, so that products are correlations.

        With weights (how often a pair is counted) ranks, mean and norm are those of the repeated pairs.
        """
        kept = slice(None) if weights is None else np.flatnonzero(weights)
        size = np.ones(self.groups.shape[1]) if weights is None else weights[kept]
        root, total = np.sqrt(size), size.sum()
        scores = np.full((len(self.groups), len(size)), np.nan)
        for index, groups in enumerate(self.groups[:, kept]):
            if self.undefined[index]:
                continue
            counts = np.bincount(groups, weights=size)
            rank = (np.cumsum(counts) - counts / 2)[groups] - total / 2  # mid-ranks have this mean
            norm = np.sqrt(size @ rank**2)
            if norm > 0:
                scores[index] = rank * root / norm
        return scores

    def correlations(self) -> np.ndarray:
        """Return Spearman's correlation of every pair of sites, `[S, S]`; NaN where a site is undefined."""
        scores = self._scores()
        return _same_is_one(np.clip(scores @ scores.T, -1, 1))

    def resampled(
        self, resamples: int = 200, permutations: int = 199, seed: int = 0, level: float = 0.95
    ) -> Nulls:
        """Return bootstrap intervals over rows and the null of permuted rows.

        The bootstrap draws rows, not pairs, for the pairs of one row hang together. A row that was drawn twice makes
        a pair of a row with itself; its distance of 0 is no evidence that two sites agree, so such pairs are left
        out, and the others count as often as both their rows were drawn. Ranks are taken anew in every resample.

        The null permutes the rows of the second site (Mantel 1967), and with them all pairs at once.

        Args:
            resamples: How many bootstrap samples.
            permutations: How many permutations; p is at least ``1 / (permutations + 1)``.
            seed: Seeds both.
            level: The coverage of the intervals.
        """
        generator = np.random.default_rng(seed)
        upper = np.triu_indices(self.rows, 1)
        count = len(self.groups)
        draws = np.empty((resamples, count, count))
        for draw in range(resamples):
            times = np.bincount(generator.integers(0, self.rows, self.rows), minlength=self.rows)
            scores = self._scores((times[upper[0]] * times[upper[1]]).astype(np.float64))
            draws[draw] = scores @ scores.T
        scores = self._scores()
        seen = np.clip(scores @ scores.T, -1, 1)
        square = np.zeros((count, self.rows, self.rows))
        square[:, upper[0], upper[1]] = square[:, upper[1], upper[0]] = scores
        flat = square.reshape(count, -1)
        total, reached = np.zeros((count, count)), np.zeros((count, count))
        for _ in range(permutations):
            order = generator.permutation(self.rows)
            null = scores @ flat[:, order[upper[0]] * self.rows + order[upper[1]]].T
            total += null
            reached += null >= seen - 1e-12
        bad = np.isnan(seen)
        low, high = _ends(draws, bad, level)
        control = np.where(bad | (permutations == 0), np.nan, total / max(permutations, 1))
        p = np.where(bad | (permutations == 0), np.nan, (reached + 1) / (permutations + 1))
        return Nulls(low, high, control, p)


def _ends(draws: np.ndarray, bad: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return percentiles of resampled values `[R, S, S]`, at Weibull's positions as everywhere in this package."""
    ends = np.full((2, *bad.shape), np.nan)
    enough = ~bad & (np.isfinite(draws).sum(axis=0) >= max(2, len(draws) / 2))
    if enough.any():
        tails = [(1 - level) / 2, (1 + level) / 2]
        ends[:, enough] = np.nanquantile(draws[:, enough], tails, axis=0, method="weibull")
    return _same_is_one(np.clip(ends[0], -1, 1)), _same_is_one(np.clip(ends[1], -1, 1))


def _same_is_one(values: np.ndarray) -> np.ndarray:
    """Return correlations with those that differ from 1 by rounding alone set to 1."""
    return np.where(np.abs(values - 1) < 1e-12, 1.0, values)
