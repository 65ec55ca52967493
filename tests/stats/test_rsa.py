"""RSA against scipy, its laws, and its bootstrap and permutation null against plain loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.covariance import ledoit_wolf

from tunescope.errors import LensError
from tunescope.stats import rsa as module
from tunescope.stats.rsa import RankedPairs, dissimilarity, rsa

DISTANCES = ("cosine", "correlation", "whitened")


def reference(features, distance):
    if distance != "whitened":
        return pdist(features, distance)
    return pdist(features, "mahalanobis", VI=np.linalg.inv(ledoit_wolf(features)[0]))


@pytest.fixture(scope="module")
def sites():
    generator = np.random.default_rng(0)
    first = generator.normal(size=(45, 12)) * np.geomspace(0.2, 5, 12) + 1
    second = np.tanh(first @ generator.normal(size=(12, 60))) + generator.normal(size=(45, 60))
    return [first, second, generator.normal(size=(45, 7))]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("strip", [7, 256])
def test_distances_equal_scipys_with_more_and_with_fewer_rows_than_dimensions(
    sites, distance, strip, monkeypatch
):
    monkeypatch.setattr(module, "STRIP", strip)
    for features in sites:
        np.testing.assert_allclose(
            dissimilarity(features, distance).pairs, reference(features, distance), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("distance", DISTANCES)
def test_rsa_equals_scipys_spearman_with_ties(sites, distance):
    first = np.concatenate([sites[0], sites[0][:5]])  # equal rows give tied distances
    second = np.concatenate([sites[1], sites[1][:5]])
    pairs = [dissimilarity(x, distance).pairs for x in (first, second)]
    assert rsa(first, second, distance).value == pytest.approx(spearmanr(*pairs).statistic, abs=1e-12)
    assert rsa(torch.tensor(first), second, distance).value == pytest.approx(
        spearmanr(*pairs).statistic, abs=1e-6
    )


def test_laws_of_scale_shift_and_rotation(sites):
    first, second = sites[:2]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0]
    mix = np.random.default_rng(2).normal(size=(12, 12))
    assert rsa(first, 3 * first @ turn, "cosine").value == pytest.approx(1)
    assert rsa(first, first * 2 + 5, "correlation").value == pytest.approx(1)
    assert rsa(first, first @ turn + 7, "whitened").value == pytest.approx(1)
    assert rsa(first, first @ mix, "cosine").value < 0.99
    assert rsa(first, second).value == pytest.approx(rsa(second, first).value)


def test_one_loud_dimension_decides_cosine_and_not_the_whitened_distance():
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=(2, 150, 20))
    first[:, 3] = second[:, 3] = 40 * generator.normal(size=150)
    assert rsa(first, second, "cosine").value > 0.8
    assert rsa(first, second, "whitened").value < 0.3


def test_the_bootstrap_equals_a_loop_that_repeats_rows_and_leaves_self_pairs_out(sites):
    pairs = [dissimilarity(x, "correlation") for x in sites[:2]]
    made = RankedPairs(pairs).resampled(resamples=40, permutations=0, seed=3)
    generator, draws = np.random.default_rng(3), []
    square = [np.zeros((45, 45)) for _ in pairs]
    upper = np.triu_indices(45, 1)
    for full, one in zip(square, pairs, strict=True):
        full[upper] = one.pairs
        full += full.T
    for _ in range(40):
        drawn = generator.integers(0, 45, 45)
        i, j = upper
        kept = drawn[i] != drawn[j]
        i, j = drawn[i][kept], drawn[j][kept]
        draws.append(spearmanr(square[0][i, j], square[1][i, j]).statistic)
    low, high = np.quantile(draws, [0.025, 0.975], method="weibull")
    assert made.low[0, 1] == pytest.approx(low, abs=1e-10)
    assert made.high[0, 1] == pytest.approx(high, abs=1e-10)


def test_the_interval_is_as_wide_as_new_samples_are():
    generator = np.random.default_rng(8)
    mix = generator.normal(size=(6, 6))

    def sample():
        first = generator.normal(size=(60, 6))
        return first, first @ mix + generator.normal(size=(60, 6))

    fresh = np.std([rsa(*sample(), "cosine").value for _ in range(200)])
    widths = []
    for _ in range(10):
        found = RankedPairs([dissimilarity(x, "cosine") for x in sample()]).resampled(100, 0)
        widths.append((found.high[0, 1] - found.low[0, 1]) / (2 * 1.96))
    assert np.mean(widths) == pytest.approx(fresh, rel=0.3)


def test_unrelated_rows_have_uniform_p_and_a_null_around_zero():
    generator = np.random.default_rng(4)
    p = []
    for _ in range(60):
        made = RankedPairs([dissimilarity(generator.normal(size=(20, 5)), "correlation") for _ in range(2)])
        p.append(made.resampled(2, 49).p[0, 1])
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.1) < 0.25
    related = generator.normal(size=(20, 5))
    made = RankedPairs([dissimilarity(related, "correlation"), dissimilarity(related**3, "correlation")])
    null = made.resampled(2, 99)
    assert null.p[0, 1] == pytest.approx(0.01)
    assert abs(null.control[0, 1]) < 0.1
    assert null.control[0, 1] == pytest.approx(null.control[1, 0], abs=0.1)


def test_what_has_no_value_says_why():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(6, 4))
    assert "every row has the same features" in rsa(np.ones((6, 4)) / 3, rows).undefined
    flat = rows.copy()
    flat[2] = 5.0
    assert "row 2 has no direction" in rsa(rows, flat, "correlation").undefined
    assert np.isnan(rsa(rows, flat, "correlation").value)
    with pytest.raises(LensError, match="RSA needs at least 4 rows; there are 3"):
        rsa(rows[:3], rows[:3])
    with pytest.raises(ValueError, match="expected the same rows at both sites, found 6 and 5"):
        rsa(rows, rows[:5])
    with pytest.raises(LensError, match="1 of the features are NaN or infinite"):
        rsa(np.where(np.arange(24).reshape(6, 4) == 7, np.nan, rows), rows)
    with pytest.raises(ValueError, match="expected cosine, correlation or whitened, found 'euclid'"):
        rsa(rows, rows, "euclid")
