"""Moments against scipy, isotropy against its definition on eigenvalues, in any sharding."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from tunescope.errors import LensError
from tunescope.stats.spread import Covariance, HigherMoments, isotropy


@pytest.fixture
def cloud():
    generator = np.random.default_rng(0)
    return generator.standard_t(5, size=(500, 6)) * np.geomspace(1, 50, 6) + 1000 * np.arange(6)


def shards(values, kind):
    cuts = np.array_split(np.random.default_rng(1).permutation(len(values)), 7)
    total = kind(values.shape[1])
    for cut in cuts:
        total = total + kind(values.shape[1]).update(values[cut])
    return total


def test_moments_equal_scipy_in_any_sharding(cloud):
    for state in (HigherMoments(6).update(cloud), shards(cloud, HigherMoments)):
        np.testing.assert_allclose(state.mean, cloud.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(state.variance(), cloud.var(axis=0, ddof=1), rtol=1e-9)
        np.testing.assert_allclose(state.kurtosis(), scipy.stats.kurtosis(cloud), rtol=1e-7, atol=1e-9)
    assert np.isnan(HigherMoments(2).update(np.ones((5, 2))).kurtosis()).all()


def test_covariance_and_mean_cosine_equal_their_definitions(cloud):
    units = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    cosines = (units @ units.T)[np.triu_indices(len(cloud), 1)]
    for state in (Covariance(6).update(cloud), shards(cloud, Covariance)):
        np.testing.assert_allclose(state.matrix(), np.cov(cloud.T), rtol=1e-8)
        assert state.mean_cosine() == pytest.approx(cosines.mean(), abs=1e-12)


def iso_score(eigenvalues):
    """The five steps of Rudman et al. 2022, literally."""
    n = len(eigenvalues)
    normalised = np.sqrt(n) * eigenvalues / np.linalg.norm(eigenvalues)
    defect = np.linalg.norm(normalised - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    utilised = (n - defect**2 * (n - np.sqrt(n))) ** 2 / n
    return (utilised - 1) / (n - 1)


def test_isotropy_equals_its_definition_and_its_bounds(cloud):
    covariance = np.cov(cloud.T)
    eigenvalues = np.linalg.eigvalsh(covariance)
    found = isotropy(covariance)
    assert found.participation_ratio == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert found.iso_score == pytest.approx(iso_score(eigenvalues), abs=1e-12)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    assert isotropy(rotation @ covariance @ rotation.T).iso_score == pytest.approx(found.iso_score, abs=1e-9)
    assert isotropy(np.eye(6)).iso_score == pytest.approx(1.0)
    assert isotropy(np.eye(6)).participation_ratio == pytest.approx(6.0)
    one = np.diag([1.0, 0, 0, 0, 0, 0])
    assert isotropy(one).iso_score == pytest.approx(0.0, abs=1e-12)
    assert isotropy(one).participation_ratio == pytest.approx(1.0)


def test_undefined_and_bad_input_are_said():
    with pytest.raises(LensError, match="isotropy is undefined"):
        isotropy(np.zeros((3, 3)))
    with pytest.raises(LensError, match="Dimension 1 of vector 0 is not finite"):
        Covariance(2).update(np.array([[0.0, np.inf]]))
    with pytest.raises(LensError, match="2 vectors that are not zero; 0"):
        Covariance(2).update(np.zeros((3, 2))).mean_cosine()
    with pytest.raises(LensError, match="needs 2 vectors or more"):
        HigherMoments(2).update(np.ones((1, 2))).variance()
