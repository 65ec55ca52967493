"""How small a difference could have been seen: power of McNemar's test and of two independent shares."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy import optimize, special

ALPHA = 0.05
POWER = 0.8
REACH = 9.0  # standard deviations of a binomial count that are summed over; outside lies less than 1e-18


@dataclass(frozen=True)
class Detectable:
    """The smallest true difference that a test would find with the stated chance.

    Attributes:
        value: The difference; None where no difference could be found.
        alpha: The two-sided level of the test.
        power: The chance of finding that difference.
        method: How it was computed, in words.
        note: Why there is none, or what it rests on.
    """

    value: float | None
    alpha: float
    power: float
    method: str
    note: str | None = None

    def record(self) -> dict[str, float | str | None]:
        """Return the fields as a mapping."""
        return {name: getattr(self, name) for name in ("value", "alpha", "power", "method", "note")}


def mcnemar_power(n: int, only_first: float, only_second: float, alpha: float = ALPHA) -> float:
    """Return the chance that the exact two-sided McNemar test rejects, over all tables of n rows.

    The number of discordant rows is binomial(n, only_first + only_second); given m of them, those that favour
    the first are binomial(m, only_first / (only_first + only_second)), and the test rejects where twice the
    smaller tail of binomial(m, 1/2) is at most alpha.

    Args:
        n: Rows.
        only_first: The true share of rows that only the first classifier gets right.
        only_second: The true share of rows that only the second gets right.
        alpha: The level of the test.

    Raises:
        ValueError: The shares are negative, or together above 1.
    """
    discordant = only_first + only_second
    if min(only_first, only_second) < 0 or discordant > 1:
        raise ValueError(
            f"expected shares of 0 or more, together at most 1; found {only_first}, {only_second}"
        )
    if n < 1 or discordant == 0:
        return 0.0
    spread = REACH * np.sqrt(n * discordant * (1 - discordant)) + 1
    low, high = max(0, int(n * discordant - spread)), min(n, int(np.ceil(n * discordant + spread)))
    m = np.arange(low, high + 1)
    chance = np.exp(_log_binomial(m, n, discordant))
    critical = _critical(m, alpha)
    share = only_first / discordant
    rejects = np.zeros(len(m))
    able = critical >= 0
    k, sizes = critical[able].astype(float), m[able]
    rejects[able] = special.bdtr(k, sizes, share) + special.bdtr(k, sizes, 1 - share)
    return float(np.clip((chance * rejects).sum(), 0.0, 1.0))


def _log_binomial(k: np.ndarray, n: int, share: float) -> np.ndarray:
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return ways + special.xlogy(k, share) + special.xlog1py(n - k, -share)


def _critical(m: np.ndarray, alpha: float) -> np.ndarray:
    """Return the largest k at which 2 * P(binomial(m, 1/2) <= k) is at most alpha; -1 where there is none."""
    k = np.floor(m / 2 + NormalDist().inv_cdf(alpha / 2) * np.sqrt(m) / 2) + 2
    k = np.minimum(k, np.floor((m - 1) / 2))  # with half of the rows on either side p is 1
    for _ in range(8):  # the normal guess is wrong by a step or two
        too_large = (k >= 0) & (2 * special.bdtr(np.maximum(k, 0), m.astype(np.int64), 0.5) > alpha)
        if not too_large.any():
            break
        k = np.where(too_large, k - 1, k)
    return np.maximum(k, -1)


def paired_detectable(n: int, discordant: int, alpha: float = ALPHA, power: float = POWER) -> Detectable:
    """Return the smallest difference of two accuracies on the same rows that McNemar's exact test would find.

    Two classifiers are the easier to tell apart the less they disagree otherwise, so it depends on the share
    of rows on which exactly one is right; that share is taken as seen, plus one half row of each kind, so that
    no disagreement seen is not taken for no disagreement possible.

    Args:
        n: Rows.
        discordant: Rows on which exactly one of the two is right.
        alpha: The level of the test.
        power: The wanted chance of finding the difference.

    Raises:
        ValueError: There are more discordant rows than rows.
    """
    if not 0 <= discordant <= n:
        raise ValueError(f"expected 0 to {n} discordant rows, found {discordant}")
    share = (discordant + 1) / (n + 2)
    method = f"exact McNemar, {discordant} of {n} rows discordant"

    def reached(difference: float) -> float:
        return mcnemar_power(n, (share + difference) / 2, (share - difference) / 2, alpha) - power

    if n == 0 or reached(share) < 0:
        note = f"even if all discordant rows favoured one, {n} rows would find it in fewer than {power:.0%} of cases"
        return Detectable(None, alpha, power, method, note)
    return Detectable(float(optimize.brentq(reached, 0.0, share, xtol=1e-6)), alpha, power, method)


def unpaired_detectable(
    n_first: int, n_second: int, share: float, alpha: float = ALPHA, power: float = POWER
) -> Detectable:
    """Return the smallest difference of two independent shares that a two-sided z test would find.

    The smallest d for which ``d = z(1 - alpha/2) * sqrt(p * (1 - p) * (1/n1 + 1/n2)) + z(power) *
    sqrt(p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2)``, where p1 and p2 lie d apart around the mean p (Fleiss 1981,
    without continuity correction).

    Args:
        n_first: Rows of the first share.
        n_second: Rows of the second.
        share: The mean of the two shares, from 0 to 1.
        alpha: The level of the test.
        power: The wanted chance of finding the difference.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, found {share}")
    method = f"two-sided z test of two shares, {n_first} and {n_second} rows, mean {share:.4g}"
    widest = 2 * min(share, 1 - share)
    normal = NormalDist()
    z_alpha, z_power = normal.inv_cdf(1 - alpha / 2), normal.inv_cdf(power)

    def missing(difference: float) -> float:
        first, second = share + difference / 2, share - difference / 2
        null = np.sqrt(share * (1 - share) * (1 / n_first + 1 / n_second))
        other = np.sqrt(max(first * (1 - first) / n_first + second * (1 - second) / n_second, 0.0))
        return float(difference - z_alpha * null - z_power * other)

    if min(n_first, n_second) < 1 or widest == 0 or missing(widest) < 0:
        note = "no two shares around this mean lie far enough apart to be found with so few rows"
        return Detectable(None, alpha, power, method, note)
    return Detectable(float(optimize.brentq(missing, 0.0, widest, xtol=1e-9)), alpha, power, method)


def detectable_from_error(
    standard_error: float, what: str, alpha: float = ALPHA, power: float = POWER
) -> Detectable:
    """Return the smallest difference that a test with this standard error would find, ``(z + z) * error``.

    Args:
        standard_error: The standard deviation of the estimated difference.
        what: Where the standard error comes from, in words.
        alpha: The level of the test.
        power: The wanted chance of finding the difference.
    """
    method = f"normal, standard error of {what}"
    if not np.isfinite(standard_error) or standard_error <= 0:
        return Detectable(None, alpha, power, method, "the resamples do not vary, so they tell no error")
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return Detectable(float(reach * standard_error), alpha, power, method)
