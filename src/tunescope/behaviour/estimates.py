"""Means and shares of pairs that are not independent: intervals, tests and equivalence over groups of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunescope.stats.clustered import wilson_clustered
from tunescope.stats.equivalence import equivalent_draws
from tunescope.stats.intervals import ALL_EQUAL, FEW, NO_ROWS, ONE_GROUP, Interval, group_sums
from tunescope.stats.tests import sign_flip_p

Clusters = Mapping[str, np.ndarray]
CHUNK = 1 << 22
CANCELS = "zero width: the changes of every group of pairs cancel, as both directions of one pair do"


@dataclass(frozen=True)
class Settings:
    """How means are judged.

    Attributes:
        bound: The mean change of margin that would not matter.
        resamples: Bootstrap resamples.
        seed: Seeds them.
        permutations: Sign flips of the test.
        level: Coverage of intervals.
    """

    bound: float = 0.1
    resamples: int = 2000
    seed: int = 0
    permutations: int = 4999
    level: float = 0.95


@dataclass(frozen=True)
class MeanChange:
    """The mean of a column over pairs, and what is known of it.

    Attributes:
        interval: Mean with bootstrap interval over groups; of several ways to group, the widest.
        p: Against a mean of 0, by flipping the signs of groups; of several groupings the largest. None if not made.
        equivalent_p: Of two one-sided tests against the bound; None where the draws do not vary or none were asked.
        groups: How many groups the interval is made of.
    """

    interval: Interval
    p: float | None
    equivalent_p: float | None
    groups: int

    @property
    def is_constant(self) -> bool:
        """Whether every pair has the same value, so that nothing varies."""
        return bool(self.interval.note and self.interval.note.startswith(ALL_EQUAL[:10]))

    @property
    def cancels(self) -> bool:
        """Whether the values vary and every group's own mean is the same, so that the mean tells nothing."""
        return self.interval.note == CANCELS


def mean_changes(
    values: np.ndarray, clusters: Clusters, settings: Settings, test: bool = True
) -> list[MeanChange]:
    """Return the mean of every column of `[n, K]` values over pairs, with interval, test and equivalence.

    Pairs that share a text, a template or a name are not independent. For every way in which pairs are grouped, whole
    groups are resampled (percentile bootstrap) and the signs of whole groups are flipped (against a mean of 0); the
    widest interval and the largest p are kept, so that no grouping makes the evidence look better than another.

    Args:
        values: `[n, K]`.
        clusters: By name, the group `[n]` of each pair.
        settings: Bound, resamples, seed.
        test: Whether to test at all (sign flips, equivalence).
    """
    n, width = values.shape
    if n == 0:
        return [MeanChange(Interval(None, None, None, 0, "bootstrap", NO_ROWS), None, None, 0)] * width
    best: list[MeanChange | None] = [None] * width
    for name, groups in clusters.items():
        draws, units = _draws(values, groups, settings)
        p = np.atleast_1d(sign_flip_p(values, groups, settings.permutations, settings.seed)) if test else None
        for column in range(width):
            found = _judged(
                values[:, column], None if draws is None else draws[:, column], name, units, settings
            )
            own = None if p is None or np.isnan(p[column]) else float(p[column])
            found = MeanChange(found.interval, own, found.equivalent_p if test else None, units)
            before = best[column]
            best[column] = found if before is None else _weaker(before, found)
    return [one for one in best if one is not None]


def _draws(values: np.ndarray, groups: np.ndarray, settings: Settings) -> tuple[np.ndarray | None, int]:
    """Return `[R, K]` means over resampled groups, and the number of groups."""
    sums, sizes = group_sums(values, groups)
    units = len(sizes)
    if units < 2:
        return None, units
    generator = np.random.default_rng(settings.seed)
    step = max(1, CHUNK // units)
    parts = []
    for start in range(0, settings.resamples, step):
        size = min(step, settings.resamples - start)
        drawn = generator.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        parts.append((weights @ sums) / (weights @ sizes)[:, None])
    return np.concatenate(parts), units


def _judged(
    column: np.ndarray, draws: np.ndarray | None, by: str, units: int, settings: Settings
) -> MeanChange:
    n, value = len(column), float(column.mean())
    method = f"percentile bootstrap of the mean, {settings.resamples} resamples of {units} groups by {by}"
    if draws is None:
        return MeanChange(Interval(value, None, None, n, method, ONE_GROUP), None, None, units)
    if np.ptp(column) == 0:
        same = float(column[0])
        return MeanChange(Interval(same, same, same, n, method, ALL_EQUAL), None, None, units)
    if np.ptp(draws) <= 1e-12 * np.abs(column).max():
        return MeanChange(Interval(value, value, value, n, method, CANCELS), None, None, units)
    tail = (1 - settings.level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]).tolist()
    note = f"only {units} groups by {by}: the interval is likely too narrow" if units < FEW else None
    equivalent = equivalent_draws(draws, settings.bound).p
    return MeanChange(Interval(value, low, high, n, method, note), None, equivalent, units)


def _weaker(first: MeanChange, second: MeanChange) -> MeanChange:
    """Return the wider of two intervals, with the larger of both p values."""

    def width(one: MeanChange) -> float:
        ends = one.interval
        return np.inf if ends.low is None or ends.high is None else ends.high - ends.low

    def larger(one: float | None, other: float | None) -> float | None:
        known = [value for value in (one, other) if value is not None]
        return max(known) if known else None

    kept = first if width(first) >= width(second) else second
    return MeanChange(
        kept.interval, larger(first.p, second.p), larger(first.equivalent_p, second.equivalent_p), kept.groups
    )


def share(hits: np.ndarray, clusters: Clusters, level: float = 0.95) -> Interval:
    """Return the share of hits with a cluster-robust Wilson interval; of several ways to group, the widest."""
    found = [wilson_clustered(hits, groups, level) for groups in clusters.values()]
    return max(found, key=lambda one: np.inf if one.low is None or one.high is None else one.high - one.low)


def take(clusters: Clusters, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Return the groups of the pairs that are kept."""
    return {name: groups[kept] for name, groups in clusters.items()}
