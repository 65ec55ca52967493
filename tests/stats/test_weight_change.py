"""How a matrix changed: closed forms, laws, planted ranks and turned vectors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from tunescope.errors import LensError
from tunescope.stats.weight_change import (
    intruder_curve,
    low_rank_spectrum,
    rounding,
    spectrum,
    spectrum_of,
    turn,
    unstructured_update,
)

RANDOM = np.random.default_rng(0)


def test_equal_singular_values_fill_every_direction():
    found = spectrum_of(np.array([2.0, 2.0, 2.0, 2.0]))
    assert (found.frobenius, found.spectral) == (4.0, 2.0)
    assert found.stable_rank == pytest.approx(4.0)
    assert found.effective_rank == pytest.approx(4.0)


def test_one_direction_has_rank_one_by_every_measure():
    found = spectrum(np.outer(RANDOM.normal(size=7), RANDOM.normal(size=5)))
    assert found.stable_rank == pytest.approx(1.0)
    assert found.effective_rank == pytest.approx(1.0, abs=1e-6)
    assert found.rank(1e-9) == 1


def test_an_unmoved_matrix_has_no_rank_at_all():
    found = spectrum(np.zeros((3, 4)))
    assert found.frobenius == found.spectral == 0.0
    assert np.isnan(found.stable_rank)
    assert np.isnan(found.effective_rank)
    assert found.rank(0.0) == 0


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_planted_update_reports_its_rank_from_factors_and_from_rounded_weights(rank):
    left, right = RANDOM.normal(size=(60, rank)), RANDOM.normal(size=(rank, 40))
    whole, factors = spectrum(left @ right), low_rank_spectrum(left, right)
    np.testing.assert_allclose(factors.values, whole.values[:rank], rtol=1e-10)
    assert factors.rank(1e-9) == rank
    before = RANDOM.normal(size=(60, 40)).astype(np.float32)
    after = (before + 1e-3 * left @ right).astype(np.float32)  # as a merged adapter is saved
    rounded = spectrum(after.astype(float) - before)
    assert rounded.rank(rounding(before)) == rank
    assert rounded.rank(0.0) == 40  # without the bound, rounding fills every direction


def test_the_ranks_are_at_most_the_rank_and_do_not_change_with_scale_or_rotation():
    update = RANDOM.normal(size=(12, 9))
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(12, 12)))
    plain, moved = spectrum(update), spectrum(5 * rotation @ update)
    assert 1 <= plain.stable_rank <= plain.effective_rank <= 9
    assert moved.stable_rank == pytest.approx(plain.stable_rank)
    assert moved.effective_rank == pytest.approx(plain.effective_rank)


def test_principal_angles_are_scipys():
    before, after = RANDOM.normal(size=(30, 20)), RANDOM.normal(size=(30, 20))
    found = turn(before, after, 4)
    one, two = (np.linalg.svd(matrix, full_matrices=False)[0][:, :4] for matrix in (before, after))
    np.testing.assert_allclose(found.angles, np.sort(subspace_angles(one, two)), atol=1e-9)


def test_a_matrix_compared_with_itself_is_not_turned_and_has_no_intruders():
    matrix = RANDOM.normal(size=(25, 10))
    found = turn(matrix, matrix, 6)
    assert found.angles.max() < 1e-7
    assert intruder_curve(found, [0.1, 0.5, 0.99]) == [0, 0, 0]


def test_a_planted_intruder_is_counted_and_the_curve_never_falls():
    before = np.zeros((20, 12))
    before[:12, :12] = np.diag(np.linspace(2.0, 1.0, 12))
    after = before.copy()
    after += 9.0 * np.outer(np.eye(20)[15], np.eye(12)[3])  # a direction that no old vector has any part in
    found = turn(before, after, 3)
    assert found.intruders(0.5) == 1
    curve = intruder_curve(found, [0.1, 0.3, 0.6, 0.9, 1.1])
    assert curve == sorted(curve)
    assert curve[-1] == 3


def test_the_control_has_the_same_size_and_no_structure():
    update = np.outer(np.ones(50), np.ones(40))
    control = unstructured_update(update, seed=3)
    assert np.linalg.norm(control) == pytest.approx(np.linalg.norm(update))
    assert spectrum(control).stable_rank > 5 > spectrum(update).stable_rank
    np.testing.assert_array_equal(control, unstructured_update(update, seed=3))


def test_bad_matrices_are_refused():
    with pytest.raises(LensError, match="NaN or infinite"):
        spectrum(np.array([[np.nan, 1.0]]))
    with pytest.raises(LensError, match=r"shape \(2, 3\) and \(3, 2\) cannot be compared"):
        turn(np.ones((2, 3)), np.ones((3, 2)), 1)
