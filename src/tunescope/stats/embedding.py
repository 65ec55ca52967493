"""Maps of high-dimensional points in two or three axes: PCA, t-SNE, UMAP, and how far their neighbourhoods are true."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from tunescope.errors import LensError, MissingDependencyError

LIBRARIES = {"tsne": "openTSNE", "umap": "umap"}  # what a method needs; PCA needs none
MINIMUM_POINTS = 10
STRIP = 512  # points whose distances to all others are held at once
FOURIER_FROM = 5000  # points from which t-SNE interpolates in two axes instead of building a tree
START_DEVIATION = 1e-4  # of the first axis, so that t-SNE starts in its linear phase (Kobak and Berens 2019)


@dataclass(frozen=True)
class Principal:
    """Principal axes of points.

    Attributes:
        mean: `[D]`.
        axes: `[K, D]`, orthonormal, of falling variance; each axis's largest loading is positive.
        variance: `[K]`, the variance along them.
        total: The variance of all dimensions together.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    total: float

    def project(self, values: np.ndarray) -> np.ndarray:
        """Return coordinates `[N, K]` of points `[N, D]`."""
        return np.asarray((values - self.mean) @ self.axes.T)


def principal(values: np.ndarray, counts: np.ndarray, most: int) -> Principal:
    """Return the principal axes of points that stand for several rows each.

    Args:
        values: `[N, D]` float64.
        counts: `[N]`, how many rows each point stands for.
        most: The number of axes at most.
    """
    rows = counts.sum()
    mean = counts @ values / rows
    centred = (values - mean) * np.sqrt(counts)[:, None]
    # R of the QR decomposition has the same right singular vectors and is only D x D.
    small = np.linalg.qr(centred, mode="r") if len(values) > values.shape[1] else centred
    _, lengths, axes = np.linalg.svd(small, full_matrices=False)
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    axes = axes * np.where(largest < 0, -1.0, 1.0)[:, None]
    variance = lengths**2 / max(rows - 1, 1)
    return Principal(mean, axes[:most], variance[:most], float(variance.sum()))


