"""Checks of numbers: metrics against scikit-learn, tests against closed forms, intervals by simulation, summaries."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tunescope.doctor.check import Bench, Line, at_most, near, same, smallest_found
from tunescope.evaluation.metrics import MetricOptions, measure
from tunescope.stats.intervals import bootstrap_mean, wilson
from tunescope.stats.paired import tango
from tunescope.stats.tests import benjamini_hochberg, holm, mcnemar_exact, sign_flip_p

NAMES = ("sad", "joy", "fear")
LOW, HIGH = 0.93, 0.97  # what the house calls right, plus four standard errors of the simulation
TRIALS = 1000


def metrics(bench: Bench) -> Iterable[Line]:
    """Compute every metric of made predictions and compare with scikit-learn's."""
    from scipy.special import softmax
    from sklearn import metrics as reference

    labels, logits = _made(300, 0)
    records = measure(labels, logits, NAMES, "test", MetricOptions(resamples=50))
    got = {(record["metric"], record["class"]): record["value"] for record in records}
    guess, shares = logits.argmax(1), softmax(logits, axis=1)
    wanted = {
        "accuracy": reference.accuracy_score(labels, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, guess),
        "matthews_corrcoef": reference.matthews_corrcoef(labels, guess),
        "log_loss": reference.log_loss(labels, shares),
        "roc_auc_ovr": reference.roc_auc_score(labels, shares, multi_class="ovr"),
        "brier_score_loss": reference.brier_score_loss(labels, shares),
        "majority_accuracy": np.bincount(labels).max() / len(labels),
    }
    for name in ("precision", "recall", "f1"):
        for average in ("macro", "weighted"):
            score = getattr(reference, f"{name}_score")(labels, guess, average=average)
            wanted[f"{name}_{average}"] = score
    for name, value in wanted.items():
        yield near(f"{name}, 300 rows, 3 classes", float(value), got.get((name, None)), 1e-10)
    for index, name in enumerate(NAMES):
        each = reference.f1_score(labels, guess, average=None)[index]
        yield near(f"f1 of {name}", float(each), got.get(("f1", name)), 1e-10)
        area = reference.roc_auc_score(labels == index, shares[:, index])
        yield near(f"area under the curve of {name}", float(area), got.get(("roc_auc_ovr", name)), 1e-10)


def _made(n: int, seed: int, signal: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, n)
    logits = generator.normal(size=(n, 3))
    logits[np.arange(n), labels] += signal
    return labels, logits


def significance(bench: Bench) -> Iterable[Line]:
    """Compare tests with their closed forms, and find the smallest difference of accuracy between two models."""
    from scipy.stats import binomtest

    for one, other in ((3, 11), (0, 6), (20, 20)):
        exact = binomtest(one, one + other, 0.5).pvalue
        yield near(f"McNemar's p of {one} against {other}", float(exact), mcnemar_exact(one, other), 1e-9)
    z = 1.959963984540054
    interval = wilson(17, 40)
    center, half = (17 + z * z / 2) / (40 + z * z), z / (40 + z * z) * math.sqrt(17 * 23 / 40 + z * z / 4)
    yield near("lower end of Wilson's interval of 17 in 40", center - half, interval.low, 1e-9)
    yield near("upper end", center + half, interval.high, 1e-9)
    p = np.array([0.001, 0.04, 0.03, 0.5])
    yield at_most(
        "Holm's correction, distance by hand", 1e-12, float(np.abs(holm(p) - [0.004, 0.09, 0.09, 0.5]).max())
    )
    gap = float(np.abs(benjamini_hochberg(p) - [0.004, 0.16 / 3, 0.16 / 3, 0.5]).max())
    yield at_most("Benjamini and Hochberg's correction, distance by hand", 1e-12, gap)
    yield near(
        "sign-flip p of eight equal effects (2 of 256 flips)", 2 / 256, float(sign_flip_p(np.ones(8))), 1e-12
    )
    null = [mcnemar_exact(*_discordant(500, 0.0, seed)) <= 0.05 for seed in range(TRIALS)]
    yield Line(
        f"equal models called different by McNemar's test, {TRIALS} trials", "at most 6.5 %",
        f"{np.mean(null):.1%}", float(np.mean(null)) <= 0.065,
    )  # fmt: skip

    def found(difference: float, trial: int) -> bool:
        return mcnemar_exact(*_discordant(1000, difference, trial)) <= 0.05

    yield smallest_found(
        "a difference of accuracy between two models that disagree on a tenth of the rows",
        "(share of 1,000 rows)",
        (0.01, 0.02, 0.03, 0.035, 0.04, 0.05, 0.08),
        200,
        found,
    )


def _discordant(n: int, difference: float, seed: int) -> tuple[int, int]:
    """Return rows that only the first and only the second model got right; they disagree on a tenth."""
    shares = [0.05 + difference / 2, 0.05 - difference / 2, 0.9]
    one, other, _ = np.random.default_rng(seed).multinomial(n, shares)
    return int(one), int(other)


