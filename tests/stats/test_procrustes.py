"""Orthogonal Procrustes against scipy, its laws, and streamed against whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes

from tunescope.errors import LensError
from tunescope.stats.procrustes import CrossCovariance, fewest_dimensions, procrustes


@pytest.fixture(scope="module")
def pair():
    generator = np.random.default_rng(0)
    first = generator.normal(size=(50, 8)) * np.geomspace(0.1, 4, 8) + 3
    return first, np.tanh(first) + 0.3 * generator.normal(size=(50, 8))


def test_similarity_and_residual_equal_scipys(pair):
    found = procrustes(*pair)
    assert found.residual == pytest.approx(scipy_procrustes(*pair)[2], abs=1e-12)
    unit = [(x - x.mean(axis=0)) / np.linalg.norm(x - x.mean(axis=0)) for x in pair]
    assert found.similarity == pytest.approx(orthogonal_procrustes(*unit)[1], abs=1e-12)


def test_other_widths_equal_scipys_with_columns_of_zeros(pair):
    first, second = pair[0], pair[1][:, :5]
    padded = np.concatenate([second, np.zeros((50, 3))], axis=1)
    assert procrustes(first, second).residual == pytest.approx(scipy_procrustes(first, padded)[2], abs=1e-12)


def test_a_rotated_shifted_scaled_copy_is_equal_and_a_sheared_one_is_not(pair):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    assert procrustes(pair[0], 7 * pair[0] @ turn + 2).similarity == pytest.approx(1, abs=1e-12)
    assert procrustes(pair[0], pair[0] / pair[0].std(axis=0)).similarity < 0.95


def test_any_sharding_gives_the_same_value(pair):
    first, second = pair
    parts = [CrossCovariance((8, 8)).update(first[k::3], second[k::3]) for k in range(3)]
    merged = parts[2] + parts[0] + parts[1] + CrossCovariance((8, 8))
    assert merged.count == 50
    assert merged.similarity().value == pytest.approx(procrustes(first, second).similarity, abs=1e-12)
    np.testing.assert_allclose(
        merged.products, CrossCovariance((8, 8)).update(first, second).products, atol=1e-9
    )


def test_fewer_dimensions_change_nothing(pair):
    generator = np.random.default_rng(2)
    wide = generator.normal(size=(12, 90)), generator.normal(size=(12, 70))
    small = [fewest_dimensions(x) for x in wide]
    assert [x.shape for x in small] == [(12, 12), (12, 12)]
    assert procrustes(*small).similarity == pytest.approx(procrustes(*wide).similarity, abs=1e-10)
    assert fewest_dimensions(pair[0]) is pair[0]


def test_what_has_no_value_says_why(pair):
    first, second = pair
    found = procrustes(np.full((50, 8), 0.1, dtype=np.float32), second)
    assert np.isnan(found.similarity)
    assert found.undefined == "the first features are constant"
    with pytest.raises(LensError, match="needs at least 4 rows; 3 were seen"):
        procrustes(first[:3], second[:3])
    with pytest.raises(
        ValueError, match=r"expected the same rows of widths \(8, 8\), found \(50, 8\) and \(49, 8\)"
    ):
        procrustes(first, second[:49])
    with pytest.raises(LensError, match="NaN or infinite"):
        procrustes(np.where(first > 6, np.inf, first), second)
    with pytest.raises(ValueError, match="cannot merge cross-covariances of widths"):
        CrossCovariance((2, 3)) + CrossCovariance((3, 3))