def rotated_onto(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Return points, centred, turned or mirrored so that they lie as near as can be to others of the same rows.

    Orthogonal Procrustes (Schönemann 1966): distances between the points stay what they are.

    Args:
        points: `[N, A]`.
        onto: `[N, A]`, the same rows in the same order.
    """
    centred, target = points - points.mean(axis=0), onto - onto.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ target)
    return np.asarray(centred @ (left @ right))


@dataclass(frozen=True)
class Neighbours:
    """The nearest other points of every point: indices and Euclidean distances, both `[N, k]`, nearest first."""

    indices: np.ndarray
    distances: np.ndarray

    def first(self, k: int) -> Neighbours:
        """Return the k nearest of them, or all where there are fewer."""
        return Neighbours(self.indices[:, :k], self.distances[:, :k])


def nearest(values: np.ndarray, k: int) -> Neighbours:
    """Return the exact k nearest neighbours of every point, in strips, so that memory grows with N alone."""
    count = len(values)
    indices, distances = np.empty((count, k), dtype=np.int32), np.empty((count, k))
    squares = (values**2).sum(axis=1)
    for start in range(0, count, STRIP):
        strip = slice(start, min(start + STRIP, count))
        gaps = squares[strip, None] + squares - 2 * values[strip] @ values.T
        gaps[np.arange(len(gaps)), np.arange(strip.start, strip.stop)] = np.inf
        found = np.argpartition(gaps, k - 1, axis=1)[:, :k]
        # The short form loses digits where points are near one another, so the chosen are measured again.
        exact = np.sqrt(((values[found] - values[strip, None]) ** 2).sum(axis=2))
        order = np.lexsort((found, exact), axis=1)
        indices[strip] = np.take_along_axis(found, order, axis=1)
        distances[strip] = np.take_along_axis(exact, order, axis=1)
    return Neighbours(indices, distances)


def require_libraries(methods: Sequence[str]) -> None:
    """Refuse methods whose library is not installed, before anything is computed.

    Raises:
        MissingDependencyError: The message names the method, its library and the install command.
    """
    for method in methods:
        library = LIBRARIES.get(method)
        if library is not None and importlib.util.find_spec(library) is None:
            raise MissingDependencyError(
                f"Maps by {method} need the library {library}, which is not installed.",
                hint='pip install "tunescope[maps]", or set methods: [pca].',
            )


def tsne(start: np.ndarray, near: Neighbours, perplexity: float, seed: int) -> np.ndarray:
    """Return the t-SNE map `[N, A]` of points known by their neighbours (van der Maaten and Hinton 2008; openTSNE).

    One thread and a fixed start give the same map bit for bit.

    Args:
        start: `[N, A]`, where the points begin, scaled down here.
        near: The neighbours, ``3 * perplexity`` of each where there are so many.
        perplexity: How many neighbours count.
        seed: Seeds what is random.
    """
    require_libraries(["tsne"])
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    # The affinities are made anew for every map: openTSNE scales them in place, which leaves rounding behind.
    affinities = PerplexityBasedNN(
        knn_index=PrecomputedNeighbors(near.indices, near.distances), perplexity=perplexity, n_jobs=1
    )
    count, axes = start.shape
    deviation = start[:, 0].std() or 1.0
    method = "fft" if axes == 2 and count >= FOURIER_FROM else "bh"
    made = openTSNE.TSNE(
        n_components=axes, initialization=start / deviation * START_DEVIATION, negative_gradient_method=method,
        n_jobs=1, random_state=seed,
    ).fit(affinities=affinities)  # fmt: skip
    return np.asarray(made, dtype=np.float64)


def umap(values: np.ndarray, start: np.ndarray, near: Neighbours, seed: int) -> np.ndarray:
    """Return the UMAP map `[N, A]` of points (McInnes, Healy and Melville 2018), by default minimal distance 0.1.

    With a seed UMAP optimises on one thread, so that the same points give the same map bit for bit.

    Args:
        values: `[N, K]` points, used for their number alone where the neighbours are given.
        start: `[N, A]`, where the points begin.
        near: The neighbours that count; each point itself is added as its first.
        seed: Seeds negative sampling.
    """
    count, axes = start.shape
    itself = np.arange(count, dtype=np.int32)[:, None]
    known = (
        np.hstack([itself, near.indices]),
        np.hstack([np.zeros((count, 1)), near.distances]).astype(np.float32),
    )
    library = _umap()
    with warnings.catch_warnings():
        # It says that new points cannot be added to the map later; none are.
        warnings.filterwarnings("ignore", message="precomputed_knn")
        made = library.UMAP(
            n_neighbors=known[0].shape[1], n_components=axes, init=start.astype(np.float32), random_state=seed,
            n_jobs=1, precomputed_knn=known,
        ).fit_transform(values.astype(np.float32))  # fmt: skip
    return np.asarray(made, dtype=np.float64)


def _umap() -> ModuleType:
    require_libraries(["umap"])
    with warnings.catch_warnings():
        # It says that TensorFlow is missing, which only its parametric form needs.
        warnings.filterwarnings("ignore", category=ImportWarning)
        import umap as library

    return library


def trustworthiness(values: np.ndarray, points: np.ndarray, k: int, queries: np.ndarray) -> np.ndarray:
    """Return each row's share in the trustworthiness of a map; their mean is scikit-learn's number.

    ``1 - 2 / (k (2n - 3k - 1)) * sum(rank - k)`` over the k nearest neighbours in the map that are not among the k
    nearest in full space, by their rank there (Venna and Kaski 2001). 1: every neighbour in the map is one in truth;
    about 0.5: the map's neighbours are no better than any other rows.

    Args:
        values: `[n, D]` the points in full space.
        points: `[n, A]` the same in the map.
        k: Neighbours that count, fewer than n / 2.
        queries: Indices of the rows whose neighbours are judged, among all n.

    Raises:
        LensError: k is not below half the points.
    """
    count = len(values)
    if not 0 < k < count / 2:
        raise LensError(
            f"Trustworthiness needs fewer neighbours than half the points; {k} of {count} were asked."
        )
    squares = (values**2).sum(axis=1)
    shares = np.zeros(len(queries))
    for start in range(0, len(queries), STRIP):
        rows = queries[start : start + STRIP]
        full = squares[rows, None] + squares - 2 * values[rows] @ values.T
        shown = ((points[rows, None] - points) ** 2).sum(axis=2)
        for gaps in (full, shown):
            gaps[np.arange(len(rows)), rows] = np.inf
        neighbours = np.argpartition(shown, k - 1, axis=1)[:, :k]
        reach = np.take_along_axis(full, neighbours, axis=1)
        for column in range(k):
            ranks = (full < reach[:, column, None]).sum(axis=1) + 1
            shares[start : start + STRIP] += np.maximum(ranks - k, 0)
    return np.asarray(1 - 2 / (k * (2 * count - 3 * k - 1)) * shares)
