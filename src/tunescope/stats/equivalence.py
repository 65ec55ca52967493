"""Equivalence: not "no difference was seen" but "a difference that matters is ruled out" (TOST).

Two one-sided tests (Schuirmann 1987) at level alpha: both "the difference is below -margin" and "above
+margin" must be rejected. The same as: the interval of coverage 1 - 2 alpha lies inside the margins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunescope.stats.paired import tango_p


@dataclass(frozen=True)
class Equivalence:
    """Whether a difference that matters is ruled out.

    Attributes:
        within: The margin: differences between -within and +within do not matter.
        p: The larger of the two one-sided p values; None where the test could not be made.
        method: How it was tested, in words.
    """

    within: float
    p: float | None
    method: str

    def record(self) -> dict[str, float | str | None]:
        """Return the fields as a mapping."""
        return {"within": self.within, "p": self.p, "method": self.method}


def equivalent_shares(only_first: int, only_second: int, n: int, within: float) -> Equivalence:
    """Test whether two shares on the same n rows lie within a margin, by Tango's score test (1998).

    Unlike Wald's, the score test keeps its level where few rows or none are discordant: 30 rows on which two
    classifiers never differ do not show that they are equal to one point.

    Args:
        only_first: Rows that only the first got right.
        only_second: Rows that only the second got right.
        n: Rows.
        within: The margin, above 0 and below 1.

    Raises:
        ValueError: The margin is not between 0 and 1, or the counts do not fit.
    """
    _require_margin(within)
    if within >= 1:
        raise ValueError(f"expected a margin below 1 for shares, found {within}")
    method = "two one-sided score tests (Tango 1998)"
    if n == 0:
        return Equivalence(within, None, method)
    above = tango_p(only_first, only_second, n, within, "less")
    below = tango_p(only_first, only_second, n, -within, "greater")
    return Equivalence(within, max(above, below), method)


def equivalent_draws(draws: np.ndarray, within: float) -> Equivalence:
    """Test whether a difference lies within a margin, from its bootstrap draws.

    The one-sided p value of "at least +margin" is the share of draws that reach it, ``(k + 1) / (R + 1)``.

    Args:
        draws: `[R]` resampled differences; those that are not finite are left out.
        within: The margin, above 0.

    Raises:
        ValueError: The margin is not above 0.
    """
    _require_margin(within)
    kept = draws[np.isfinite(draws)]
    method = "two one-sided bootstrap tests"
    if len(kept) < 2 or np.ptp(kept) == 0:
        return Equivalence(within, None, f"{method}: the resamples do not vary")
    tails = [(int((kept >= within).sum()) + 1), (int((kept <= -within).sum()) + 1)]
    return Equivalence(within, max(tails) / (len(kept) + 1), method)


def _require_margin(within: float) -> None:
    if not within > 0:
        raise ValueError(f"expected a margin above 0, found {within}")
