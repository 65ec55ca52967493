"""The interval of a share whose rows come in groups."""

from __future__ import annotations

from typing import Any

from scipy import special

from tunescope.stats.arrays import as_float64
from tunescope.stats.intervals import FEW, NO_ROWS, ONE_GROUP, Interval, group_sums, score_ends


def wilson_clustered(hits: Any, groups: Any, level: float = 0.95) -> Interval:
    """Return the share of hits among rows that come in groups, with a cluster-robust Wilson interval.

    Rows of a group are not independent, so that n rows tell as much as fewer. With the variance of the share
    between groups (linearised ratio, `G / (G - 1) * sum_g (sum_i (y_i - p)) ** 2 / n ** 2`) over that of
    independent rows, `p (1 - p) / n`, as the design effect, Wilson's interval is that of `n / design effect`
    rows, with Student's t of G - 1 degrees of freedom in place of the normal quantile (Korn and Graubard
    1998; Franco et al. 2019). The effective number is at most n; where all rows are alike it cannot be known
    and the number of groups is taken.

    Args:
        hits: `[n]` true where a row counts as a success.
        groups: `[n]` group of each row.
        level: The coverage of the interval.

    Raises:
        ValueError: There is not one group per row.
    """
    right = as_float64(hits)
    sums, sizes = group_sums(right[:, None], groups)
    n, units = len(right), len(sizes)
    if n == 0:
        return Interval(None, None, None, 0, "wilson", NO_ROWS)
    share = float(right.mean())
    if units < 2:
        return Interval(share, None, None, n, "wilson, cluster-robust", ONE_GROUP)
    independent = share * (1 - share) / n
    between = float((((sums[:, 0] - share * sizes) / n) ** 2).sum()) * units / (units - 1)
    effective = float(units) if independent == 0 else n / max(between / independent, 1.0)
    low, high = score_ends(share, effective, float(special.stdtrit(units - 1, 0.5 + level / 2)))
    method = f"wilson, cluster-robust: {units} groups, {effective:.0f} effective rows"
    few = f"only {units} groups: the interval is likely too narrow" if units < FEW else None
    return Interval(share, low, high, n, method, few)
