"""Intervals: Wilson for shares, bootstrap for means and metrics, jackknife for what is dear to recompute.

Every function is deterministic in its seed. What cannot be known is None with a note, never NaN without a
word: one row has a mean but no interval; equal values give a zero width, and the note says that this is no
certainty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy import special

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64

CHUNK = 1 << 22  # numbers of resampling weights held at once (32 MB)
FEW = 10
ALL_EQUAL = "zero width: all values are equal, which is no proof of certainty"
NO_ROWS = "undefined: no rows"
ONE_ROW = "undefined interval: it needs at least 2 rows"
ONE_GROUP = "undefined interval: it needs at least 2 groups"


@dataclass(frozen=True)
class Interval:
    """A number and how well it is known.

    Attributes:
        value: The estimate; None where undefined.
        low: The lower end; None where undefined.
        high: The upper end; None where undefined.
        n: How many rows it is made of.
        method: How it was made, in words.
        note: What the reader must know, first of all why something is undefined.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    note: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the interval as a mapping, to be merged into the record of a result."""
        return {name: getattr(self, name) for name in ("value", "low", "high", "n", "method", "note")}


@dataclass(frozen=True)
class Intervals:
    """K numbers from the same rows, and how well each is known; indexing gives an :class:`Interval`.

    Attributes:
        value: `[K]`; NaN where undefined.
        low: `[K]`; NaN where undefined.
        high: `[K]`; NaN where undefined.
        n: How many rows they are made of.
        method: How they were made, in words.
        notes: `[K]`, None or what the reader must know.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: int
    method: str
    notes: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, column: int) -> Interval:
        numbers = (float(x[column]) for x in (self.value, self.low, self.high))
        value, low, high = (x if np.isfinite(x) else None for x in numbers)
        return Interval(value, low, high, self.n, self.method, self.notes[column])

    def __iter__(self) -> Iterator[Interval]:
        return (self[column] for column in range(len(self)))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the share of successes with Wilson's score interval (1927).

    It keeps its coverage for few rows and for shares near 0 and 1, where the textbook interval does not.

    Raises:
        ValueError: Successes are not between 0 and n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 to {n} successes, found {successes}")
    if n == 0:
        return Interval(None, None, None, 0, "wilson", NO_ROWS)
    share = successes / n
    low, high = score_ends(share, n, NormalDist().inv_cdf(0.5 + level / 2))
    return Interval(share, low, high, int(n), "wilson")


