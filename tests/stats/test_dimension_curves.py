"""Removal curves against one evaluation per point, refitted heads against numpy's least squares, shares against 1."""

from __future__ import annotations

import numpy as np
import pytest

from tunescope.errors import LensError
from tunescope.stats.dimension_curves import Linear, logit_shares, refit_curve, removal_curve


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(120, 9)) * np.geomspace(0.1, 10, 9) + generator.normal(size=9)
    labels = generator.integers(0, 3, 120)
    head = Linear(generator.normal(size=(3, 9)), generator.normal(size=3))
    return values, labels, head, generator.permutation(9)


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_a_removal_curve_equals_one_evaluation_per_point(problem, fill):
    values, labels, head, order = problem
    target = np.zeros(9) if fill == "zero" else values.mean(axis=0)
    curve = removal_curve(values, labels, head, order, target)
    for step in range(10):
        edited = values.copy()
        edited[:, order[:step]] = target[order[:step]]
        np.testing.assert_array_equal(curve[step], head.logits(edited).argmax(axis=1) == labels)


def test_refitted_heads_equal_least_squares_on_what_is_left(problem):
    values, labels, _, order = problem
    labels = (values[:, order[-1]] > values[:, order[-1]].mean()).astype(int) + (values[:, order[0]] > 0)
    fitted, test = (values[:80], labels[:80]), (values[80:], labels[80:])
    curve = refit_curve(fitted, test, order, 3)
    one_hot = np.eye(3)[labels[:80]]
    for step in range(10):
        left = order[step:]
        design = np.column_stack([np.ones(80), values[:80][:, left]])
        solution = np.linalg.lstsq(design, one_hot, rcond=None)[0]
        logits = np.column_stack([np.ones(40), values[80:][:, left]]) @ solution
        assert (curve[step] == (logits.argmax(axis=1) == labels[80:])).mean() >= 0.95, step
    assert curve[0].mean() > curve[9].mean()


def test_an_order_that_misses_a_dimension_is_refused(problem):
    values, labels, _, order = problem
    with pytest.raises(LensError, match="every dimension once"):
        refit_curve((values, labels), (values, labels), order[:-1], 3)


def test_shares_sum_to_one_and_equal_their_definition(problem):
    values, _, head, _ = problem
    shares = logit_shares(values, head)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-10)
    two = Linear(head.weight[:2], head.bias[:2])
    terms = (two.weight[1] - two.weight[0]) * values
    difference = terms.sum(axis=1)
    expected = [np.cov(terms[:, d], difference)[0, 1] / difference.var(ddof=1) for d in range(9)]
    np.testing.assert_allclose(logit_shares(values, two)[1], expected, atol=1e-10)
    with pytest.raises(LensError, match="same in every row"):
        logit_shares(np.ones((4, 9)), head)
