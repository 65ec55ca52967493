"""Tests of hypotheses: against scipy, closed forms and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from tunescope.errors import LensError
from tunescope.stats import benjamini_hochberg, mcnemar_exact, sign_flip_p


@pytest.mark.parametrize("n", [1, 2, 5, 144])
def test_benjamini_hochberg_is_scipys(n):
    p = np.random.default_rng(n).random(n) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)
    ties = np.round(p, 1)
    np.testing.assert_allclose(benjamini_hochberg(ties), stats.false_discovery_control(ties), rtol=1e-12)


def test_tests_that_were_not_made_do_not_count():
    p = np.array([[0.01, np.nan, 0.04], [np.nan, 0.03, 0.9]])
    q = benjamini_hochberg(p)
    assert q.shape == p.shape
    assert np.isnan(q[np.isnan(p)]).all()
    np.testing.assert_allclose(q[~np.isnan(p)], stats.false_discovery_control(p[~np.isnan(p)]))
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    assert benjamini_hochberg([]).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1"):
        benjamini_hochberg([0.5, 1.2])


def test_few_rows_are_enumerated_exactly():
    values = np.random.default_rng(0).normal(0.7, 1, 9)
    flips = np.array(list(itertools.product([1, -1], repeat=9)))
    expected = np.mean(np.abs(flips @ values) >= abs(values.sum()) - 1e-12)
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-15)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(values) == pytest.approx(theirs, abs=1e-12)


def test_ties_in_exact_arithmetic_count_as_reached():
    values = np.array([0.1, 0.2, 0.3, 0.6])  # 0.1 + 0.2 != 0.3 in floating point
    flips = np.array(list(itertools.product([1, -1], repeat=4)))
    expected = np.mean(np.abs(flips @ np.array([1, 2, 3, 6])) >= 12)
    assert sign_flip_p(values) == expected == 2 / 16
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0
    assert sign_flip_p(np.array([0.3, 0.3, 0.2, -0.1])) == 4 / 16  # sums of 0.7 that differ in the last digit
    assert sign_flip_p(np.full(6, 0.3)) == 2 / 64


def test_many_rows_are_drawn_and_agree_with_the_exact_value():
    values = np.random.default_rng(3).normal(0.5, 1, 18)
    exact = sign_flip_p(values, permutations=2**17)
    drawn = sign_flip_p(values, permutations=20_000)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert drawn != exact


def test_p_is_never_zero():
    p = sign_flip_p(np.random.default_rng(0).normal(9, 1, 50), permutations=999)
    assert p == pytest.approx(1 / 1000, abs=1e-15)


def test_columns_are_single_tests_on_the_same_flips():
    table = np.random.default_rng(0).normal(size=(60, 4)) + np.array([0, 0.2, 0.4, 2])
    together = sign_flip_p(torch.tensor(table), permutations=2000, seed=5)
    assert together.shape == (4,)
    for column in range(4):
        assert together[column] == sign_flip_p(table[:, column], permutations=2000, seed=5)
    assert together[3] < 0.001 < together[0]
    assert sign_flip_p(-table, permutations=2000, seed=5).tolist() == together.tolist()


def rejections(draw, repeats):
    return np.mean(
        [sign_flip_p(*draw(np.random.default_rng(s)), permutations=499) <= 0.05 for s in range(repeats)]
    )


def test_the_level_holds_under_no_effect_and_needs_clusters_where_rows_depend():
    def clustered(generator, known):
        groups = np.repeat(np.arange(15), 6)
        return generator.normal(size=15)[groups] + 0.3 * generator.normal(size=90), groups if known else None

    assert rejections(lambda g: (g.standard_t(3, 40),), 600) == pytest.approx(0.05, abs=0.03)
    assert rejections(lambda g: clustered(g, True), 600) == pytest.approx(0.05, abs=0.03)
    assert rejections(lambda g: clustered(g, False), 200) > 0.25


def test_what_cannot_be_tested_is_nan_and_what_cannot_differ_is_one():
    assert np.isnan(sign_flip_p(np.zeros(0)))
    assert np.isnan(sign_flip_p(np.zeros((0, 3)))).all()
    assert sign_flip_p(np.zeros(40)) == 1.0
    assert sign_flip_p(np.array([5.0])) == 1.0
    with pytest.raises(LensError, match="1 values are NaN"):
        sign_flip_p(np.array([1.0, np.inf]))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (5, 5), (3, 12), (12, 3), (0, 20), (400, 460)])
def test_mcnemar_is_the_exact_binomial(b, c):
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-10)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="found -1 and 2"):
        mcnemar_exact(-1, 2)
