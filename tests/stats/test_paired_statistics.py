"""Paired comparison: against brute force, scipy, statsmodels and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import metrics
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from tunescope.evaluation.confusion import ConfusionSweep
from tunescope.evaluation.sweep import confusion_values
from tunescope.stats.intervals import bootstrap_mean
from tunescope.stats.paired import (
    agreement,
    bootstrap_p,
    cell_weights,
    sample_of,
    shared_bootstrap,
    tango,
    tango_p,
)
from tunescope.stats.tests import holm, mcnemar_exact, mcnemar_range


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_holm_is_that_of_statsmodels(n):
    p = np.random.default_rng(n).random(n) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
    with_gap = np.append(p, np.nan)
    np.testing.assert_allclose(holm(with_gap)[:-1], holm(p))
    assert np.isnan(holm(with_gap)[-1])
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([-0.1])


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 0), (13, 26), (76, 63), (5, 5), (120, 80)])
def test_mcnemar_is_that_of_statsmodels(b, c):
    theirs = their_mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(theirs, abs=1e-12)


def test_the_range_of_p_over_all_tables_is_that_of_enumeration():
    for right, other, n in ((15, 12, 30), (9, 2, 10), (10, 10, 10), (4, 4, 9)):
        tables = [
            mcnemar_exact(right - both, other - both) for both in range(max(0, right + other - n), other + 1)
        ]
        assert mcnemar_range(right, other, n) == (min(tables), max(tables))
        assert mcnemar_range(other, right, n) == (min(tables), max(tables))
    with pytest.raises(ValueError, match="from 0 to 10"):
        mcnemar_range(11, 2, 10)


def z_by_likelihood(b, c, n, margin):
    """The score statistic with the constrained maximum found by a search instead of a formula."""

    def loss(q):
        shares = np.array([q + margin, q, 1 - 2 * q - margin])
        return np.inf if (shares < 0).any() else -stats.multinomial.logpmf([b, c, n - b - c], n, shares)

    low, high = max(0.0, -margin), (1 - margin) / 2
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return (b - c - n * margin) / np.sqrt(n * (2 * best.x + margin - margin**2))


@pytest.mark.parametrize(("b", "c", "n"), [(9, 3, 30), (12, 40, 872), (30, 30, 100), (5, 1, 44)])
@pytest.mark.parametrize("margin", [-0.2, -0.02, 0.01, 0.1])
def test_tangos_statistic_is_the_score_at_the_constrained_maximum(b, c, n, margin):
    expected = 2 * stats.norm.sf(abs(z_by_likelihood(b, c, n, margin)))
    assert tango_p(b, c, n, margin) == pytest.approx(expected, rel=2e-3, abs=1e-9)


def test_at_no_difference_tangos_test_is_mcnemars_without_correction():
    theirs = their_mcnemar([[1, 30], [18, 1]], exact=False, correction=False).pvalue
    assert tango_p(30, 18, 100, 0.0) == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize(
    ("b", "c", "n"), [(9, 3, 30), (0, 0, 30), (0, 4, 50), (30, 0, 30), (0, 5, 5), (69, 40, 872)]
)
def test_tangos_interval_ends_where_its_test_begins_to_reject(b, c, n):
    found = tango(b, c, n)
    assert found.value == pytest.approx((b - c) / n)
    for end in (found.low, found.high):
        if abs(end) < 1 - 1e-6:
            assert tango_p(b, c, n, end) == pytest.approx(0.05, abs=1e-6)
    turned = tango(c, b, n)
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_no_discordant_row_is_no_certainty():
    found = tango(0, 0, 30)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(1.959964**2 / (30 + 1.959964**2), rel=1e-5)  # Wilson's for 0 of 30
    assert tango(0, 0, 0).value is None


def test_tangos_interval_covers_in_exact_enumeration():
    n, first, second = 40, 0.15, 0.08
    covered = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c <= n:
            chance = stats.multinomial.pmf([b, c, n - b - c], n, [first, second, 1 - first - second])
            if chance > 1e-7:
                found = tango(b, c, n)
                covered += chance * (found.low <= first - second <= found.high)
    assert 0.93 < covered < 0.975


def test_agreement_counts_and_refuses_unequal_lengths():
    found = agreement([0, 1, 1, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0])
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 2, 1, 1)
    assert (found.n, found.discordant) == (5, 3)
    with pytest.raises(ValueError, match="equal lengths"):
        agreement([0, 1], [0], [1, 1])


def many_weights(sample, resamples=4000, seed=0):
    return np.concatenate(list(cell_weights(sample, resamples, seed)), axis=1)


def test_cells_are_drawn_as_their_rows_would_be():
    columns = np.array([[0, 0]] * 50 + [[0, 1]] * 30 + [[1, 1]] * 20)
    sample = sample_of(columns)
    assert sorted(sample.counts) == [20, 30, 50]
    weights = many_weights(sample)
    assert (weights.sum(axis=0) == 100).all()
    share = sample.counts / 100
    assert weights.mean(axis=1) == pytest.approx(sample.counts, abs=0.4)
    assert weights.var(axis=1) == pytest.approx(100 * share * (1 - share), rel=0.1)
    alone = sample_of(np.arange(100)[:, None])  # as many cells as rows: dealt one by one
    assert many_weights(alone, 500).sum(axis=0) == pytest.approx(np.full(500, 100.0))
    assert many_weights(alone, 2000).var() == pytest.approx(0.99, rel=0.05)


def test_rows_of_a_group_are_drawn_together():
    groups = np.array([0, 0, 1, 1, 1, 2])
    sample = sample_of(np.array([[0], [1], [0], [0], [1], [0]]), groups)
    assert sample.units == 3
    weights = many_weights(sample, 200)
    for group in range(3):
        own = weights[sample.groups == group] / sample.counts[sample.groups == group][:, None]
        assert (own == own[0]).all()


def test_statistics_of_a_resample_are_scikit_learns_on_its_rows():
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 60)
    guesses = np.where(generator.random((2, 60)) < 0.7, truth, generator.integers(0, 3, (2, 60)))
    sample = sample_of(np.column_stack([truth, *guesses]))
    sweeps = [ConfusionSweep(truth[sample.first], one[sample.first], 3) for one in guesses]
    statistics = {
        i: lambda weights, sweep=sweep: confusion_values(sweep.counts(weights))["f1_macro", None]
        for i, sweep in enumerate(sweeps)
    }
    draws = shared_bootstrap(statistics, sample, resamples=25, seed=3)
    weights = many_weights(sample, 25, 3).astype(int)
    for r in range(25):
        rows = np.repeat(sample.first, weights[:, r])
        for i in (0, 1):
            expected = metrics.f1_score(truth[rows], guesses[i][rows], average="macro")
            assert draws.drawn[i][r] == pytest.approx(expected, abs=1e-9)
    assert draws.value[0] == pytest.approx(metrics.f1_score(truth, guesses[0], average="macro"))


def test_the_bootstrap_of_cells_gives_the_interval_of_the_bootstrap_of_rows():
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 500)) < np.array([[0.9], [0.86]])
    sample = sample_of(np.column_stack([first, second]))
    place = sample.first
    right = {
        k: lambda w, v=v: v[place].astype(float) @ w / w.sum(axis=0) for k, v in enumerate((first, second))
    }
    draws = shared_bootstrap(right, sample, resamples=6000)
    gap = draws.drawn[0] - draws.drawn[1]
    plain = bootstrap_mean(first.astype(float) - second, resamples=6000, seed=1)
    assert np.quantile(gap, [0.025, 0.975]) == pytest.approx([plain.low, plain.high], abs=0.003)
    assert bootstrap_p(gap) == pytest.approx(
        2 * stats.norm.sf(abs(gap.mean()) / gap.std()), rel=0.35, abs=0.003
    )


def test_draws_that_do_not_vary_have_no_p():
    assert bootstrap_p(np.zeros(100)) is None
    assert bootstrap_p(np.array([np.nan, 1.0])) is None
    assert bootstrap_p(np.arange(1.0, 100.0)) == pytest.approx(2 / 100)