def score_ends(share: float, n: float, z: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval for a share of n rows, which need not be a whole number."""
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return 0.0 if share == 0 else center - half, 1.0 if share == 1 else center + half


def bootstrap_mean(
    values: Any,
    groups: Any | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: str = "percentile",
) -> Interval:
    """Return the mean of `[n]` values with a bootstrap interval; see :func:`bootstrap_means`."""
    column = as_float64(values)
    if column.ndim != 1:
        raise ValueError(f"expected [n] values, found {column.shape}; bootstrap_means takes columns")
    options: dict[str, Any] = {"level": level, "resamples": resamples, "seed": seed, "method": method}
    return bootstrap_means(column[:, None], groups, **options)[0]


def paired_bootstrap(before: Any, after: Any, groups: Any | None = None, **options: Any) -> Interval:
    """Return the mean of `after - before`, row by row, with a bootstrap interval.

    Args:
        before: `[n]` values.
        after: `[n]` values of the same rows in the same order.
        groups: `[n]` cluster of each row; see :func:`bootstrap_means`.
        options: ``level``, ``resamples``, ``seed``, ``method`` of :func:`bootstrap_mean`.
    """
    first, second = as_float64(before), as_float64(after)
    if first.shape != second.shape:
        raise ValueError(f"paired values need equal shapes, found {first.shape} and {second.shape}")
    return bootstrap_mean(second - first, groups, **options)


def bootstrap_means(
    values: Any,
    groups: Any | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: str = "percentile",
) -> Intervals:
    """Return the mean of every column with a bootstrap interval, all columns on the same resamples.

    Args:
        values: `[n, K]`, one row per example.
        groups: `[n]` cluster of each row (texts that repeat, two versions of one sentence); whole clusters
            are resampled, and the mean stays that of rows.
        level: The coverage of the intervals.
        resamples: How many resamples are drawn.
        seed: Seeds the resamples.
        method: "percentile", or "bca" (bias-corrected and accelerated, Efron 1987).

    Raises:
        LensError: A value is NaN or infinite.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"expected percentile or bca, found {method!r}")
    table = as_float64(values)
    if table.ndim != 2:
        raise ValueError(f"expected [n, K] values, found {table.shape}")
    if not np.isfinite(table).all():
        bad = int((~np.isfinite(table)).sum())
        raise LensError(f"Bootstrap: {bad} of {table.size} values are NaN or infinite.")
    n, width = table.shape
    sums, sizes = group_sums(table, groups)
    name = f"{method} bootstrap of the mean, {resamples} resamples"
    name += "" if groups is None else f" of {len(sizes)} groups"
    if n == 0 or len(sizes) < 2:
        blank = np.full(width, np.nan)
        note = NO_ROWS if n == 0 else (ONE_ROW if n == 1 else ONE_GROUP)
        return Intervals(table.mean(axis=0) if n else blank, blank, blank, n, name, (note,) * width)
    equal = np.ptp(table, axis=0) == 0
    value = np.where(equal, table[0], sums.sum(axis=0) / n)
    means = _resampled_means(sums, sizes, resamples, seed)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])[:, None].repeat(width, axis=1)
    if method == "bca":
        tails = _bca_tails(tails, means, value, sums, sizes)
    low, high = np.where(equal, value, _quantiles(means, tails))
    few = f"only {len(sizes)} {'rows' if groups is None else 'groups'}: the interval is likely too narrow"
    notes = tuple(ALL_EQUAL if same else (few if len(sizes) < FEW else None) for same in equal.tolist())
    return Intervals(value, low, high, n, name, notes)


