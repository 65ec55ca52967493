"""Paired comparison: two classifiers on the same rows, and many metrics on the same resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from scipy import optimize, special

from tunescope.stats.arrays import as_integers
from tunescope.stats.intervals import ALL_EQUAL, CHUNK, NO_ROWS, Interval

Tail = Literal["less", "greater", "two-sided"]
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """How two classifiers that saw the same rows agree with the labels.

    Attributes:
        both: Rows that both got right.
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        neither: Rows that neither got right.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        """All rows."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def discordant(self) -> int:
        """Rows that exactly one got right; only these can tell the two apart."""
        return self.only_first + self.only_second


def agreement(labels: Any, first: Any, second: Any) -> Agreement:
    """Count how two classifiers' predictions `[n]` agree with the labels `[n]`.

    Raises:
        ValueError: The three differ in length.
    """
    truth, one, other = (as_integers(values) for values in (labels, first, second))
    if not truth.shape == one.shape == other.shape:
        raise ValueError(f"expected equal lengths, found {truth.shape}, {one.shape} and {other.shape}")
    a, b = one == truth, other == truth
    counts = [int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)]
    return Agreement(*counts)


def tango(only_first: int, only_second: int, n: int, level: float = 0.95) -> Interval:
    """Return the difference of two shares on the same rows, with Tango's score interval (1998).

    It is what Wilson's interval is for one share: the differences that the score test does not reject. It keeps
    its coverage where few rows or none are discordant, and agrees with McNemar's test (without continuity
    correction) on whether 0 is inside.

    Args:
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        n: Rows.
        level: The coverage of the interval.

    Raises:
        ValueError: The counts are negative, or together above n.
    """
    _require_counts(only_first, only_second, n)
    method = "Tango's score interval of a paired difference"
    if n == 0:
        return Interval(None, None, None, 0, method, NO_ROWS)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    value = (only_first - only_second) / n

    def above(margin: float) -> float:
        return float(_tango_z(only_first, only_second, n, margin)) - z

    def below(margin: float) -> float:
        return float(_tango_z(only_first, only_second, n, margin)) + z

    edge = 1 - 1e-12
    low = -1.0 if above(-edge) <= 0 else optimize.brentq(above, -edge, value, xtol=1e-12)
    high = 1.0 if below(edge) >= 0 else optimize.brentq(below, value, edge, xtol=1e-12)
    return Interval(value, float(low), float(high), n, method)


def tango_p(only_first: int, only_second: int, n: int, margin: float, tail: Tail = "two-sided") -> float:
    """Return the p value of Tango's score test that the difference of two paired shares is ``margin``.

    Args:
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        n: Rows, 1 or more.
        margin: The difference under test, between -1 and 1.
        tail: "less" where a smaller difference speaks against it, "greater" for a larger one.

    Raises:
        ValueError: The counts or the margin do not fit.
    """
    _require_counts(only_first, only_second, n)
    if not -1 < margin < 1:
        raise ValueError(f"expected a margin between -1 and 1, found {margin}")
    z = float(_tango_z(only_first, only_second, n, margin))
    if tail == "two-sided":
        return float(2 * special.ndtr(-abs(z)))
    return float(special.ndtr(z if tail == "less" else -z))


def _tango_z(only_first: int, only_second: int, n: int, margin: float) -> float:
    """Return the score statistic: the distance from ``margin`` in standard errors at the constrained maximum."""
    b, c = float(only_first), float(only_second)
    distance = b - c - n * margin
    if distance == 0:
        return 0.0
    # The share of rows that only the second gets right, of greatest likelihood where the difference is margin.
    linear = (2 * n - b + c) * margin - b - c
    constant = -c * margin * (1 - margin)
    share = (np.sqrt(linear * linear - 8 * n * constant) - linear) / (4 * n)
    variance = n * (2 * share + margin * (1 - margin))
    return float(np.sign(distance) * np.inf) if variance <= 0 else float(distance / np.sqrt(variance))


def _require_counts(only_first: int, only_second: int, n: int) -> None:
    if min(only_first, only_second) < 0 or only_first + only_second > n:
        raise ValueError(
            f"expected counts from 0, together at most {n}; found {only_first} and {only_second}"
        )


@dataclass(frozen=True)
class Sample:
    """What is resampled: rows, reduced to cells that no statistic tells apart.

    Attributes:
        first: `[U]`, the position of one row of each cell.
        counts: `[U]`, how many rows each cell holds.
        groups: `[U]`, the group of the cell's rows; None where rows are drawn one by one.
    """

    first: np.ndarray
    counts: np.ndarray
    groups: np.ndarray | None

    @property
    def units(self) -> int:
        """How many rows, or groups, are drawn."""
        return int(self.counts.sum()) if self.groups is None else len(np.unique(self.groups))


def sample_of(columns: np.ndarray, groups: Any | None = None) -> Sample:
    """Reduce rows to cells: rows that are equal in every column, and in their group, are one cell.

    The bootstrap of cells is the bootstrap of rows: what a resample holds of each cell is multinomial.

    Args:
        columns: `[n, K]` whole numbers, such as the label and every classifier's prediction; where every row
            must stay by itself, the row's number.
        groups: `[n]` cluster of each row; whole clusters are drawn.
    """
    table = columns
    if groups is not None:
        _, inverse = np.unique(np.asarray(groups), return_inverse=True)
        table = np.column_stack([columns, inverse])
    _, first, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return Sample(first, counts, None if groups is None else table[first, -1])


def cell_weights(sample: Sample, resamples: int, seed: int | list[int]) -> Iterator[np.ndarray]:
    """Yield `[U, r]` numbers of rows that each resample holds of each cell, r resamples at a time.

    Args:
        sample: The cells.
        resamples: How many resamples are drawn altogether.
        seed: Seeds the draws.
    """
    generator = np.random.default_rng(seed)
    units, cells = sample.units, len(sample.counts)
    if units == 0:
        return
    step = max(1, min(resamples, CHUNK // max(cells, 1 if sample.groups is None else units)))
    place = None if sample.groups is None else np.unique(sample.groups, return_inverse=True)[1]
    # Dealing rows to cells one by one is cheaper than a binomial per cell where there are nearly as many cells.
    many = place is None and cells * 4 > units
    owner = np.repeat(np.arange(cells), sample.counts) if many else np.zeros(0, dtype=np.int64)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if place is not None:
            drawn = _counted(generator.integers(0, units, (size, units)), units)
            yield drawn[place] * sample.counts[:, None]
        elif many:
            yield _counted(owner[generator.integers(0, units, (size, units))], cells)
        else:
            yield generator.multinomial(units, sample.counts / units, size=size).T.astype(np.float64)


def _counted(drawn: np.ndarray, kinds: int) -> np.ndarray:
    """Return `[kinds, r]` counts of what each of r rows of draws `[r, m]` holds."""
    size = len(drawn)
    flat = (drawn + np.arange(size)[:, None] * kinds).ravel()
    return np.bincount(flat, minlength=size * kinds).reshape(size, kinds).T.astype(np.float64)


@dataclass(frozen=True)
class Draws:
    """Statistics of one sample, and of the same resamples of it.

    Attributes:
        value: One number per statistic.
        drawn: `[R]` per statistic; the r-th of all statistics come from the same resample.
        units: How many rows, or groups, were drawn for each.
    """

    value: dict[Any, float]
    drawn: dict[Any, np.ndarray]
    units: int


def shared_bootstrap(
    statistics: Mapping[Any, Statistic], sample: Sample, *, resamples: int = 2000, seed: int | list[int] = 0
) -> Draws:
    """Compute statistics on one sample and on shared resamples, so that differences of them are paired.

    Args:
        statistics: From weights of cells `[U, r]` to values `[r]`; NaN where undefined.
        sample: The cells.
        resamples: How many resamples are drawn.
        seed: Seeds the resamples.
    """
    whole = sample.counts.astype(np.float64)[:, None]
    value = {key: float(statistic(whole)[0]) for key, statistic in statistics.items()}
    parts: dict[Any, list[np.ndarray]] = {key: [] for key in statistics}
    for weights in cell_weights(sample, resamples, seed):
        for key, statistic in statistics.items():
            parts[key].append(statistic(weights))
    drawn = {key: np.concatenate(part) if part else np.zeros(0) for key, part in parts.items()}
    return Draws(value, drawn, sample.units)


def bootstrap_p(draws: np.ndarray, at: float = 0.0) -> float | None:
    """Return the two-sided p value of "the true value is ``at``", by inverting the percentile interval.

    Twice the smaller share of draws on one side, ``2 * (k + 1) / (R + 1)``; None where the draws do not vary.
    """
    kept = draws[np.isfinite(draws)]
    if len(kept) < 2 or np.ptp(kept) == 0:
        return None
    tail = min(int((kept <= at).sum()), int((kept >= at).sum()))
    return float(min(1.0, 2 * (tail + 1) / (len(kept) + 1)))


def is_constant(interval: Interval) -> bool:
    """Whether an interval has no width because nothing varied."""
    return bool(interval.note and interval.note.startswith(ALL_EQUAL.split(":")[0]))
