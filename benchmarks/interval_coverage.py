"""How often 95 % intervals hold the true value, in samples from populations whose truth is known.

Writes `docs/coverage.md` and the small table that ships with the package (`evaluation/coverage.json`), from which
metrics take their warnings. The intervals are made by the code that the package runs. Two processes take a few
minutes; `--repetitions 200 --output FOLDER` is a quick look. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from tunescope.evaluation.records import Table, shares_of_grouped_rows
from tunescope.evaluation.resampling import resample_rows
from tunescope.evaluation.sweep import CALIBRATION, Drawn, MetricSweep, interval_of, joined
from tunescope.stats.intervals import percentile_interval, wilson
from tunescope.stats.paired import tango

PROJECT = Path(__file__).resolve().parent.parent
RESAMPLES = (
    500  # the ends are order statistics at exact levels, so that coverage does not hang on their number
)
SHARED = 20  # samples of rows that use one set of resampling weights
LOW, HIGH = 0.93, 0.97
PER_CLASS = ("f1", "roc_auc_ovr", "average_precision")
POPULATION = 300_000


@dataclass(frozen=True)
class Population:
    """Rows with a class and C scores: normal, with their own class's moved up by `signal`.

    The logits are Bayes' (calibrated) where `sharpness` is 1, over-confident above. With groups, the rows of one
    share `spread` standard deviations of how easy they are.
    """

    shares: tuple[float, ...]
    signal: float
    sharpness: float = 1.0
    spread: float = 0.0

    def draw(self, n, generator, group_size=1):
        """Return labels, logits and groups of n rows."""
        labels = generator.choice(len(self.shares), n, p=self.shares)
        groups = np.arange(n) // group_size
        ease = self.signal + self.spread * generator.normal(size=groups[-1] + 1)[groups]
        scores = generator.normal(size=(n, len(self.shares)))
        scores[np.arange(n), labels] += ease
        logits = self.sharpness * (self.signal * scores + np.log(self.shares))
        return labels, logits, groups


@cache
def truth_of(population, group_size=1):
    """Every metric of a sample so large that it stands for the population."""
    labels, logits, _ = population.draw(POPULATION, np.random.default_rng(99), group_size)
    return MetricSweep(labels, logits).seen()


@dataclass
class Cell:
    """One line of the table: how often one interval held the truth."""

    metric: str
    interval: str
    n: int
    shares: list[float]
    informative: float
    value: float
    coverage: float
    below: float
    above: float
    defined: float
    repetitions: int
    used: bool = True


class Tally:
    """Counts in how many repetitions an interval held the truth, lay below or above it, or was undefined."""

    def __init__(self):
        self.inside = self.below = self.above = 0

    def add(self, interval, truth):
        """Count one interval."""
        if interval.low is None:
            return
        self.below += interval.high < truth
        self.above += interval.low > truth
        self.inside += interval.low <= truth <= interval.high

    def cell(self, metric, interval, n, shares, informative, value, repetitions, used=True):
        """Return the counts as a line of the table."""
        made = max(self.inside + self.below + self.above, 1)
        return Cell(
            metric, interval, n, list(shares), informative, round(float(value), 4), self.inside / made,
            self.below / made, self.above / made, made / repetitions, repetitions, used,
        )  # fmt: skip


def of_metrics(population, n, scheme, repetitions, seed):
    """Every bootstrapped metric, on rows (or classes) that are independent."""
    truth, generator = truth_of(population), np.random.default_rng(seed)
    tallies = {}
    for repetition in range(repetitions):
        labels, logits, _ = population.draw(n, generator)
        if len(np.unique(labels)) < len(population.shares):
            continue  # a metric of a class without rows is undefined, and said to be
        if scheme == "classes":
            weights = next(resample_rows(n, RESAMPLES, generator, labels))
        elif repetition % SHARED == 0 or not tallies:
            weights = next(resample_rows(n, RESAMPLES, generator))
        sweep = MetricSweep(labels, logits)
        seen, drawn = sweep.seen(), sweep.values(weights)
        calibrated = sweep.calibration.calibrated(RESAMPLES, generator)
        support = np.bincount(labels)
        for key, value in seen.items():
            metric, c = key
            if metric in ("precision", "recall", "accuracy") or (c is not None and c != len(support) - 1):
                continue
            told = Drawn(n, support.min() if c is None else support[c], "", calibrated)
            tallies.setdefault(key, Tally()).add(interval_of(metric, value, drawn[key], told), truth[key])
    name = "bootstrap of rows" if scheme == "rows" else "bootstrap within classes"
    weighted = ("_weighted", CALIBRATION)
    return [
        tally.cell(
            metric, name, n, population.shares, n * (1 if metric.endswith(weighted) else min(population.shares)),
            truth[metric, c], repetitions, scheme == "rows",
        )
        for (metric, c), tally in tallies.items()
        if c is not None or metric not in PER_CLASS
    ]  # fmt: skip


def of_shares(n, share, repetitions, seed):
    """A share of rows by Wilson's interval."""
    hits = np.random.default_rng(seed).binomial(n, share, repetitions)
    tally, known = Tally(), {k: wilson(k, n) for k in np.unique(hits).tolist()}
    for k in hits.tolist():
        tally.add(known[k], share)
    return [tally.cell("proportion", "wilson", n, [], n, share, repetitions)]


