"""One pair of arms: difference, interval, test, equivalence, and what could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from tunescope.evaluation.comparison.inputs import OF_CONFUSION, Aligned, Run
from tunescope.evaluation.comparison.swaps import OF_LOSSES, OF_RANKS, flip_p, score_swap_p, swap_p
from tunescope.stats.equivalence import Equivalence, equivalent_draws, equivalent_shares
from tunescope.stats.intervals import Interval, percentile_interval, wilson
from tunescope.stats.multiboot import (
    LEAST_FOR_METHODS,
    MultiBootstrap,
    few_seeds_note,
    independent_difference,
    metric_ends,
    multi_bootstrap,
)
from tunescope.stats.paired import Agreement, Draws, agreement, bootstrap_p, tango
from tunescope.stats.power import Detectable, detectable_from_error, paired_detectable
from tunescope.stats.tests import mcnemar_exact

NEVER_DIFFER = "the two never differ on these rows"
Scope = Literal["checkpoints", "rows and seeds"]
UNDEFINED = "undefined for these rows, which may all be of one class"


@dataclass(frozen=True)
class Measured:
    """Everything a comparison measures on: the rows, and the metric on shared resamples of them.

    Attributes:
        rows: Predictions side by side.
        metric: The name of the metric.
        draws: The metric of every run; the same resamples for all.
        level: The coverage of intervals.
        seed: Seeds the draws of seeds.
    """

    rows: Aligned
    metric: str
    draws: Draws
    level: float
    seed: int

    def runs(self, arm: str) -> list[Run]:
        """Return the runs of an arm, by seed."""
        return sorted((run for run in self.rows.scores if run.arm == arm), key=lambda run: run.seed or 0)

    def values(self, runs: Sequence[Run]) -> np.ndarray:
        """Return the metric of runs, `[S]`."""
        return np.array([self.draws.value[run] for run in runs])

    def drawn(self, runs: Sequence[Run]) -> np.ndarray:
        """Return the metric of runs on every resample, `[S, R]`."""
        return np.array([self.draws.drawn[run] for run in runs])

    @property
    def unit(self) -> str:
        """What was resampled, in words."""
        return "rows" if self.rows.groups is None else f"{self.draws.units} groups"


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two arms, first minus second.

    Attributes:
        interval: The value with its interval.
        p: The p value of "no difference", before correction.
        test: How it was tested, in words.
        equivalence: Whether a difference that matters is ruled out, before correction.
        detectable: The smallest difference that would have been found.
        scope: "checkpoints" where all of it is about these very trainings on other rows, "rows and seeds" where it
            is about the methods: other trainings with other seeds too.
    """

    interval: Interval
    p: float | None
    test: str
    equivalence: Equivalence
    detectable: Detectable
    scope: Scope


def arm_interval(measured: Measured, arm: str) -> Interval:
    """Return an arm's metric, the mean over its seeds, with an interval.

    One seed: Wilson for accuracy of independent rows, else the bootstrap; it is about this training on other rows.
    From two on, the Multi-bootstrap over seeds and rows, which speaks of the method; below five seeds it is wide
    rather than narrow, and ends where the metric does.
    """
    runs = measured.runs(arm)
    n = len(measured.rows)
    if not np.isfinite(measured.values(runs)).all():
        return Interval(None, None, None, n, f"bootstrap of {measured.unit}", UNDEFINED)
    if len(runs) >= LEAST_FOR_METHODS:
        values, drawn = measured.values(runs), measured.drawn(runs)
        found = multi_bootstrap(values, drawn, n, level=measured.level, seed=[measured.seed, 1]).interval
        return _within(found, measured.metric, len(runs))
    if measured.metric == "accuracy" and measured.rows.groups is None:
        right = int((measured.rows.predictions[runs[0]] == measured.rows.truth).sum())
        return wilson(right, n, measured.level)
    return rows_interval(measured, arm)


def rows_interval(measured: Measured, arm: str) -> Interval:
    """Return an arm's metric, the mean over its seeds, with an interval for these very trainings on other rows."""
    runs, n = measured.runs(arm), len(measured.rows)
    mean = measured.drawn(runs).mean(axis=0)
    method = f"bootstrap of {measured.unit}, {len(mean)} resamples"
    return percentile_interval(float(measured.values(runs).mean()), mean, n, method, measured.level)


def _within(found: Interval, metric: str, seeds: int) -> Interval:
    """Cut an interval where the metric ends: Student's t of two seeds knows of no ends. Say what few seeds do to it."""
    least, most = metric_ends(metric)
    low, high = (None if end is None else min(max(end, least), most) for end in (found.low, found.high))
    notes = "; ".join(one for one in (found.note, few_seeds_note(seeds)) if one)
    return Interval(found.value, low, high, found.n, found.method, notes or None)


