"""Intervals that are made from streams: the ratio of two rates, and means over groups of texts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats

from tunescope.stats.intervals import Interval, score_ends

GROUPS = 1024


def rate_ratio(hits: int, n: int, other_hits: int, other_n: int, level: float = 0.95) -> Interval:
    """Return the ratio of two independent shares with its interval on the logarithmic scale.

    Half a hit and half a row are added to each side (Walter 1975), so that it is finite where a share is 0:
    `log r +- z sqrt(1/(a + 1/2) - 1/(n + 1/2) + 1/(b + 1/2) - 1/(m + 1/2))`.

    Args:
        hits: Rows of the first kind that have it, a.
        n: Rows of the first kind.
        other_hits: Rows of the second kind that have it, b.
        other_n: Rows of the second kind, m.
        level: Coverage.

    Returns:
        The ratio, above 1 where the first kind has it more often; undefined where one kind has no rows.

    Raises:
        ValueError: More hits than rows.
    """
    if not (0 <= hits <= n and 0 <= other_hits <= other_n):
        raise ValueError(f"expected hits up to the rows, found {hits} of {n} and {other_hits} of {other_n}")
    if n == 0 or other_n == 0:
        return Interval(None, None, None, n, "log ratio", "one side has no rows")
    a, b, rows, others = hits + 0.5, other_hits + 0.5, n + 0.5, other_n + 0.5
    center = math.log(a / rows) - math.log(b / others)
    half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(1 / a - 1 / rows + 1 / b - 1 / others)
    return Interval(math.exp(center), math.exp(center - half), math.exp(center + half), n, "log ratio")


class GroupedMean:
    """The mean of a stream whose rows come in groups; mergeable, of fixed size.

    Texts fall into 1,024 groups by their content, so that copies of one text always share a group and count as one
    witness; the variance is that of a ratio of group sums, with Student's t of the groups that have rows.
    """

    def __init__(self) -> None:
        self.sums = np.zeros(GROUPS)
        self.counts = np.zeros(GROUPS, dtype=np.int64)

    @staticmethod
    def groups_of(texts: Sequence[str]) -> np.ndarray:
        """Return the group of each text, the same on every machine."""
        return np.array([zlib.crc32(text.encode()) % GROUPS for text in texts], dtype=np.int64)

    @property
    def n(self) -> int:
        """Rows so far."""
        return int(self.counts.sum())

    def update(self, values: np.ndarray, groups: np.ndarray) -> None:
        """Add values [n] of the rows of these groups [n]."""
        np.add.at(self.sums, groups, values)
        np.add.at(self.counts, groups, 1)

    def merge(self, other: GroupedMean) -> None:
        """Add what another has seen."""
        self.sums += other.sums
        self.counts += other.counts

    def interval(self, share: bool = False, level: float = 0.95) -> Interval:
        """Return the mean with its interval: of a share Wilson's, of as many rows as the groups are worth.

        Undefined below two groups.
        """
        n, used = self.n, self.counts > 0
        groups = int(used.sum())
        method = "wilson by groups" if share else "grouped t"
        if n == 0:
            return Interval(None, None, None, 0, method, "no rows")
        mean = float(self.sums.sum() / n)
        if groups < 2:
            return Interval(mean, None, None, n, method, "all rows share one group of texts")
        off = self.sums[used] - mean * self.counts[used]
        variance = groups / (groups - 1) * float(off @ off) / n**2
        if share:
            plain = mean * (1 - mean) / n
            worth = n / max(1.0, variance / plain) if plain > 0 else float(groups)
            low, high = score_ends(mean, worth, NormalDist().inv_cdf(0.5 + level / 2))
            return Interval(mean, low, high, n, method)
        half = float(stats.t.ppf(0.5 + level / 2, groups - 1)) * math.sqrt(variance)
        return Interval(mean, mean - half, mean + half, n, method)
