"""Power, detectable differences, equivalence and the Multi-bootstrap: brute force, statsmodels, scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import power_proportions_2indep
from statsmodels.stats.weightstats import ttost_paired

from tunescope.stats.equivalence import equivalent_draws, equivalent_shares
from tunescope.stats.intervals import bootstrap_mean
from tunescope.stats.multiboot import independent_difference, multi_bootstrap, seed_spread
from tunescope.stats.paired import tango
from tunescope.stats.power import (
    detectable_from_error,
    mcnemar_power,
    paired_detectable,
    unpaired_detectable,
)
from tunescope.stats.tests import mcnemar_exact


@pytest.mark.parametrize(
    ("n", "first", "second"),
    [(12, 0.5, 0.1), (30, 0.3, 0.05), (45, 0.2, 0.2), (25, 0.9, 0.1), (20, 0.3, 0.0)],
)
def test_the_power_of_mcnemars_test_is_that_of_enumeration(n, first, second):
    expected = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        if b + c <= n and mcnemar_exact(b, c) <= 0.05:
            expected += stats.multinomial.pmf(
                [b, c, n - b - c], n, [first, second, max(1 - first - second, 0)]
            )
    assert mcnemar_power(n, first, second) == pytest.approx(expected, abs=1e-9)


def test_power_under_no_difference_keeps_the_level_and_with_no_disagreement_is_none():
    for n in (30, 872, 25_000):
        assert mcnemar_power(n, 0.06, 0.06) <= 0.05
    assert mcnemar_power(25_000, 0.06, 0.06) > 0.04
    assert mcnemar_power(100, 0.0, 0.0) == 0.0
    with pytest.raises(ValueError, match="together at most 1"):
        mcnemar_power(100, 0.6, 0.6)


@pytest.mark.parametrize(("n", "discordant"), [(872, 60), (872, 139), (5463, 500), (100, 30)])
def test_the_detectable_difference_is_found_in_80_percent_of_cases(n, discordant):
    found = paired_detectable(n, discordant)
    share = (discordant + 1) / (n + 2)
    power = mcnemar_power(n, (share + found.value) / 2, (share - found.value) / 2)
    assert power == pytest.approx(0.8, abs=1e-3)
    # Connor's (1987) normal formula, within what discreteness makes of it
    z = stats.norm.ppf([0.975, 0.8])
    normal = (z[0] * np.sqrt(share) + z[1] * np.sqrt(share - found.value**2)) / np.sqrt(n)
    assert found.value == pytest.approx(normal, rel=0.12)


def test_too_few_rows_detect_nothing():
    found = paired_detectable(30, 2)
    assert found.value is None
    assert "30 rows" in found.note
    assert paired_detectable(0, 0).value is None
    assert unpaired_detectable(5, 5, 0.99).value is None
    with pytest.raises(ValueError, match="0 to 30"):
        paired_detectable(30, 31)
    with pytest.raises(ValueError, match="share"):
        unpaired_detectable(5, 5, 1.2)


@pytest.mark.parametrize(("n", "share"), [(872, 0.9203), (30, 0.45), (5463, 0.874)])
def test_the_unpaired_detectable_difference_has_that_power_in_statsmodels(n, share):
    found = unpaired_detectable(n, n, share)
    theirs = power_proportions_2indep(found.value, share - found.value / 2, n, return_results=False)
    assert theirs == pytest.approx(0.8, abs=2e-3)


def test_the_detectable_difference_of_a_standard_error_is_the_closed_form():
    found = detectable_from_error(0.01, "a bootstrap")
    assert found.value == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-5)
    assert detectable_from_error(0.0, "a bootstrap").value is None


@pytest.mark.parametrize(
    ("b", "c", "n"), [(20, 22, 872), (0, 0, 30), (0, 0, 500), (10, 4, 872), (90, 80, 5463)]
)
@pytest.mark.parametrize("within", [0.005, 0.01, 0.02])
def test_equivalence_is_the_90_percent_interval_inside_the_margin(b, c, n, within):
    found, interval = equivalent_shares(b, c, n, within), tango(b, c, n, 0.90)
    inside = -within < interval.low and interval.high < within
    assert (found.p <= 0.05) == inside


def test_equivalence_of_shares_approaches_the_t_tests_of_statsmodels():
    b, c, n = 300, 320, 20_000
    difference = np.r_[np.ones(b), -np.ones(c), np.zeros(n - b - c)]
    theirs = ttost_paired(difference, np.zeros(n), -0.004, 0.004)[0]
    assert equivalent_shares(b, c, n, 0.004).p == pytest.approx(theirs, rel=0.08)
    draws = np.random.default_rng(0).normal(difference.mean(), difference.std() / np.sqrt(n), 200_000)
    assert equivalent_draws(draws, 0.004).p == pytest.approx(theirs, rel=0.1)


def test_equivalence_needs_a_margin_and_draws_that_vary():
    assert equivalent_draws(np.zeros(50), 0.01).p is None
    assert equivalent_shares(0, 0, 0, 0.01).p is None
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="margin above 0"):
            equivalent_draws(np.arange(5.0), wrong)
    with pytest.raises(ValueError, match="below 1"):
        equivalent_shares(1, 1, 5, 1.0)


def test_where_only_seeds_matter_the_multi_bootstrap_is_the_t_interval():
    value = np.array([0.90, 0.92, 0.91, 0.95, 0.89, 0.93])
    found = multi_bootstrap(value, np.repeat(value[:, None], 40_000, axis=1), 100)
    expected = stats.t.interval(0.95, 5, value.mean(), value.std(ddof=1) / np.sqrt(6))
    assert (found.interval.low, found.interval.high) == pytest.approx(expected, abs=0.001)
    assert found.seed_error == pytest.approx(stats.sem(value))
    assert found.row_error == pytest.approx(0, abs=1e-12)


def test_where_only_rows_matter_it_is_the_bootstrap_of_rows():
    rows = (np.random.default_rng(0).random(300) < 0.8).astype(float)
    weights = np.random.default_rng(1).multinomial(300, np.full(300, 1 / 300), size=8000)
    drawn = np.tile(weights @ rows / 300, (5, 1))
    found = multi_bootstrap(np.full(5, rows.mean()), drawn, 300)
    plain = bootstrap_mean(rows, resamples=8000, seed=2)
    assert (found.interval.low, found.interval.high) == pytest.approx((plain.low, plain.high), abs=0.006)
    assert found.seed_error == pytest.approx(0, abs=1e-12)


def test_as_published_it_resamples_seeds():
    value = np.array([0.0, 1.0])
    drawn = np.repeat(value[:, None], 40_000, axis=1)
    found = multi_bootstrap(value, drawn, 10, as_published=True).drawn
    assert np.bincount((found * 2).round().astype(int)) / 40_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.01)


def test_independent_seeds_add_their_variances():
    drawn = np.repeat(np.array([0.1, 0.2, 0.3, 0.2, 0.2])[:, None], 50_000, axis=1)
    one = multi_bootstrap(drawn[:, 0], drawn, 10, seed=1)
    other = multi_bootstrap(drawn[:, 0] - 0.1, drawn - 0.1, 10, seed=2)
    gap = independent_difference(one, other, 10)
    assert gap.interval.value == pytest.approx(0.1)
    assert gap.seed_error == pytest.approx(one.seed_error * np.sqrt(2))
    assert gap.drawn.std() == pytest.approx(one.drawn.std() * np.sqrt(2), rel=0.05)


def test_the_multi_bootstrap_refuses_one_seed():
    with pytest.raises(ValueError, match="S of 2 or more"):
        multi_bootstrap(np.array([0.9]), np.zeros((1, 10)), 5)


def test_the_spread_over_seeds_has_the_chi_square_interval_from_three_seeds_on():
    values = np.array([0.90, 0.92, 0.91, 0.95])
    found = seed_spread(values)
    low, high = (np.sqrt(3 * values.var(ddof=1) / stats.chi2.ppf(tail, 3)) for tail in (0.975, 0.025))
    assert found["standard_deviation"] == pytest.approx(values.std(ddof=1))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    two = seed_spread(values[:2])
    assert (two["standard_deviation"], two["note"]) == (None, "2 of the 3 seeds that a spread needs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed_part", "row_part", "joint_part", "as_published"),
    [
        (0.06, 0.1, 0.05, False),
        (0.0, 0.1, 0.05, False),
        (0.0, 0.05, 0.3, False),
        (0.02, 0.2, 0.2, False),
        (0.06, 0.1, 0.05, True),
    ],
)
def test_coverage_of_the_multi_bootstrap_over_five_seeds(seed_part, row_part, joint_part, as_published):
    """The interval of a recipe's mean: nominal 95 %; as published, seeds that matter make it too narrow."""
    generator = np.random.default_rng(7)
    repetitions, n, seeds, hits = 600, 100, 5, 0
    for _ in range(repetitions):
        own, rows = generator.normal(0, seed_part, seeds), generator.normal(0, row_part, n)
        table = own[:, None] + rows + generator.normal(0, joint_part, (seeds, n))
        weights = generator.multinomial(n, np.full(n, 1 / n), size=400)
        found = multi_bootstrap(
            table.mean(axis=1),
            table @ weights.T / n,
            n,
            as_published=as_published,
            seed=int(generator.integers(2**31)),
        )
        hits += found.interval.low <= 0 <= found.interval.high
    coverage = hits / repetitions
    if as_published:
        assert 0.78 < coverage < 0.90
    else:
        assert 0.925 < coverage < 0.975
