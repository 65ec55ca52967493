"""Maps: PCA, alignment, neighbours and trustworthiness against independent references; t-SNE and UMAP bit for bit."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as reference
from sklearn.neighbors import NearestNeighbors

from tunescope.errors import LensError, MissingDependencyError
from tunescope.stats.embedding import (
    nearest,
    principal,
    require_libraries,
    rotated_onto,
    trustworthiness,
    tsne,
    umap,
)

GENERATOR = np.random.default_rng(0)
POINTS = GENERATOR.normal(size=(60, 12)) * np.linspace(3, 0.2, 12) + 5


@pytest.mark.parametrize("shape", [(60, 12), (9, 12)])
def test_principal_axes_are_those_of_scikit_learn(shape):
    points = POINTS[: shape[0]]
    found = principal(points, np.ones(len(points)), 4)
    expected = PCA(4, svd_solver="full").fit(points)
    np.testing.assert_allclose(found.variance, expected.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(found.total, points.var(axis=0, ddof=1).sum(), rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.project(points)), np.abs(expected.transform(points)), atol=1e-9)
    assert (found.axes[np.arange(4), np.abs(found.axes).argmax(axis=1)] > 0).all()


def test_a_point_that_stands_for_several_rows_weighs_as_much_as_they_do():
    counts = GENERATOR.integers(1, 4, size=len(POINTS))
    found, expected = (
        principal(POINTS, counts, 3),
        principal(np.repeat(POINTS, counts, axis=0), np.ones(counts.sum()), 3),
    )
    np.testing.assert_allclose(found.axes, expected.axes, atol=1e-9)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-9)


@pytest.mark.parametrize("axes", [2, 3])
def test_alignment_undoes_a_planted_rotation_mirror_and_shift(axes):
    points = GENERATOR.normal(size=(40, axes))
    turn, _ = np.linalg.qr(GENERATOR.normal(size=(axes, axes)))
    for planted in (turn, -turn):
        moved = points @ planted + 7
        np.testing.assert_allclose(rotated_onto(moved, points), points - points.mean(axis=0), atol=1e-10)


def test_alignment_keeps_distances_and_comes_nearest_of_all_turns():
    points, onto = GENERATOR.normal(size=(2, 40, 2))
    best = rotated_onto(points, onto)
    np.testing.assert_allclose(
        np.linalg.norm(best[:1] - best, axis=1), np.linalg.norm(points[:1] - points, axis=1), atol=1e-10
    )
    centred, target = points - points.mean(axis=0), onto - onto.mean(axis=0)
    for angle in np.linspace(0, 2 * np.pi, 50):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for mirror in (np.eye(2), np.diag([1.0, -1.0])):
            other = np.linalg.norm(centred @ turn @ mirror - target)
            assert np.linalg.norm(best - target) <= other + 1e-9


def test_neighbours_are_those_of_scikit_learn_far_from_the_origin_too():
    points = np.random.default_rng(1).normal(size=(700, 8)) + 1e3  # more than a strip
    distances, indices = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(points)
    found = nearest(points, 5)
    np.testing.assert_array_equal(found.indices, indices[:, 1:])
    np.testing.assert_allclose(found.distances, distances[:, 1:], rtol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_trustworthiness_is_scikit_learns_and_between_0_and_1(k):
    flat = POINTS[:, :2]
    shares = trustworthiness(POINTS, flat, k, np.arange(len(POINTS)))
    assert shares.mean() == pytest.approx(reference(POINTS, flat, n_neighbors=k), abs=1e-12)
    assert 0 <= shares.mean() <= 1
    some = np.array([3, 17, 40])
    np.testing.assert_allclose(trustworthiness(POINTS, flat, k, some), shares[some])
    assert trustworthiness(POINTS, POINTS, k, some).tolist() == [1, 1, 1]


def test_trustworthiness_of_too_many_neighbours_is_refused():
    with pytest.raises(LensError, match="fewer neighbours than half the points; 30 of 60 were asked"):
        trustworthiness(POINTS, POINTS[:, :2], 30, np.arange(60))


def test_a_missing_library_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    require_libraries(["pca"])
    for method, library in (("tsne", "openTSNE"), ("umap", "umap")):
        with pytest.raises(
            MissingDependencyError, match=rf"need the library {library}.*\n.*tunescope\[maps\]"
        ):
            require_libraries(["pca", method])


def drawn(method, axes):
    pytest.importorskip("openTSNE" if method == "tsne" else "numba")
    two = np.vstack([POINTS[:25], POINTS[25:50] + 30])
    start = principal(two, np.ones(50), axes).project(two)
    near = nearest(two, 12)
    return tsne(start, near, 4.0, 0) if method == "tsne" else umap(two, start, near, 0)


@pytest.mark.parametrize(
    ("method", "axes"),
    # UMAP is compiled when it is first called, which takes most of the time.
    [("tsne", 2), ("tsne", 3), *(pytest.param("umap", axes, marks=pytest.mark.slow) for axes in (2, 3))],
)
def test_maps_keep_two_far_groups_apart_and_repeat_bit_for_bit(method, axes):
    first, again = drawn(method, axes), drawn(method, axes)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (50, axes)
    away = np.linalg.norm(first[:, None] - first, axis=2)
    np.fill_diagonal(away, np.inf)
    side = np.arange(50) // 25
    assert (side[away.argmin(axis=1)] == side).all()


@pytest.mark.slow
def test_umap_does_not_depend_on_the_threads_of_numba():
    code = """
import hashlib
import numpy as np
from tunescope.stats.embedding import nearest, umap
points = np.random.default_rng(0).normal(size=(80, 5))
print(hashlib.sha256(umap(points, points[:, :2], nearest(points, 10), 0).tobytes()).hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "NUMBA_NUM_THREADS": threads}, check=True,
            capture_output=True, text=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
