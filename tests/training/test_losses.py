"""Losses against torch's own, against formulas written out, and against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tunescope.training.losses import ClassLoss, Moments, VarianceLoss, variance_share

LAWS = settings(max_examples=40, deadline=None)


def drawn(seed=0, rows=17, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator) * 2
    return logits, torch.randint(0, classes, (rows,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_of_a_batch_sum_to_torchs_own_mean(smoothing, weighted):
    logits, labels = drawn()
    weights = torch.tensor([0.3, 1.0, 2.5, 4.0]) if weighted else None
    loss = ClassLoss(weights, None, smoothing)
    cuts = [slice(0, 3), slice(3, 4), slice(4, 17)]
    mass = sum(loss.mass(labels[cut]) for cut in cuts)
    found = sum(loss.total(logits[cut], labels[cut]) / mass for cut in cuts)
    expected = functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_weights_and_smoothing_are_the_documented_formula():
    logits, labels = drawn(1)
    weights, e = torch.tensor([0.3, 1.0, 2.5, 4.0]), 0.1
    logs = logits.log_softmax(1)
    rows = [
        -(1 - e) * weights[y] * logs[i, y] - e / 4 * sum(weights[c] * logs[i, c] for c in range(4))
        for i, y in enumerate(labels.tolist())
    ]
    total = ClassLoss(weights, None, e).total(logits, labels)
    assert float(total) == pytest.approx(float(sum(rows)), rel=1e-5)


def test_logit_adjustment_is_menons_loss():
    """log(1 + sum over y' != y of (pi_y' / pi_y)^tau exp(f_y' - f_y)): the pairwise form of the paper."""
    logits, labels = drawn(2, classes=3)
    shares, tau = np.array([0.7, 0.2, 0.1]), 1.5
    adjustment = torch.tensor(tau * np.log(shares), dtype=torch.float32)
    found = ClassLoss(None, adjustment).total(logits, labels, reduction="none")
    for row, y in enumerate(labels.tolist()):
        others = sum(
            (shares[c] / shares[y]) ** tau * np.exp(float(logits[row, c] - logits[row, y]))
            for c in range(3) if c != y
        )  # fmt: skip
        assert float(found[row]) == pytest.approx(np.log1p(others), rel=1e-5)


@LAWS
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 29))
def test_moments_of_parts_add_up(seed, rows, cut):
    values = np.random.default_rng(seed).normal(3, 2, (rows, 5))
    cut = min(cut, rows - 1)
    found = Moments.of(torch.from_numpy(values[:cut])) + Moments.of(torch.from_numpy(values[cut:]))
    assert found.n == rows
    assert np.allclose(found.mean.numpy(), values.mean(0))
    assert np.allclose(found.variance.numpy(), values.var(0))


@pytest.mark.parametrize("weight", [-0.3, 0.7])
def test_gradient_of_the_variance_term_is_autograds(weight):
    pooled = torch.randn(13, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 + 1
    dimensions = torch.tensor([1, 4])
    whole = pooled.clone().requires_grad_()
    value = weight * variance_share(whole, dimensions)
    value.backward()
    parts = pooled.clone().requires_grad_()
    moments = Moments.of(pooled)
    term = VarianceLoss(dimensions, weight)
    losses = [term.part(parts[cut], moments) for cut in (slice(0, 5), slice(5, 6), slice(6, 13))]
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(value.item(), rel=1e-6)
    assert torch.allclose(parts.grad, whole.grad, atol=1e-12)
    step = 1e-6  # and by hand: a difference quotient at one entry
    moved = pooled.clone()
    moved[2, 4] += step
    slope = weight * (variance_share(moved, dimensions) - variance_share(pooled, dimensions)) / step
    assert float(parts.grad[2, 4]) == pytest.approx(float(slope), rel=1e-3)


def test_the_share_is_blind_to_scale_and_nothing_varying_is_no_term():
    pooled = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    dimensions = torch.tensor([2])
    assert float(variance_share(pooled * 7, dimensions)) == pytest.approx(
        float(variance_share(pooled, dimensions)), rel=1e-5
    )
    equal = torch.ones(5, 4, requires_grad=True)
    part = VarianceLoss(dimensions, 1.0).part(equal, Moments.of(equal))
    assert part.item() == 0.0
