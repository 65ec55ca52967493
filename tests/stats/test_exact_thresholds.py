"""Exact thresholds against brute force, and against the grid of the study that they replace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunescope.errors import LensError
from tunescope.stats.thresholds import best_thresholds


def brute_force(values: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Every cut between distinct values (and beyond all), every pair of classes."""
    best = 0.0
    for cut in [-np.inf, *np.unique(values)]:
        low = values <= cut
        for below in range(classes):
            for above in range(classes):
                best = max(best, float((np.where(low, below, above) == labels).mean()))
    return best


def grid_search(values: np.ndarray, labels: np.ndarray) -> float:
    """Study 001's successor: mean + epsilon, 201 offsets from -50 to 50, both orientations."""
    cuts = values.mean() + np.linspace(-50, 50, 201)
    above = (values[None] > cuts[:, None]) == labels[None]
    return float(np.maximum(above.mean(axis=1), 1 - above.mean(axis=1)).max())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 4), st.booleans())
def test_accuracy_equals_brute_force_also_with_ties(seed, rows, classes, ties):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, 3))
    values = np.round(values) if ties else values
    labels = generator.integers(0, classes, rows)
    found = best_thresholds(values, labels, classes)
    for dimension in range(3):
        assert found.accuracy[dimension] == pytest.approx(
            brute_force(values[:, dimension], labels, classes), abs=1e-12
        )
    np.testing.assert_allclose(found.scores(values, labels), found.accuracy, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 0.3, 10.0])
def test_never_worse_than_the_grid_on_the_rows_it_was_fitted_on(scale):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    values = (generator.normal(size=400) + 1.2 * labels) * scale
    exact = best_thresholds(values[:, None], labels, 2).accuracy[0]
    assert exact >= grid_search(values, labels)
    if scale == 0.01:  # the grid's step of 0.5 skips a dimension this narrow
        assert exact > grid_search(values, labels) + 0.02


def test_both_orientations_shift_and_scale_do_not_matter():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 300)
    values = generator.normal(size=(300, 4)) + labels[:, None]
    plain = best_thresholds(values, labels, 3).accuracy
    np.testing.assert_allclose(best_thresholds(-3 * values + 7, labels, 3).accuracy, plain, atol=1e-12)
    order = generator.permutation(300)
    np.testing.assert_allclose(best_thresholds(values[order], labels[order], 3).accuracy, plain, atol=1e-12)


def test_neighbouring_floats_are_cut_between_and_chunks_do_not_matter(monkeypatch):
    one = np.float32(1.0)
    values = np.array([[one], [np.nextafter(one, np.float32(2))]])
    found = best_thresholds(values, np.array([0, 1]), 2)
    assert found.predict(values)[:, 0].tolist() == [0, 1]
    generator = np.random.default_rng(2)
    many, labels = generator.normal(size=(50, 17)), generator.integers(0, 2, 50)
    whole = best_thresholds(many, labels, 2)
    monkeypatch.setattr("tunescope.stats.thresholds.CHUNK_NUMBERS", 250)
    np.testing.assert_array_equal(best_thresholds(many, labels, 2).cut, whole.cut)


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "rows of values and as many labels"),
        (np.array([[np.nan]]), np.array([0]), "dimension 0 in row 0 is not finite"),
        (np.zeros((2, 1)), np.array([0, 5]), "class indices from 0 to 1"),
    ],
)
def test_bad_input_is_said(values, labels, message):
    with pytest.raises(LensError, match=message):
        best_thresholds(values, labels, 2)
