"""The probe against the conditions of its optimum, and the control task's laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from tunescope.errors import LensError
from tunescope.stats.linear_probe import control_labels, fit_linear_probe


def test_at_the_optimum_the_gradient_of_the_penalised_likelihood_is_zero():
    generator = np.random.default_rng(0)
    plain = generator.normal(size=(300, 6))
    features, labels = plain * np.geomspace(0.01, 100, 6) + 50, plain.argmax(axis=1) % 3
    probe = fit_linear_probe(features, labels, strength=0.5)
    rows = (features - features.mean(axis=0)) / features.std(axis=0)
    probability = softmax(rows @ probe.model.coef_.T + probe.model.intercept_, axis=1)
    error = probability - np.eye(3)[labels]
    gradient = 0.5 * error.T @ rows + probe.model.coef_
    assert np.abs(gradient).max() < 0.1  # of sums over 300 rows
    assert np.abs(error.sum(axis=0)).max() < 0.2
    np.testing.assert_array_equal(probe.predict(features), probability.argmax(axis=1))


def test_a_constant_dimension_is_not_blown_up():
    generator = np.random.default_rng(1)
    features = generator.normal(size=(100, 3)).astype(np.float32)
    features[:, 1] = np.where(
        np.arange(100) % 2, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    )
    labels = (features[:, 0] > 0).astype(int)
    probe = fit_linear_probe(features, labels, 10.0)
    assert probe.scale[1] == 1
    assert (probe.predict(features) == labels).mean() > 0.95


def test_the_control_task_is_a_function_of_the_type_with_the_shares_of_the_task():
    types = np.random.default_rng(0).integers(0, 3000, 5000)
    labels = control_labels(types, [50, 30, 20], seed=4)
    by_type = {}
    for kind, label in zip(types.tolist(), labels.tolist(), strict=True):
        assert by_type.setdefault(kind, label) == label
    shares = np.bincount(list(by_type.values())) / len(by_type)
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.04)
    few = control_labels(types[:10][::-1], [50, 30, 20], seed=4)
    np.testing.assert_array_equal(few, labels[:10][::-1])  # other rows do not matter
    assert (control_labels(types, [50, 30, 20], seed=5) != labels).mean() > 0.4
    assert set(control_labels(types, [1, 0, 1], seed=0).tolist()) == {0, 2}


def test_a_probe_that_can_name_the_type_learns_the_control_task_and_one_that_cannot_does_not():
    generator = np.random.default_rng(2)
    types = generator.integers(0, 30, 900)
    labels = control_labels(types, [1, 1], seed=1)
    train, rest = slice(0, 600), slice(600, 900)
    for features, least, most in (
        (np.eye(30)[types], 0.97, 1.0),
        (generator.normal(size=(900, 5)), 0.3, 0.7),
    ):
        probe = fit_linear_probe(features[train], labels[train], 10.0)
        assert least <= (probe.predict(features[rest]) == labels[rest]).mean() <= most


def test_bad_rows_are_named():
    rows = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.raises(LensError, match="needs rows of at least two classes"):
        fit_linear_probe(rows, np.ones(8, dtype=int))
    with pytest.raises(LensError, match="1 features are NaN or infinite"):
        fit_linear_probe(np.where(rows == rows[3, 1], np.inf, rows), np.arange(8) % 2)
    with pytest.raises(ValueError, match="found 8 rows and 7 labels"):
        fit_linear_probe(rows, np.arange(7) % 2)
