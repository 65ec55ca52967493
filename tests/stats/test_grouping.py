"""Clusters and their agreement with labels: scikit-learn's numbers, planted groups, and chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tunescope.stats.grouping import NOISE, Draws, adjusted_rand, hdbscan, kmeans, label_agreement, purity

DRAWS = Draws(resamples=200, permutations=199, seed=0)


def two_groups(seed=0, gap=8.0, n=120):
    generator = np.random.default_rng(seed)
    side = np.arange(n) % 2
    return generator.normal(size=(n, 20)) + gap * side[:, None] / np.sqrt(20), side


def table(first, second):
    counts = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(counts, (first, second), 1)
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_the_adjusted_rand_index_is_scikit_learns(seed):
    first, second = np.random.default_rng(seed).integers(0, [3, 5], size=(40, 2)).T
    assert float(adjusted_rand(table(first, second))) == pytest.approx(adjusted_rand_score(first, second))
    assert float(adjusted_rand(table(first, first))) == 1


def test_one_group_agrees_with_nothing_but_itself():
    one, two = np.zeros(10, dtype=int), np.arange(10) % 2
    assert float(adjusted_rand(table(one, two))) == 0
    assert float(adjusted_rand(table(one, one))) == 1


def test_purity_by_hand():
    assert float(purity(np.array([[5, 1], [2, 2]]))) == 0.7


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_two_planted_groups_are_found_and_shuffled_labels_are_not(method):
    values, side = two_groups()
    found = kmeans(values, 6, 0) if method == "kmeans" else hdbscan(values, 6)
    assert found.count == 2
    clear = label_agreement(found.clusters, side, np.arange(len(side)), DRAWS)["adjusted_rand"]
    assert clear.interval.value > 0.9
    assert clear.interval.low > 0.8
    assert clear.p == 1 / 200
    assert abs(clear.control) < 0.02
    shuffled = np.random.default_rng(3).permutation(side)
    chance = label_agreement(found.clusters, shuffled, np.arange(len(side)), DRAWS)["adjusted_rand"]
    assert abs(chance.interval.value) < 0.05
    assert chance.p > 0.05


def test_the_silhouette_stands_out_only_where_there_are_groups():
    values, _ = two_groups()
    found = kmeans(values, 6, 0)
    assert found.silhouettes[2] == max(found.silhouettes.values())
    assert found.silhouettes[2] > found.reference + 0.05
    none = kmeans(np.random.default_rng(1).normal(size=(120, 20)), 6, 0)
    assert none.silhouettes[none.count] == pytest.approx(none.reference, abs=0.05)


def test_noise_is_no_cluster_and_is_left_out_of_purity():
    values, side = two_groups(gap=30)
    values[:6] += np.random.default_rng(0).normal(size=(6, 20)) * 60
    found = hdbscan(values, 6)
    assert found.count == 2
    assert (found.clusters[:6] == NOISE).all()
    agreed = label_agreement(found.clusters, side, np.arange(len(side)), DRAWS)
    assert agreed["purity"].interval.value == 1
    assert agreed["purity"].interval.n == int((found.clusters != NOISE).sum()) < len(side)
    only = label_agreement(np.full(20, NOISE), side[:20], np.arange(20), DRAWS)
    assert set(only) == {"adjusted_rand"}
    assert only["adjusted_rand"].interval.value == 0


def test_resampling_does_not_lift_chance_agreement():
    generator = np.random.default_rng(0)
    shifts = []
    for seed in range(20):
        clusters, labels = generator.integers(0, 3, size=(2, 30))
        agreed = label_agreement(clusters, labels, np.arange(30), Draws(100, 19, seed))
        for one in agreed.values():
            shifts.append(one.draws.mean() - one.interval.value)
    assert abs(np.mean(shifts)) < 0.01


def test_rows_of_one_text_are_drawn_together():
    values, side = two_groups(gap=2.0)
    clusters = kmeans(values, 2, 0).clusters
    single = label_agreement(clusters, side, np.arange(120), DRAWS)["adjusted_rand"].draws.std()
    four = np.repeat(np.arange(120), 4)
    copied = label_agreement(clusters[four], side[four], four, DRAWS)["adjusted_rand"].draws.std()
    loose = label_agreement(clusters[four], side[four], np.arange(480), DRAWS)["adjusted_rand"].draws.std()
    assert copied == pytest.approx(single, rel=0.2)
    assert loose < 0.7 * single
