"""The Multi-bootstrap over seeds and rows (Sellam et al. 2022), and the spread of a metric over seeds.

One trained model tells what *it* does on other rows. What the *recipe* does with another seed is a second
source of chance, and only several seeds tell about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from tunescope.stats.intervals import Interval, percentile_interval

LEAST_SEEDS = 5  # from here on the part of the rows can be told from that of the seeds
LEAST_FOR_METHODS = 2
LEAST_FOR_SPREAD = 3


@dataclass(frozen=True)
class MultiBootstrap:
    """The mean over seeds, or the difference of two, with both sources of chance.

    Attributes:
        interval: The value with its interval.
        drawn: `[R]` resampled values.
        seed_error: The standard error that seeds alone give; from 5 seeds on, as far as rows do not explain it.
        row_error: The standard error that rows alone give, for these very seeds.
    """

    interval: Interval
    drawn: np.ndarray
    seed_error: float
    row_error: float


def multi_bootstrap(
    value: np.ndarray,
    drawn: np.ndarray,
    n: int,
    *,
    level: float = 0.95,
    seed: int | list[int] = 0,
    as_published: bool = False,
) -> MultiBootstrap:
    """Return the mean over seeds with an interval for another draw of both seeds and rows.

    Sellam et al. (2022, arXiv 2106.16163) resample seeds and rows together and take the mean over the resampled
    seeds. Resampling S seeds makes their spread too small by ``sqrt((S - 1) / S)`` and takes it for known:
    where seeds matter more than rows, their interval at S = 5 and nominal 95 % covers about 84 %. Where seeds
    merely err on different rows, that chance is in both the seeds' spread and the rows', and counted twice.

    Here the bootstrap of rows is kept as it is, and the seeds' own part is added from Student's t of S - 1 degrees
    of freedom, with the variance of the seeds' values less what the resamples show to be their rows':
    ``max(0, var(value) - S / (S - 1) * mean_s var_r(drawn[s, r] - mean_s drawn[s, r])) / S``. The interval is
    the t interval where only seeds matter, the bootstrap of rows where only rows do; simulated coverage at S = 5
    is 94 to 96 % between these ends. ``as_published=True`` gives theirs.

    Of fewer than 5 seeds the rows' part is *not* taken out of the spread of the seeds: by so few it is estimated so
    badly that the rest is zero too often, and two seeds of one recipe would be called different in 10 % of studies.
    Chance of the rows is then counted twice, and the interval is too wide rather than too narrow.

    A paired difference of two recipes that were trained with the same seeds goes in as one value per seed.

    Args:
        value: `[S]`, the statistic (or difference) of each seed on all rows.
        drawn: `[S, R]`, the same on shared resamples of the rows.
        n: How many rows there are.
        level: The coverage of the interval.
        seed: Seeds the draw of seeds.
        as_published: Resample seeds, as in the paper.

    Raises:
        ValueError: There are fewer than 2 seeds, or the shapes do not fit.
    """
    seeds = len(value)
    if seeds < 2 or drawn.ndim != 2 or len(drawn) != seeds:
        raise ValueError(
            f"expected [S] values and [S, R] draws with S of 2 or more; found {value.shape}, {drawn.shape}"
        )
    generator = np.random.default_rng(seed)
    resamples = drawn.shape[1]
    rows_alone = drawn.mean(axis=0)
    explained = _of_rows(drawn, rows_alone) if seeds >= LEAST_SEEDS else 0.0
    error = float(np.sqrt(max(0.0, value.var(ddof=1) - explained) / seeds))
    if as_published:
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T / seeds
        draws = (weights * drawn).sum(axis=0)
        method = f"Multi-bootstrap over {seeds} seeds and {n} rows, {resamples} resamples"
    else:
        draws = rows_alone + error * generator.standard_t(seeds - 1, resamples)
        method = f"Multi-bootstrap over {seeds} seeds (Student's t) and {n} rows, {resamples} resamples"
    known = np.isfinite(rows_alone)
    row_error = float(rows_alone[known].std(ddof=1)) if known.sum() > 1 else float("nan")
    interval = percentile_interval(float(value.mean()), draws, n, method, level)
    return MultiBootstrap(interval, draws, error, row_error)


def _of_rows(drawn: np.ndarray, mean: np.ndarray) -> float:
    """Return how much of the variance between seeds is chance of the rows, on which seeds err differently."""
    known = np.isfinite(mean)
    if known.sum() < 2:
        return 0.0
    apart = (drawn - mean)[:, known]
    return float(apart.var(axis=1, ddof=1).mean() * len(drawn) / (len(drawn) - 1))


def independent_difference(
    first: MultiBootstrap, second: MultiBootstrap, n: int, level: float = 0.95
) -> MultiBootstrap:
    """Return the difference of two recipes whose seeds do not correspond, on shared resamples of rows.

    Args:
        first: The one, from draws on the same resamples as the second, in the same order.
        second: The other; its seeds must have been drawn with another stream.
        n: How many rows there are.
        level: The coverage of the interval.
    """
    draws = first.drawn - second.drawn
    value = float(first.interval.value or 0.0) - float(second.interval.value or 0.0)
    interval = percentile_interval(value, draws, n, f"{first.interval.method}, seeds apart", level)
    error = float(np.hypot(first.seed_error, second.seed_error))
    return MultiBootstrap(interval, draws, error, float("nan"))


def metric_ends(metric: str) -> tuple[float, float]:
    """Return the least and the most that a metric can be; shares and areas lie between 0 and 1."""
    if metric == "matthews_corrcoef":
        return -1.0, 1.0
    return 0.0, float("inf") if metric == "log_loss" else 1.0


def few_seeds_note(seeds: int) -> str | None:
    """Return what so few seeds do to an interval, or None where they are enough."""
    few = f"{seeds} seeds tell little of their spread: the interval is wide rather than narrow"
    return few if seeds < LEAST_SEEDS else None


def of_trainings(intervals: Sequence[tuple[float, float, float]], level: float = 0.95) -> Interval:
    """Return the mean over seeds for other seeds and rows, where each training's interval is all that is known.

    ``mean -+ sqrt(rows^2 + seeds^2)``: ``seeds`` is Student's t of S - 1 degrees of freedom on the values, ``rows`` the
    mean distance of the intervals' ends from their values, on either side. The error of a mean is never more than the
    mean of the errors, so this is no narrower than :func:`multi_bootstrap`, which sees how the trainings err together.

    Args:
        intervals: ``(value, low, high)`` of each training, of the same rows; 2 or more.
        level: The coverage of the intervals and of what is returned.

    Raises:
        ValueError: There are fewer than 2 trainings.
    """
    known = np.asarray(intervals, dtype=np.float64)
    if known.ndim != 2 or len(known) < LEAST_FOR_METHODS:
        raise ValueError(f"expected (value, low, high) of 2 or more trainings; found {known.shape}")
    values, seeds = known[:, 0], len(known)
    spread = special.stdtrit(seeds - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(seeds)
    below, above = (values - known[:, 1]).mean(), (known[:, 2] - values).mean()
    mean = float(values.mean())
    low, high = mean - float(np.hypot(below, spread)), mean + float(np.hypot(above, spread))
    method = f"{seeds} seeds (Student's t) and each training's own interval"
    return Interval(mean, low, high, 0, method, few_seeds_note(seeds))


def seed_spread(values: Any, level: float = 0.95) -> dict[str, Any]:
    """Return how a metric varies over seeds: mean, standard deviation with interval, least, most, and a note.

    The interval of the standard deviation is the chi-square one, exact for normal values. Below 3 seeds there
    is no standard deviation, and the note says so.

    Args:
        values: `[S]`, one value per seed.
        level: The coverage of the interval.
    """
    known = np.asarray(values, dtype=np.float64)
    seeds = len(known)
    spread: dict[str, Any] = {
        "seeds": seeds,
        "mean": float(known.mean()) if seeds else None,
        "least": float(known.min()) if seeds else None,
        "most": float(known.max()) if seeds else None,
        "standard_deviation": None,
        "low": None,
        "high": None,
        "note": f"{seeds} of the {LEAST_FOR_SPREAD} seeds that a spread needs",
    }
    if seeds < LEAST_FOR_SPREAD:
        return spread
    deviation = float(known.std(ddof=1))
    free = seeds - 1
    low, high = (deviation * float(np.sqrt(free / special.chdtri(free, 1 - tail))) for tail in
                 ((1 + level) / 2, (1 - level) / 2))  # fmt: skip
    note = "few seeds: the interval is wide" if seeds < LEAST_SEEDS else None
    return {**spread, "standard_deviation": deviation, "low": low, "high": high, "note": note}
