"""What two published counts of right answers can decide, when nobody knows on which rows they differ."""

from __future__ import annotations

from typing import Any

from scipy import special

from tunescope.errors import DataError
from tunescope.stats.intervals import wilson
from tunescope.stats.power import unpaired_detectable
from tunescope.stats.tests import mcnemar_range


def compare_published(
    correct: dict[str, int], n: int, *, level: float = 0.95, power: float = 0.8
) -> dict[str, Any]:
    """Say what two published accuracies on the same n rows can decide.

    Each accuracy has its Wilson interval, their difference Newcombe's (1998, method 10, of independent samples).
    How often the two differ on the same row is not published; the exact McNemar p is therefore given over all
    counts of discordant rows that the two accuracies allow. Only where every such p falls on one side of 1 - level
    do the figures decide.

    Args:
        correct: Two names, each with the number of rows it got right.
        n: Rows, the same for both.
        level: The coverage of intervals; the test's level is 1 - level.
        power: The chance at which a difference counts as detectable.

    Returns:
        ``arms`` (records with value, low, high), ``difference`` (unpaired), ``p`` (unpaired z test),
        ``detectable`` (unpaired), ``paired`` (least and greatest p, counts of discordant rows), ``decided`` (True,
        False where no count of discordant rows would decide, None where it depends) and ``sentence``.

    Raises:
        DataError: There are not two names, or a count is not between 0 and n.
    """
    if len(correct) != 2:
        raise DataError(f"Expected two names with counts of right rows, found {len(correct)}.")
    if n < 1 or not all(0 <= count <= n for count in correct.values()):
        raise DataError(f"Expected counts from 0 to n of at least 1 row; found {correct} and n = {n}.")
    better, worse = sorted(correct, key=lambda name: -correct[name])
    one, other = correct[better], correct[worse]
    alpha = 1 - level
    shares = {name: wilson(correct[name], n, level) for name in (better, worse)}
    low, high = newcombe(one, n, other, n, level)
    gap = (one - other) / n
    least, greatest = mcnemar_range(one, other, n)
    decided = True if greatest <= alpha else (False if least > alpha else None)
    detectable = unpaired_detectable(n, n, (one + other) / (2 * n), alpha, power)
    result = {
        "n": n,
        "arms": [
            {"arm": name, "correct": correct[name], **shares[name].record()} for name in (better, worse)
        ],
        "difference": {"value": gap, "low": low, "high": high, "method": "Newcombe, independent samples"},
        "p": two_shares_p(one, n, other, n),
        "detectable": detectable.record(),
        "paired": {
            "least_p": least,
            "greatest_p": greatest,
            "least_discordant": one - other,
            "most_discordant": one - other + 2 * min(other, n - one),
        },
        "decided": decided,
    }
    return {**result, "sentence": _sentence(result, better, worse, alpha)}


def newcombe(
    first: int, n_first: int, second: int, n_second: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a difference of two independent shares from their Wilson intervals (Newcombe 1998).

    Args:
        first: Successes of the first.
        n_first: Its rows, 1 or more.
        second: Successes of the second.
        n_second: Its rows, 1 or more.
        level: The coverage of the interval.
    """
    ends = [wilson(first, n_first, level), wilson(second, n_second, level)]
    (p1, l1, u1), (p2, l2, u2) = ((e.value or 0.0, e.low or 0.0, e.high or 0.0) for e in ends)
    gap = p1 - p2
    below = ((p1 - l1) ** 2 + (u2 - p2) ** 2) ** 0.5
    above = ((u1 - p1) ** 2 + (p2 - l2) ** 2) ** 0.5
    return gap - below, gap + above


def two_shares_p(first: int, n_first: int, second: int, n_second: int) -> float:
    """Return the two-sided p value of the pooled z test that two independent shares are equal."""
    pooled = (first + second) / (n_first + n_second)
    error = (pooled * (1 - pooled) * (1 / n_first + 1 / n_second)) ** 0.5
    if error == 0:
        return 1.0
    return float(2 * special.ndtr(-abs(first / n_first - second / n_second) / error))


def _sentence(result: dict[str, Any], better: str, worse: str, alpha: float) -> str:
    one, other = result["arms"]
    paired, gap, n = result["paired"], result["difference"], result["n"]
    shown = (
        f"{better} has {one['correct']} of {n} right ({one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}]), "
        f"{worse} {other['correct']} ({other['value']:.1%} [{other['low']:.1%}, {other['high']:.1%}])"
    )
    if one["correct"] == other["correct"]:
        return f"{shown}: equal, so no ranking can be drawn."
    found = result["detectable"]["value"]
    power = f"{result['detectable']['power']:.0%}"
    seen = (
        f"; unpaired, {n} rows show a difference of {found:.1%} or more in {power} of cases, and this one is "
        f"{gap['value']:.1%}"
        if found is not None
        else f"; unpaired, {n} rows are too few for any difference to be found in {power} of cases"
    )
    span = f"p from {_p(paired['least_p'])} to {_p(paired['greatest_p'])}"
    if result["decided"] is False:
        return (
            f"{shown}{seen}. Paired, {span}: on no choice of rows is the difference significant at {alpha:.2g}, so "
            "no ranking can be drawn."
        )
    where = f"over all {paired['least_discordant']} to {paired['most_discordant']} rows on which they could differ"
    if result["decided"]:
        return f"{shown}{seen}. Paired, {span} {where}: {better} is better on these figures alone."
    return (
        f"{shown}{seen}. Paired, {span} {where}: the published figures cannot decide which is better; only the "
        "predictions row by row could."
    )


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "below .0001"
