"""Intervals on a scale where an estimate's distribution is nearer to a bell than on its own."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import special

from tunescope.stats.intervals import ALL_EQUAL, Interval

Scale = Literal["logit", "log"]


def scaled_interval(
    value: float, draws: np.ndarray, n: int, method: str, scale: Scale, freedom: float
) -> Interval:
    """Return the interval of an estimate from its bootstrap standard error, on the logit or log scale.

    `g(value) ± t * g'(value) * se`, carried back by the inverse of g (delta method). Resampled areas under
    a curve near 1 and losses near 0 are skewed, so that their percentiles cover too seldom (``docs/coverage.md``);
    on these scales they are nearly normal (Pepe 2003, section 5.2), and the ends stay in the metric's range.

    Args:
        value: The estimate: between 0 and 1 for "logit", above 0 for "log".
        draws: `[R]` resampled values; those that are not finite are left out and counted in the note.
        n: How many rows the estimate is made of.
        method: How the draws were made, in words.
        scale: "logit" for numbers between 0 and 1, "log" for positive ones.
        freedom: Degrees of freedom of Student's t: one less than the rows that the estimate hangs on; at least
            1 is taken.
    """
    kept = draws[np.isfinite(draws)]
    lost = len(draws) - len(kept)
    method = f"{method}, standard error on the {scale} scale"
    if len(kept) < max(2, len(draws) / 2):
        why = f"undefined interval: the metric was undefined in {lost} of {len(draws)} resamples"
        return Interval(value, None, None, n, method, why)
    note = f"undefined in {lost} of {len(draws)} resamples, which were left out" if lost else None
    spread = float(kept.std(ddof=1))
    if value <= 0 or (scale == "logit" and value >= 1) or spread == 0:
        equal = ALL_EQUAL.replace("values", "resamples")
        return Interval(value, value, value, n, method, f"{note}; {equal}" if note else equal)
    reach = float(special.stdtrit(max(freedom, 1.0), 0.975)) * spread
    if scale == "logit":
        middle, reach = float(special.logit(value)), reach / (value * (1 - value))
        low, high = float(special.expit(middle - reach)), float(special.expit(middle + reach))
    else:
        reach = min(reach / value, 700.0)  # beyond this the exponential overflows
        low, high = value * float(np.exp(-reach)), value * float(np.exp(reach))
    return Interval(value, low, high, n, method, note)