def group_sums(table: np.ndarray, groups: Any | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of rows in each group, `[G, K]`, and the groups' sizes, `[G]`; rows where no groups are.

    Raises:
        ValueError: There is not one group per row.
    """
    if groups is None:
        return table, np.ones(len(table))
    names = groups.detach().cpu().numpy() if hasattr(groups, "detach") else np.asarray(groups)
    if names.shape != (len(table),):
        raise ValueError(f"expected one group for each of {len(table)} rows, found {names.shape}")
    unique, index = np.unique(names, return_inverse=True)
    sums = np.zeros((len(unique), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, np.bincount(index, minlength=len(unique)).astype(np.float64)


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return `[resamples, K]` means of resampled groups."""
    generator = np.random.default_rng(seed)
    units = len(sizes)
    step = max(1, CHUNK // units)
    means = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        means[start : start + size] = (weights @ sums) / (weights @ sizes)[:, None]
    return means


def _quantiles(draws: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Return the quantiles of each column at its own levels; `tails` is `[2, K]`, linear between draws."""
    ordered = np.sort(draws, axis=0)
    place = tails * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    column = np.arange(draws.shape[1])
    return ordered[below, column] + (place - below) * (ordered[above, column] - ordered[below, column])


def _bca_tails(
    tails: np.ndarray, means: np.ndarray, value: np.ndarray, sums: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return the levels of the percentile interval corrected for bias and acceleration (Efron 1987)."""
    smaller = ((means < value).mean(axis=0) + (means <= value).mean(axis=0)) / 2
    bias = special.ndtri(np.clip(smaller, 0.5 / len(means), 1 - 0.5 / len(means)))
    without = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)[:, None]
    distance = without.mean(axis=0) - without
    spread = (distance**2).sum(axis=0)
    acceleration = np.divide(
        (distance**3).sum(axis=0), 6 * spread**1.5, out=np.zeros_like(spread), where=spread > 0
    )
    z = bias + special.ndtri(tails)
    return special.ndtr(bias + z / (1 - acceleration * z))


def stratified_bootstrap(
    metric: Callable[..., float],
    arrays: Sequence[Any],
    strata: Any,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return a metric of rows with a percentile interval; rows are resampled within their stratum.

    This takes the number of rows per stratum as given by the design. Where it is a matter of chance and the
    metric depends on it, as precision and F1 do on the classes' shares, the interval is too narrow.

    Args:
        metric: Takes the arrays and returns a number; NaN says that it is undefined for these rows.
        arrays: Arrays with one row per example, indexed together.
        strata: `[n]` stratum of each row, usually the true label, so that no resample loses a class.
        level: The coverage of the interval.
        resamples: How many resamples are drawn.
        seed: Seeds the resamples.
    """
    rows = [np.asarray(array) for array in arrays]
    names = np.asarray(strata)
    n = len(names)
    if any(len(array) != n for array in rows):
        raise ValueError(f"expected {n} rows in every array, found {[len(array) for array in rows]}")
    method = f"stratified bootstrap, {resamples} resamples"
    if n == 0:
        return Interval(None, None, None, 0, method, NO_ROWS)
    value = float(metric(*rows))
    if not np.isfinite(value):
        return Interval(None, None, None, n, method, "undefined for these rows")
    if n == 1:
        return Interval(value, None, None, n, method, ONE_ROW)
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    draws = np.empty(resamples)
    for draw in range(resamples):
        index = np.concatenate([m[generator.integers(0, len(m), len(m))] for m in members])
        draws[draw] = metric(*(array[index] for array in rows))
    return percentile_interval(value, draws, n, method, level)


def percentile_interval(
    value: float, draws: np.ndarray, n: int, method: str, level: float = 0.95
) -> Interval:
    """Return the interval between the percentiles of resampled values.

    Args:
        value: The estimate.
        draws: `[R]` resampled values; those that are not finite are left out and counted in the note.
        n: How many rows the estimate is made of.
        method: How the draws were made, in words.
        level: The coverage of the interval.
    """
    note: str | None = None
    kept = draws[np.isfinite(draws)]
    if len(kept) < len(draws) / 2 or len(kept) < 2:
        lost = len(draws) - len(kept)
        note = f"undefined interval: the metric was undefined in {lost} of {len(draws)} resamples"
        return Interval(value, None, None, n, method, note)
    # Weibull's positions: of R draws the k-th is the k / (R + 1) quantile, so that the tails are not cut short.
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], method="weibull").tolist()
    if low == high:
        note = ALL_EQUAL.replace("values", "resamples")
    if len(kept) < len(draws):
        some = f"undefined in {len(draws) - len(kept)} of {len(draws)} resamples, which were left out"
        note = some if note is None else f"{some}; {note}"
    return Interval(value, low, high, n, method, note)


def jackknife(
    value: np.ndarray, replicates: np.ndarray, sizes: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the delete-a-group jackknife interval, for groups of unequal size.

    Busing, Meijer and van der Leeden (1999); with equal sizes it is the textbook jackknife. The interval is
    symmetric, with Student's t of G - 1 degrees of freedom.

    Args:
        value: `[...]`, estimates from all rows.
        replicates: `[G, ...]`, estimates without the rows of a group.
        sizes: `[G]`, rows in each group.
        level: The coverage of the interval.

    Raises:
        ValueError: Fewer than 2 groups.
    """
    groups = len(sizes)
    if groups < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, found {groups}")
    shape = (-1,) + (1,) * (replicates.ndim - 1)
    ratio = (sizes.sum() / sizes).reshape(shape)
    # All in differences from the estimate, so that replicates equal to it give a width of exactly zero.
    change = replicates - value
    center = ((1 - 1 / ratio) * change).sum(axis=0)
    variance = ((center - (ratio - 1) * change) ** 2 / (ratio - 1)).mean(axis=0)
    half = special.stdtrit(groups - 1, 0.5 + level / 2) * np.sqrt(variance)
    return value - half, value + half