def intervals(bench: Bench) -> Iterable[Line]:
    """Draw samples from populations whose truth is known, and count how often 95 % intervals hold it."""
    generator = np.random.default_rng(bench.seed)
    hits = generator.binomial(200, 0.85, TRIALS)
    known = {count: wilson(count, 200) for count in np.unique(hits).tolist()}
    yield _coverage(
        "Wilson, a share of 0.85, 200 rows", [_holds(known[count], 0.85) for count in hits.tolist()]
    )
    pairs = [_discordant(300, 0.04, seed) for seed in range(TRIALS)]
    yield _coverage(
        "Tango, a paired difference of 0.04, 300 rows",
        [_holds(tango(one, other, 300), 0.04) for one, other in pairs],
    )
    for name, draw, groups in (
        ("bootstrap of a mean, 120 rows of a skewed effect", lambda: generator.exponential(size=120), None),
        (
            "bootstrap of a mean in 60 groups of 4 rows",
            lambda: 1 + np.repeat(generator.normal(size=60), 4) + generator.normal(size=240),
            np.repeat(np.arange(60), 4),
        ),
    ):
        held = [
            _holds(bootstrap_mean(draw(), groups, resamples=400, seed=trial), 1.0)
            for trial in range(TRIALS // 2)
        ]
        yield _coverage(name, held)
    truth = _expected_accuracy()
    held, macro = list[bool](), list[bool]()
    for trial in range(200):
        labels, logits = _made(150, trial)
        found = {
            (record["metric"], record["class"]): record
            for record in measure(labels, logits, NAMES, "test", MetricOptions(seed=trial, resamples=200))
        }
        for metric, into in (("accuracy", held), ("f1_macro", macro)):
            record = found[metric, None]
            into.append(record["low"] is not None and record["low"] <= truth <= record["high"])
    yield _coverage("accuracy of 150 predictions, as runs report it", held)
    # with equal classes and exchangeable scores, macro F1 of the population is the accuracy
    yield _coverage("macro F1 of 150 predictions, as runs report it", macro)
    values = generator.normal(1.0, 1.0, (40, 100))
    wide = np.mean(
        [_width(bootstrap_mean(row, resamples=2000, seed=index)) for index, row in enumerate(values)]
    )
    yield near(
        "mean width of a bootstrap interval, 100 rows of deviation 1", 2 * 1.96 / 10, float(wide), 0.03
    )


def _holds(interval: object, truth: float) -> bool:
    low, high = getattr(interval, "low", None), getattr(interval, "high", None)
    return low is not None and high is not None and low <= truth <= high


def _width(interval: object) -> float:
    return float(getattr(interval, "high", math.nan)) - float(getattr(interval, "low", math.nan))


def _expected_accuracy() -> float:
    """Return P(the true class's score is the greatest of three), by the integral over its value."""
    from scipy.integrate import quad
    from scipy.stats import norm

    return float(quad(lambda x: norm.pdf(x - 1.5) * norm.cdf(x) ** 2, -8, 10)[0])


def _coverage(what: str, held: list[bool]) -> Line:
    share, slack = float(np.mean(held)), 4 * math.sqrt(0.95 * 0.05 / len(held))
    low, high = min(LOW, 0.95 - slack), max(HIGH, min(1.0, 0.95 + slack))
    return Line(
        f"coverage of 95 % intervals: {what}", f"{low:.1%} to {high:.1%}", f"{share:.1%} of {len(held)} samples",
        low <= share <= high,
    )  # fmt: skip


def summaries(bench: Bench) -> Iterable[Line]:
    """Score summaries whose ROUGE and METEOR can be counted by hand."""
    from tunescope.summaries.meteor import meteor
    from tunescope.summaries.metrics import score_summaries

    article = "a cat sat on the mat while rain fell on the old house"
    reference = "a cat sat on the mat"
    # 4 of 5 words, 2 of 4 pairs in order; in the reference 6 words and 5 pairs.
    prediction = "a cat on mat house"
    table = score_summaries([prediction, reference], [reference] * 2, [article] * 2, ["a", "b"])
    row, equal = table.row(0, named=True), table.row(1, named=True)
    yield near("ROUGE-1 of 4 words in 5, reference of 6", 2 * 4 / (5 + 6), row["rouge1"], 1e-9)
    yield near("ROUGE-2 of 1 pair in 4, reference of 5", 2 * 1 / (4 + 5), row["rouge2"], 1e-9)
    yield near("ROUGE-L of a common subsequence of 4", 2 * 4 / (5 + 6), row["rougeL"], 1e-9)
    yield near("ROUGE-1 of the reference itself", 1.0, equal["rouge1"], 1e-9)
    # METEOR: matches 4, precision 4/5, recall 4/6, three runs (a cat / on / mat).
    mean = (4 / 5) * (4 / 6) / (0.9 * 4 / 5 + 0.1 * 4 / 6)
    yield near(
        "METEOR by hand", mean * (1 - 0.5 * (3 / 4) ** 3),
        meteor(prediction.split(), reference.split(), stems=False), 1e-9,
    )  # fmt: skip
    yield same("share of words copied from the article in the reference", 1.0, equal["copy_rate"])
