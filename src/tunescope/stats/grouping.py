"""Clusters of points, and how far they agree with labels: adjusted Rand index and purity, with interval and null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunescope.stats.intervals import Interval, percentile_interval

NOISE = -1
STARTS = 4  # times k-means begins anew; the best is kept


@dataclass(frozen=True)
class Clustering:
    """Clusters of rows.

    Attributes:
        clusters: `[n]` cluster of each row, :data:`NOISE` where it has none.
        count: How many clusters there are.
        silhouettes: Mean silhouette by number of clusters tried; empty where none is chosen by it.
        reference: The silhouette that the same search finds, at the chosen number, in a normal cloud of the same
            covariance, which has no clusters; None where none is chosen.
    """

    clusters: np.ndarray
    count: int
    silhouettes: dict[int, float]
    reference: float | None = None


def kmeans(values: np.ndarray, most: int, seed: int) -> Clustering:
    """Return k-means clusters, k from 2 to ``most`` by the greatest mean silhouette (Rousseeuw 1987).

    At least two clusters are always returned, whether or not there are any: compare the silhouette with
    ``reference``.

    Args:
        values: `[n, D]`, with more than two different points.
        most: The greatest k; fewer where there are few points.
        seed: Seeds the starts and the reference.
    """
    different = len(np.unique(values, axis=0))
    tried: dict[int, tuple[float, np.ndarray]] = {}
    for k in range(2, min(most, different - 1) + 1):
        tried[k] = _scored(values, k, seed)
    best = max(tried, key=lambda k: (tried[k][0], -k))
    centred = values - values.mean(axis=0)
    # Normal numbers times the centred rows have the rows' covariance, and no clusters.
    cloud = (
        np.random.default_rng(seed).normal(size=(len(values), len(values))) @ centred / np.sqrt(len(values))
    )
    return Clustering(
        tried[best][1], best, {k: score for k, (score, _) in tried.items()}, _scored(cloud, best, seed)[0]
    )


def _scored(values: np.ndarray, k: int, seed: int) -> tuple[float, np.ndarray]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="openmp"):  # several threads add in an order that varies
        found = KMeans(k, n_init=STARTS, random_state=seed).fit_predict(values)
    if len(np.unique(found)) < 2:
        return -1.0, found.astype(np.int64)
    return float(silhouette_score(values, found)), found.astype(np.int64)


def hdbscan(values: np.ndarray, least: int) -> Clustering:
    """Return HDBSCAN clusters (Campello, Moulavi and Sander 2013); rows in no dense region are noise.

    Args:
        values: `[n, D]`.
        least: The fewest rows of a cluster: 2 or more.
    """
    from sklearn.cluster import HDBSCAN

    found = HDBSCAN(min_cluster_size=least, copy=True, n_jobs=1).fit_predict(values).astype(np.int64)
    return Clustering(found, len(set(found.tolist()) - {NOISE}), {})


def adjusted_rand(tables: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
    """Return the adjusted Rand index of contingency tables `[..., A, B]` (Hubert and Arabie 1985).

    1: the same partition; 0: the agreement of random partitions of the same sizes. Where one partition is a single
    group, or both are all single rows, nothing can agree beyond chance: 0, or 1 where both are the same.

    Args:
        tables: Counts, or sums of the rows' weights.
        squares: Sums of the squared weights, so that no row is paired with its own copies; None for counts.
    """
    weights = tables.astype(np.float64)
    alone = weights if squares is None else squares

    def pairs(axis: int | None) -> np.ndarray:
        if axis is None:
            return np.asarray(((weights**2 - alone) / 2).sum(axis=(-1, -2)))
        return np.asarray(((weights.sum(axis=axis) ** 2 - alone.sum(axis=axis)) / 2).sum(axis=-1))

    inner, ours, theirs = pairs(None), pairs(-1), pairs(-2)
    total = (weights.sum(axis=(-1, -2)) ** 2 - alone.sum(axis=(-1, -2))) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(total > 0, ours * theirs / total, 0.0)
        room = (ours + theirs) / 2 - expected
        same = (ours == theirs) & (inner == ours)
        return np.where(room > 0, (inner - expected) / room, np.where(same, 1.0, 0.0))


def purity(tables: np.ndarray) -> np.ndarray:
    """Return the share of rows that have their cluster's most frequent label, of tables `[..., clusters, labels]`.

    From the share of the most frequent label to 1. It grows with the number of clusters, so it needs its null.
    """
    total = np.maximum(tables.sum(axis=(-1, -2)), 1)
    return np.asarray(tables.max(axis=-1).sum(axis=-1) / total)


@dataclass(frozen=True)
class LabelAgreement:
    """How far clusters agree with labels.

    Attributes:
        interval: The number with its bootstrap interval over rows.
        draws: `[R]` resampled values; with one seed and the same groups, those of two clusterings are paired.
        control: The mean over permuted labels.
        p: The share of permutations that reach the number, one-sided, the number itself counted as one.
    """

    interval: Interval
    draws: np.ndarray
    control: float
    p: float


@dataclass(frozen=True)
class Draws:
    """How many bootstrap samples and permutations are drawn, and their seed."""

    resamples: int
    permutations: int
    seed: int


def label_agreement(
    clusters: np.ndarray, labels: np.ndarray, groups: np.ndarray, draws: Draws
) -> dict[str, LabelAgreement]:
    """Return the adjusted Rand index and the purity of clusters against labels.

    Rows without a cluster are one group of their own in the adjusted Rand index, and are left out of purity.

    Args:
        clusters: `[n]`, :data:`NOISE` where a row has none.
        labels: `[n]`.
        groups: `[n]`: rows of one text share a group; whole groups are resampled.
        draws: How many, and their seed.
    """
    ours, theirs = (np.unique(part, return_inverse=True)[1] for part in (clusters, labels))
    shape = (int(ours.max()) + 1, int(theirs.max()) + 1)
    noise = np.unique(clusters)[0] == NOISE
    generator = np.random.default_rng(draws.seed)
    members = np.unique(groups, return_inverse=True)[1]
    size = int(members.max()) + 1

    def table(of: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        cells = np.bincount(ours * shape[1] + of, weights=weights, minlength=shape[0] * shape[1])
        return np.asarray(cells.reshape(shape))

    drawn = [
        np.bincount(generator.integers(size, size=size), minlength=size)[members].astype(float)
        for _ in range(draws.resamples)
    ]
    weighted = np.stack([table(theirs, weights) for weights in drawn])
    squared = np.stack([table(theirs, weights**2) for weights in drawn])
    nulls = np.stack([table(generator.permutation(theirs)) for _ in range(draws.permutations)])
    how = f"bootstrap over rows, {draws.resamples} resamples"
    observed = table(theirs)

    def found(value: np.ndarray, values: np.ndarray, null: np.ndarray, n: int) -> LabelAgreement:
        p = (1 + int((null >= float(value) - 1e-12).sum())) / (1 + draws.permutations)
        interval = percentile_interval(float(value), values, n, how)
        return LabelAgreement(interval, values, float(null.mean()), p)

    result = {
        "adjusted_rand": found(
            adjusted_rand(observed), adjusted_rand(weighted, squared), adjusted_rand(nulls), len(ours)
        )
    }
    kept = slice(int(noise), None)
    clear = observed[kept]
    if len(clear):
        # Each cluster keeps the label that it stands for, so that resampling alone makes nothing purer.
        stands = np.arange(len(clear)), clear.argmax(axis=1)
        held = weighted[:, kept]
        shares = held[:, *stands].sum(axis=1) / np.maximum(held.sum(axis=(1, 2)), 1e-300)
        result["purity"] = found(purity(clear), shares, purity(nulls[:, kept]), int(clear.sum()))
    return result
