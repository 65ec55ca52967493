"""Prior shift: Bayes' rule on generated data, and the likelihood's maximum by another optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from tunescope.errors import DataError
from tunescope.evaluation import correct_prior, estimate_prior

TRAIN = np.array([0.6, 0.3, 0.1])


def made(n, prior, seed=0, signal=1.5):
    """Rows of a prior, under the Bayes logits of the training prior."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, n, p=prior)
    scores = generator.normal(size=(n, 3))
    scores[np.arange(n), labels] += signal
    return labels, signal * scores + np.log(TRAIN)


def test_corrected_logits_are_bayes_rule():
    _, logits = made(50, TRAIN)
    target = np.array([0.2, 0.3, 0.5])
    joint = softmax(logits, axis=1) / TRAIN * target
    got = softmax(correct_prior(logits, 970 * TRAIN, target), axis=1)
    np.testing.assert_allclose(got, joint / joint.sum(axis=1, keepdims=True), rtol=1e-10)
    np.testing.assert_allclose(correct_prior(logits, TRAIN, TRAIN), logits, atol=1e-12)


def test_the_correction_helps_where_the_prior_shifted():
    target = np.array([0.1, 0.2, 0.7])
    labels, logits = made(4000, target)
    before = (logits.argmax(axis=1) == labels).mean()
    after = (correct_prior(logits, TRAIN, target).argmax(axis=1) == labels).mean()
    unseen = (
        correct_prior(logits, TRAIN, estimate_prior(logits, TRAIN).prior).argmax(axis=1) == labels
    ).mean()
    assert before < 0.65 < 0.78 < after
    assert unseen == pytest.approx(after, abs=0.01)


def test_the_estimate_is_the_likelihoods_maximum():
    _, logits = made(500, [0.1, 0.2, 0.7])
    ratio = softmax(logits, axis=1) / TRAIN

    def loss(free):
        return -np.log(ratio @ softmax(np.r_[0, free])).sum()

    best = softmax(np.r_[0, minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8}).x])
    estimate = estimate_prior(logits, TRAIN, resamples=0)
    np.testing.assert_allclose(estimate.prior, best, atol=1e-5)
    assert estimate.converged
    assert estimate.prior.sum() == pytest.approx(1)
    assert np.isnan(estimate.low).all()


def test_the_intervals_hold_the_planted_prior():
    target, inside = np.array([0.3, 0.3, 0.4]), []
    for seed in range(60):
        estimate = estimate_prior(made(300, target, seed)[1], TRAIN, seed, resamples=100)
        inside.append((estimate.low <= target) & (target <= estimate.high))
    assert 0.87 <= np.mean(inside) <= 0.99


def test_what_cannot_be_corrected_is_said():
    logits = np.zeros((4, 3))
    with pytest.raises(
        DataError, match=r"Class 2 has no row in training: no prior corrects its logits"
    ) as caught:
        correct_prior(logits, [1, 1, 0], [1, 1, 1])
    assert "Leave the class out" in caught.value.hint
    assert correct_prior(logits, [1, 1, 1], [1, 1, 0])[0, 2] == -np.inf
    with pytest.raises(DataError, match=r"one target share per class, \(3,\) of them; found \(2,\)"):
        correct_prior(logits, [1, 1, 1], [1, 1])
    with pytest.raises(
        DataError, match=r"training shares of at least 0 with a positive sum; found \[1.0, -1.0"
    ):
        correct_prior(logits, [1, -1, 1], [1, 1, 1])
    with pytest.raises(DataError, match="cannot be estimated from no rows"):
        estimate_prior(np.zeros((0, 3)), [1, 1, 1])
    with pytest.raises(DataError, match="Class 0 has no row in training: its share cannot be estimated"):
        estimate_prior(logits, [0, 1, 1])