def of_differences(n, only_first, only_second, repetitions, seed):
    """The difference of two models' accuracies on the same rows."""
    generator = np.random.default_rng(seed)
    shares = (only_first, only_second, 1 - only_first - only_second)
    counts, known = generator.multinomial(n, shares, repetitions), {}
    tallies = {"tango": Tally(), "paired bootstrap of rows": Tally()}
    for b, c, rest in counts.tolist():
        if (b, c) not in known:
            draws = generator.multinomial(n, np.array([b, c, rest]) / n, RESAMPLES)
            boot = percentile_interval((b - c) / n, (draws[:, 0] - draws[:, 1]) / n, n, "")
            known[b, c] = {"tango": tango(b, c, n), "paired bootstrap of rows": boot}
        for name, tally in tallies.items():
            tally.add(known[b, c][name], only_first - only_second)
    value, informative = only_first - only_second, n * (only_first + only_second)
    return [
        tally.cell("difference of accuracies", name, n, [], informative, value, repetitions, False)
        for name, tally in tallies.items()
    ]


def of_groups(population, n, group_size, repetitions, seed):
    """Rows that come in groups: whole groups drawn, and for contrast what taking them for independent gives."""
    truth, generator = truth_of(population, group_size), np.random.default_rng(seed)
    keys = (("f1", 1), ("roc_auc_ovr", 1), ("balanced_accuracy", None))
    tallies = {
        ("proportion", "wilson, cluster-robust"): Tally(),
        ("proportion", "wilson, groups ignored"): Tally(),
    }
    for _ in range(repetitions):
        labels, logits, groups = population.draw(n, generator, group_size)
        weights = next(resample_rows(n, RESAMPLES, generator, groups=groups))
        sweep = MetricSweep(labels, logits)
        seen, drawn = sweep.seen(), joined([sweep.values(weights)])
        guesses, true_accuracy = logits.argmax(axis=1), truth["accuracy", None]
        robust = shares_of_grouped_rows(labels, guesses, groups)["accuracy", None]
        tallies["proportion", "wilson, cluster-robust"].add(robust, true_accuracy)
        plain = wilson(int((labels == guesses).sum()), n)
        tallies["proportion", "wilson, groups ignored"].add(plain, true_accuracy)
        counts = np.diag(np.bincount(labels, minlength=2))
        table = Table(counts, ["a", "b"], seen, drawn, "", n // group_size)
        for key in keys:
            told = Drawn(n, table.informative(*key), "")
            place = (key[0], "bootstrap of groups")
            tallies.setdefault(place, Tally()).add(
                interval_of(key[0], seen[key], drawn[key], told), truth[key]
            )
    values = {"proportion": truth["accuracy", None], **{metric: truth[metric, c] for metric, c in keys}}
    return [
        tally.cell(metric, name, n, population.shares, n / group_size, values[metric], repetitions, False)
        for (metric, name), tally in tallies.items()
    ]


def jobs(repetitions):
    """The named grid: a function and its arguments for each place of it."""
    found = []
    for signal in (1.0, 2.0):
        for rare in (0.5, 0.1):
            # Stronger signals are given over-confident logits, so that calibration has something to find.
            population = Population((1 - rare, rare), signal, 1.0 if signal == 1.0 else 1.5)
            for n in (872, 200, 100, 50):
                found.append((of_metrics, (population, n, "rows", repetitions)))
    for n in (872, 200):
        found.append((of_metrics, (Population((0.6, 0.3, 0.1), 1.5, 1.2), n, "rows", repetitions)))
        found.append((of_metrics, (Population((0.9, 0.1), 1.0), n, "classes", repetitions)))
    for n in (1000, 200):
        found.append((of_groups, (Population((0.5, 0.5), 1.0, 1.0, 1.0), n, 5, repetitions)))
    for n in (100, 200, 872):
        for pair in ((0.05, 0.03), (0.1, 0.1), (0.2, 0.1)):
            found.append((of_differences, (n, *pair, repetitions)))
    for n in (10, 20, 30, 100, 872, 3000):
        for share in (0.5, 0.8, 0.93, 0.98):
            found.append((of_shares, (n, share, 20 * repetitions)))
    return found


def work(job):
    seed, (function, arguments) = job
    return function(*arguments, seed)


def exact_wilson(n, share):
    """The coverage of Wilson's interval in closed form, beside which the simulated one is shown."""
    hits = np.arange(n + 1)
    inside = [(w := wilson(int(k), n)).low <= share <= w.high for k in hits]
    return float(stats.binom.pmf(hits, n, share)[inside].sum())


def share_of(number):
    return f"{100 * number:.1f}"


INTRO = """# How far the intervals can be trusted

Generated by `benchmarks/interval_coverage.py`; do not edit. Samples are drawn from populations whose true values are
known (normal scores, Bayes' logits; over-confident ones where the signal is strong), and the 95 % interval of each is
made by the code that tunescope runs, with 400 resamples. *Coverage* is the share of samples whose interval holds
the truth, *below* and *above* the shares in which it lies below or above it, *defined* the share of samples in
which there was an interval at all. There are {repetitions} repetitions a line (20 times as many for shares), so
that the Monte Carlo error of a coverage of 95 % is {error} points. Coverages outside {low} to {high} % are **bold**;
at so few rows or so extreme a value `classification_metrics` says so in the note of the metric (it takes the
nearest line, by rows of the rarest class and by value).

How the intervals are made, and what the simulations decided:

- Shares of rows (accuracy, precision, recall): Wilson.
- F1, their averages, balanced accuracy, Matthews' correlation: percentiles of a bootstrap of **rows**.
- Areas under the ROC curve and average precision: the bootstrap's standard error on the logit scale, log loss and Brier
  score on the log scale, with Student's t of one degree of freedom less than the rarest class has rows. Percentiles
  covered 83 % for an area of .98 with 20 positive rows, this 93 %.
- Rows are not resampled within their class (the stratified bootstrap): that takes the number of rows per class for
  given. Its lines below show what it costs where the classes' shares are left to chance: log loss and Brier score.
  It is the right one where a split was drawn with fixed numbers per class, and
  `measure(..., MetricOptions(resampling="classes"))` gives it.
- The calibration error: percentile above, reversed percentile below, 0 where a perfectly calibrated model shows
  as much. It is biased upwards, and the interval is wide on purpose.
- Rows in groups: whole groups are drawn; Wilson's interval is that of the effective number of rows.
"""


def written(cells, repetitions):
    """The page: one table a metric."""
    error = f"{100 * (0.95 * 0.05 / repetitions) ** 0.5:.2f}"
    lines = [
        INTRO.format(
            repetitions=f"{repetitions:,}", error=error, low=f"{100 * LOW:.0f}", high=f"{100 * HIGH:.0f}"
        )
    ]
    for metric in dict.fromkeys(cell.metric for cell in cells):
        exact = metric == "proportion"
        lines += [
            f"\n## {metric}\n",
            "| interval | rows | class shares | true value | coverage % | below % | above % | defined % |"
            + (" exact coverage % |" if exact else ""),
            "| --- | --: | --- | --: | --: | --: | --: | --: |" + (" --: |" if exact else ""),
        ]
        for cell in cells:
            if cell.metric == metric:
                coverage = share_of(cell.coverage)
                coverage = coverage if LOW <= cell.coverage <= HIGH else f"**{coverage}**"
                shares = " / ".join(f"{share:g}" for share in cell.shares) or "-"
                line = f"| {cell.interval} | {cell.n} | {shares} | {cell.value:.3f} | {coverage} | "
                line += f"{share_of(cell.below)} | {share_of(cell.above)} | {share_of(cell.defined)} |"
                if exact:
                    known = share_of(exact_wilson(cell.n, cell.value)) if cell.interval == "wilson" else "-"
                    line += f" {known} |"
                lines.append(line)
    return "\n".join(lines) + "\n"


def packaged(cells, repetitions):
    """The table that ships: what metrics look their warning up in."""
    kept = [cell for cell in cells if cell.used]
    return {
        "format_version": 1, "nominal": 0.95, "trusted": [LOW, HIGH], "repetitions": repetitions,
        "cells": [
            {
                "metric": cell.metric, "n": cell.n, "informative": round(cell.informative, 1),
                "value": cell.value, "coverage": round(cell.coverage, 6),
            }
            for cell in kept
        ],
    }  # fmt: skip


def simulate(repetitions, processes=2):
    """Return the cells of the whole grid, in its order."""
    listed = list(enumerate(jobs(repetitions)))
    if processes == 1:
        return [cell for job in listed for cell in work(job)]
    with ProcessPoolExecutor(processes) as pool:
        return [cell for cells in pool.map(work, listed) for cell in cells]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write coverage.md and coverage.json here instead")
    given = parser.parse_args()
    start = time.perf_counter()
    cells = simulate(given.repetitions, given.processes)
    page = given.output / "coverage.md" if given.output else PROJECT / "docs" / "coverage.md"
    table = (given.output or PROJECT / "src" / "tunescope" / "evaluation") / "coverage.json"
    page.write_text(written(cells, given.repetitions), encoding="utf-8")
    content = packaged(cells, given.repetitions)
    lines = ",\n  ".join(json.dumps(cell) for cell in content.pop("cells"))
    head = json.dumps(content)[:-1]
    table.write_text(f'{head}, "cells": [\n  {lines}\n]}}\n', encoding="utf-8")
    inside = [cell for cell in cells if LOW <= cell.coverage <= HIGH]
    summary = {"lines": len(cells), "trusted": len(inside), "repetitions": given.repetitions}
    print(json.dumps({**summary, "seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
