"""The bow-tie as weights of a map, and its interval from CKA's jackknife."""

from __future__ import annotations

import numpy as np
import pytest

from tunescope.errors import LensError
from tunescope.stats import BlockHSIC
from tunescope.stats.halves import bow_tie_weights


def naive(similarity, first, second):
    within = [similarity[i, j] for half in (first, second) for i in half for j in half if i < j]
    return np.mean(within) - np.mean([similarity[i, j] for i in first for j in second])


@pytest.mark.parametrize(("layers", "first", "second"), [(4, [0, 1], [2, 3]), (7, [0, 1, 2], [4, 5, 6])])
def test_weights_equal_the_means_over_pairs(layers, first, second):
    half = np.random.default_rng(layers).random((layers, layers))
    similarity = (half + half.T) / 2
    assert (bow_tie_weights(layers) * similarity).sum() == pytest.approx(naive(similarity, first, second))
    assert np.diagonal(bow_tie_weights(layers)).tolist() == [0] * layers


def test_a_map_that_only_fades_with_distance_has_no_bow_tie_at_equal_distance():
    depth = np.arange(12)
    fading = 1 - np.abs(depth[:, None] - depth) / 12
    halves = (depth[:, None] < 6) == (depth < 6)
    assert (bow_tie_weights(12) * fading).sum() > 0.2
    assert (bow_tie_weights(12, equal_distance=True) * fading).sum() == pytest.approx(0, abs=1e-12)
    for equal in (False, True):
        assert (bow_tie_weights(12, equal) * halves).sum() == pytest.approx(1)


def test_three_layers_are_refused():
    with pytest.raises(LensError, match="needs 4 layers or more, two in each half; there are 3"):
        bow_tie_weights(3)


def matrix_of(features, **options):
    rows = len(features[0])
    state = BlockHSIC([str(k) for k in range(len(features))], rows, **options)
    return state.update(np.arange(rows), {str(k): x for k, x in enumerate(features)}).matrix()


@pytest.mark.parametrize("options", [{}, {"block": 50, "full_below": 0}])
def test_planted_halves_are_found_with_an_interval_that_knows_how_sure_it_is(options):
    generator = np.random.default_rng(0)
    early, late = generator.normal(size=(2, 500, 6))
    noisy = [half + 0.5 * generator.normal(size=half.shape) for half in (early, early, late, late)]
    found = matrix_of(noisy, **options).contrast(bow_tie_weights(4))
    population = (1 / 1.25) ** 2  # CKA of two noisy copies of one cloud
    assert abs(found.value - population) < 0.1
    assert found.low < population < found.high
    assert found.high - found.low < 0.2
    one = [early + 0.5 * generator.normal(size=early.shape) for _ in range(4)]
    nothing = matrix_of(one, **options).contrast(bow_tie_weights(4))
    assert nothing.low < 0 < nothing.high


def test_the_contrast_of_one_cell_is_that_cell_with_its_interval():
    generator = np.random.default_rng(1)
    first = generator.normal(size=(80, 5))
    matrix = matrix_of([first, first + generator.normal(size=(80, 5)), np.ones((80, 3))])
    one = np.zeros((3, 3))
    one[0, 1] = 1
    cell = matrix.contrast(one)
    assert [cell.value, cell.low, cell.high] == pytest.approx(
        [x[0, 1] for x in (matrix.value, matrix.low, matrix.high)]
    )
    one[0, 2] = 1
    assert matrix.contrast(one).value is None
    assert "constant" in matrix.contrast(one).note