def difference(measured: Measured, first: str, second: str, within: float) -> Difference:
    """Compare two arms on the same rows.

    From two trainings of each on, seeds and rows together. One training of an arm says what *it* does on other rows,
    and nothing of the arm's method: exact McNemar and Tango's interval for accuracy; for every other metric the
    bootstrap's interval, and a test that exchanges answers (:func:`swap_p`), losses (:func:`flip_p`), or ranks and
    scores (:func:`score_swap_p`) between the two.

    Args:
        measured: The rows and the metric's draws.
        first: One arm (or baseline).
        second: The other.
        within: The margin of equivalence.
    """
    ones, others = measured.runs(first), measured.runs(second)
    if not np.isfinite(measured.values([*ones, *others])).all():
        nothing = Interval(None, None, None, len(measured.rows), "paired bootstrap", UNDEFINED)
        return _from_draws(nothing, np.zeros(0), within, _scope(ones, others), measured)
    if _scope(ones, others) == "rows and seeds":
        return _over_seeds(measured, ones, others, within)
    exact = measured.metric == "accuracy" and measured.rows.groups is None
    if exact and len(ones) == len(others) == 1:
        return _of_accuracy(measured, _agreement(measured, ones[0], others[0]), within)
    draws = measured.drawn(ones).mean(axis=0) - measured.drawn(others).mean(axis=0)
    value = float(measured.values(ones).mean() - measured.values(others).mean())
    method = f"paired bootstrap of {measured.unit}, {len(draws)} resamples"
    interval = percentile_interval(value, draws, len(measured.rows), method, measured.level)
    found = _from_draws(interval, draws, within, "checkpoints", measured)
    if len(ones) == len(others) == 1:
        return _exchanged(found, measured, (ones[0], others[0]))
    return found


def agreements(measured: Measured, first: str, second: str) -> list[dict[str, Any]]:
    """Return McNemar's exact test of right and wrong answers for every pair of trainings with the same seed.

    A run without a seed (a baseline) is held against every seed.
    """
    found = []
    for one in measured.runs(first):
        for other in measured.runs(second):
            if one.seed != other.seed and one.seed is not None and other.seed is not None:
                continue
            counts = _agreement(measured, one, other)
            found.append({
                "seed": one.seed if one.seed is not None else other.seed, "only_first": counts.only_first,
                "only_second": counts.only_second, "n": counts.n,
                "p": mcnemar_exact(counts.only_first, counts.only_second),
            })  # fmt: skip
    return found


def _agreement(measured: Measured, one: Run, other: Run) -> Agreement:
    guesses = measured.rows.predictions
    return agreement(measured.rows.truth, guesses[one], guesses[other])


def _scope(ones: Sequence[Run], others: Sequence[Run]) -> Scope:
    """Return what can be spoken of: methods need seeds enough of both; a baseline has no seed and needs none."""
    enough = [len(runs) >= LEAST_FOR_METHODS or runs[0].seed is None for runs in (ones, others)]
    several = all(enough) and max(len(ones), len(others)) >= LEAST_FOR_METHODS
    return "rows and seeds" if several else "checkpoints"


def _exchanged(found: Difference, measured: Measured, pair: tuple[Run, Run]) -> Difference:
    """Replace the bootstrap's p, which is too small where the two differ on few rows, by the exact test's."""
    if found.p is None or found.interval.note == NEVER_DIFFER:
        return found
    resamples = len(measured.draws.drawn[pair[0]])
    what = "ranks" if measured.metric in OF_RANKS else "answers"
    test = f"{what} exchanged between the two models, {measured.unit}, {resamples} times"
    if measured.metric in OF_LOSSES:
        p = flip_p(measured.rows, measured.metric, pair, resamples=resamples, seed=measured.seed)
    else:
        exchange = swap_p if measured.metric in OF_CONFUSION else score_swap_p
        p = exchange(measured.rows, measured.metric, pair, resamples=resamples, seed=[measured.seed, 5])
    return replace(found, p=p, test=test)


def _over_seeds(measured: Measured, ones: Sequence[Run], others: Sequence[Run], within: float) -> Difference:
    n = len(measured.rows)
    options: dict[str, Any] = {"level": measured.level}
    values = [measured.values(runs) for runs in (ones, others)]
    drawn = [measured.drawn(runs) for runs in (ones, others)]
    same = [run.seed for run in ones] == [run.seed for run in others]
    found: MultiBootstrap
    if same or min(len(ones), len(others)) == 1:  # a baseline is subtracted from every seed
        pair = values[0] - values[1], drawn[0] - drawn[1]
        found = multi_bootstrap(*pair, n, seed=[measured.seed, 2], **options)
    else:
        each = [
            multi_bootstrap(values[i], drawn[i], n, seed=[measured.seed, 3 + i], **options) for i in (0, 1)
        ]
        found = independent_difference(each[0], each[1], n, measured.level)
    return _from_draws(found.interval, found.drawn, within, "rows and seeds", measured)


def _of_accuracy(measured: Measured, counts: Agreement, within: float) -> Difference:
    alpha = round(1 - measured.level, 12)
    return Difference(
        interval=tango(counts.only_first, counts.only_second, counts.n, measured.level),
        p=mcnemar_exact(counts.only_first, counts.only_second),
        test="exact McNemar",
        equivalence=equivalent_shares(counts.only_first, counts.only_second, counts.n, within),
        detectable=paired_detectable(counts.n, counts.discordant, alpha),
        scope="checkpoints",
    )


def _from_draws(
    interval: Interval, draws: np.ndarray, within: float, scope: Scope, measured: Measured
) -> Difference:
    known = draws[np.isfinite(draws)]
    p = bootstrap_p(draws)
    note = interval.note
    if p is None and len(known) and not known.any():
        p, note = 1.0, NEVER_DIFFER
    error = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    if scope == "rows and seeds" and interval.low is not None and interval.high is not None:
        # Student's t of so few degrees of freedom has no standard deviation; its interval has a width.
        error = (interval.high - interval.low) / (2 * NormalDist().inv_cdf(0.5 + measured.level / 2))
    return Difference(
        interval=Interval(interval.value, interval.low, interval.high, interval.n, interval.method, note),
        p=p,
        test=interval.method,
        equivalence=equivalent_draws(draws, within),
        detectable=detectable_from_error(error, interval.method, round(1 - measured.level, 12)),
        scope=scope,
    )
