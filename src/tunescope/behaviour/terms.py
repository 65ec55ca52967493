"""Which of a suite's terms move a model more than the rest: one row a term, corrected over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from tunescope.behaviour.effects import Effects
from tunescope.behaviour.estimates import Clusters, Settings, mean_changes, share, take
from tunescope.behaviour.excess import excess_records
from tunescope.stats.intervals import group_sums
from tunescope.stats.tests import CORRECTIONS

LEAST_PAIRS = 5
SIGNIFICANT = 0.05
RECORDS = 4  # rows of the table that a term has


def term_records(
    terms: Sequence[Sequence[str]], effects: Effects, clusters: Clusters, settings: Settings, cut: float,
    correction: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return mean change, mean absolute change, flips and large changes of every term that stands in enough pairs.

    A pair in which several terms were replaced counts for each of them. The absolute change is tested against that of
    all pairs without the term (Welch's t over groups), the signed one against 0, and the size beyond each control
    against 0; each is corrected over all terms.

    Args:
        terms: `[n]` the terms that each pair replaces.
        effects: What the pairs do to the model.
        clusters: Groups of pairs that are not independent.
        settings: How means are judged.
        cut: The change of a probability that counts as large.
        correction: ``holm`` or ``bh``.
    """
    where: dict[str, list[int]] = {}
    for index, own in enumerate(terms):
        for term in dict.fromkeys(own or ()):
            where.setdefault(term, []).append(index)
    known = {term: np.array(rows) for term, rows in sorted(where.items()) if len(rows) >= LEAST_PAIRS}
    size = np.abs(effects.margin_change)
    records, against_zero, against_rest = [], [], []
    for term, rows in known.items():
        groups = _several(take(clusters, rows))
        signed, absolute = mean_changes(
            np.stack([effects.margin_change[rows], size[rows]], axis=1), groups, settings
        )
        flipped = share(effects.flips[rows], groups)
        large = share(effects.largest[rows] >= cut, groups)
        rest = np.ones(len(size), dtype=bool)
        rest[rows] = False
        against_zero.append(np.nan if signed.p is None else signed.p)
        against_rest.append(_welch(size, rows, np.flatnonzero(rest), clusters))
        other = float(size[rest].mean()) if rest.any() else None
        records += [
            {"metric": "margin_change", "term": term, "p": signed.p, **signed.interval.record()},
            {"metric": "absolute_margin_change", "term": term, "control_value": other, **absolute.interval.record()},
            {"metric": "flip_share", "term": term, **flipped.record()},
            {"metric": "large_change_share", "term": term, **large.record()},
        ]  # fmt: skip
    adjust = CORRECTIONS[correction]
    zero, beyond = adjust(np.array(against_zero)), adjust(np.array(against_rest))
    for place in range(len(known)):
        signed_record, absolute_record = records[RECORDS * place], records[RECORDS * place + 1]
        signed_record["q"] = zero[place]
        absolute_record |= {"p": against_rest[place], "q": beyond[place]}
        above = (
            absolute_record["control_value"] is not None
            and absolute_record["value"] > absolute_record["control_value"]
        )
        absolute_record["stands_out"] = bool(above and beyond[place] <= SIGNIFICANT)
    parts = [({"term": term}, rows) for term, rows in known.items()]
    return records + excess_records(parts, effects, clusters, settings, correction)


def _several(clusters: Clusters) -> Clusters:
    """Leave out groupings of which a term has one group: a person's name groups all pairs of that person."""
    kept = {name: groups for name, groups in clusters.items() if len(np.unique(groups)) > 1}
    return kept or clusters


def rare_terms(terms: Sequence[Sequence[str]]) -> int:
    """Return how many terms stand in too few pairs to be judged alone."""
    counts: dict[str, int] = {}
    for own in terms:
        for term in dict.fromkeys(own or ()):
            counts[term] = counts.get(term, 0) + 1
    return sum(count < LEAST_PAIRS for count in counts.values())


def _welch(values: np.ndarray, rows: np.ndarray, rest: np.ndarray, clusters: Clusters) -> float:
    """Return the two-sided p of equal means of two sets of pairs, over groups; of several groupings the largest.

    NaN where a side has fewer than 2 groups.
    """
    found = []
    for groups in clusters.values():
        sides = [_mean_and_error(values[part], groups[part]) for part in (rows, rest)]
        if any(units < 2 for _, _, units in sides):
            continue
        (first, error, units), (second, other, units_rest) = sides
        variance = error + other
        if variance == 0:
            found.append(1.0 if first == second else 0.0)
            continue
        free = variance**2 / (error**2 / (units - 1) + other**2 / (units_rest - 1))
        found.append(float(2 * special.stdtr(free, -abs(first - second) / np.sqrt(variance))))
    return max(found, default=np.nan)


def _mean_and_error(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, int]:
    """Return the mean, its variance over groups (linearised ratio), and the number of groups."""
    if len(values) == 0:
        return 0.0, 0.0, 0
    sums, sizes = group_sums(values[:, None], groups)
    units, mean = len(sizes), float(values.mean())
    if units < 2:
        return mean, 0.0, units
    spread = float((((sums[:, 0] - mean * sizes) / len(values)) ** 2).sum()) * units / (units - 1)
    return mean, spread, units
