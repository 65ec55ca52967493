"""Splits and samples that depend on seed and content, never on the order of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tunescope.errors import DataError


def hash_order(keys: Sequence[str], seed: int, purpose: str) -> np.ndarray:
    """Return a uint64 per key, as good as random, that only seed, purpose and key decide."""
    salt = f"{purpose}:{seed}".encode()
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest() for key in keys)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def proportional(
    counts: np.ndarray, total: int, floor: int = 0, caps: np.ndarray | None = None
) -> np.ndarray:
    """Share ``total`` out over classes as their counts are, by largest remainder.

    Args:
        counts: Rows per class [C].
        total: Rows wanted; at most what the caps allow is given.
        floor: The least for each class that has that many, as far as ``total`` goes.
        caps: The most for each class [C]; None means its count.

    Returns:
        Whole numbers [C]; without floor and caps each lies within 1 of ``total * count / sum``.
    """
    caps = counts if caps is None else np.clip(caps, 0, counts)
    total = int(min(total, caps.sum()))
    if counts.sum() == 0 or total <= 0:
        return np.zeros_like(counts)
    exact = total * counts / counts.sum()
    least = np.minimum(floor, caps) if np.minimum(floor, caps).sum() <= total else np.zeros_like(counts)
    shares = np.clip(np.floor(exact).astype(counts.dtype), least, caps)
    while shares.sum() < total:
        room = np.where(shares < caps, exact - shares, -np.inf)
        shares[int(np.argmax(room))] += 1
    while shares.sum() > total:
        excess = np.where(shares > least, shares - exact, -np.inf)
        shares[int(np.argmax(excess))] -= 1
    return shares


def group_keys(hashes: pl.Series, groups: pl.Series | None) -> list[str]:
    """Return one key per row; rows with equal texts or equal (non-null) groups share it, also in chains.

    The key is the smallest text hash of what hangs together, so it does not depend on order.

    Args:
        hashes: Hash of each text.
        groups: Values of ``data.group_by``, or None.
    """
    if groups is None:
        return hashes.to_list()
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    frame = pl.DataFrame({"hash": hashes, "group": groups.cast(pl.String)})
    text = frame["hash"].rank("dense").to_numpy().astype(np.int64) - 1
    group = frame["group"].rank("dense").to_numpy()  # null groups have no rank: NaN or a masked float
    tied = ~np.isnan(group.astype(np.float64))
    n_texts = int(text.max()) + 1
    other = group[tied].astype(np.int64) - 1 + n_texts
    size = int(other.max()) + 1 if len(other) else n_texts
    graph = coo_array((np.ones(len(other), dtype=np.int8), (text[tied], other)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return (
        frame.with_columns(pl.Series("component", component[text]))
        .select(pl.col("hash").min().over("component"))["hash"]
        .to_list()
    )


def make_splits(
    keys: Sequence[str],
    labels: np.ndarray,
    fractions: Mapping[str, float],
    seed: int,
    stratify: bool = True,
) -> np.ndarray:
    """Part rows into train and the splits asked for: stratified, seeded, groups kept whole.

    Groups of several rows are placed first, the largest first, each where it leaves the classes closest to
    their shares (chi-square distance); single rows then fill every class's share exactly. Every class keeps
    at least one row in train where the groups allow.

    Args:
        keys: Group of each row [N] (:func:`group_keys`).
        labels: Class index of each row [N], all at least 0.
        fractions: Split to its share of all rows; train is the rest.
        seed: Another seed gives another split.
        stratify: Keep every class's share in every split; otherwise only the sizes are kept.

    Returns:
        Split names [N], dtype object.

    Raises:
        DataError: The shares leave nothing for train, or a split or class cannot be filled with whole groups.
    """
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    if sum(wanted.values()) >= 1:
        raise DataError(
            f"The shares {dict(wanted)} leave no rows for train.",
            hint="Make data.validation and data.test smaller.",
        )
    names = [*wanted, "train"]
    strata = labels if stratify else np.zeros_like(labels)
    counts = np.bincount(strata)
    need = np.zeros((len(names), len(counts)), dtype=np.int64)
    for i, split in enumerate(wanted):
        rows = max(1, round(wanted[split] * len(labels)))
        need[i] = proportional(counts, rows, caps=counts - 1 - need.sum(axis=0))
    need[-1] = counts - need.sum(axis=0)

    unique, inverse, sizes = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    order = hash_order(unique.tolist(), seed, "split")
    place = np.full(len(unique), len(names) - 1)
    left = _place_groups(place, inverse, sizes, order, strata, need)
    _place_singles(place, inverse, sizes, order, strata, left)
    _fill_empty(place, inverse, sizes, order, labels, names)
    result = np.asarray(names, dtype=object)[place[inverse]]
    _check_made(result, labels, names)
    return result


def make_folds(
    keys: Sequence[str], labels: np.ndarray, k: int, seed: int, stratify: bool = True
) -> np.ndarray:
    """Part rows into ``k`` folds of about equal size: stratified, seeded, groups kept whole.

    Groups and single rows are placed as in :func:`make_splits`. Without groups of several rows every fold has
    each class's rows to within one, and fold sizes differ by at most one.

    Args:
        keys: Group of each row [N] (:func:`group_keys`).
        labels: Class index of each row [N]; -1 (unlabelled) is a stratum of its own.
        k: The number of folds, from 2.
        seed: Another seed gives other folds.
        stratify: Keep every class's share in every fold; otherwise only the sizes are kept.

    Returns:
        The fold of each row, int64 [N], 0 to ``k - 1``. It does not depend on the order of the rows.

    Raises:
        DataError: ``k`` is below 2, or there are fewer groups than folds.
    """
    if k < 2:
        raise DataError(
            f"Expected 2 or more folds; came {k}.", hint="Set data.folds to 2 or more, or to null."
        )
    unique, inverse, sizes = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    if len(unique) < k:
        raise DataError(
            f"{k} folds cannot be made: the {len(labels):,} rows hang together in {len(unique)} groups.",
            hint="Ask for fewer folds, or group by something finer.",
        )
    strata = labels + 1 if stratify else np.zeros_like(labels)
    need = np.zeros((k, int(strata.max()) + 1), dtype=np.int64)
    for label, count in enumerate(np.bincount(strata)):
        need[:, label] = count // k
        # the rows left over go where fewest are, so that sizes stay within one of each other
        need[np.argsort(need.sum(axis=1), kind="stable")[: count % k], label] += 1
    order = hash_order(unique.tolist(), seed, "fold")
    place = np.full(len(unique), k - 1)
    left = _place_groups(place, inverse, sizes, order, strata, need)
    singles = np.bincount(strata[sizes[inverse] == 1], minlength=need.shape[1])
    for label, count in enumerate(singles):  # what groups overfilled is taken evenly from the other folds
        left[:, label] = proportional(np.maximum(left[:, label], 0).astype(np.int64), int(count))
    _place_singles(place, inverse, sizes, order, strata, left)
    _fill_empty_folds(place, inverse, sizes, order, k)
    return place[inverse].astype(np.int64)


def _fill_empty_folds(
    place: np.ndarray, inverse: np.ndarray, sizes: np.ndarray, order: np.ndarray, k: int
) -> None:
    """Give an empty fold the smallest group of the fold that has most rows and more than one group."""
    for fold in range(k):
        if (place == fold).any():
            continue
        rows = np.bincount(place, weights=sizes, minlength=k)
        rich = np.bincount(place, minlength=k) > 1
        giver = int(np.argmax(np.where(rich, rows, -1)))
        groups = np.flatnonzero(place == giver)
        place[groups[np.lexsort((order[groups], sizes[groups]))][0]] = fold


def _place_groups(
    place: np.ndarray,
    inverse: np.ndarray,
    sizes: np.ndarray,
    order: np.ndarray,
    labels: np.ndarray,
    need: np.ndarray,
) -> np.ndarray:
    """Place groups of several rows, in ``place``; return what each split still needs of each class [S, C]."""
    left = need.astype(np.float64)
    scale = np.maximum(need, 1)
    several = np.flatnonzero(sizes > 1)
    several = several[np.lexsort((order[several], -sizes[several]))]
    members = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for group in several:
        rows = members[starts[group] : starts[group + 1]]
        held = np.bincount(labels[rows], minlength=need.shape[1])
        cost = (held * (held - 2 * left) / scale).sum(axis=1)
        best = np.flatnonzero(cost <= cost.min() + 1e-12)
        if len(best) > 1:  # equally good: where most is missing, then by hash
            missing = (left.sum(axis=1) / np.maximum(need.sum(axis=1), 1))[best]
            best = best[missing >= missing.max() - 1e-12]
        chosen = best[int(order[group]) % len(best)]
        place[group] = chosen
        left[chosen] -= held
    return left


def _place_singles(
    place: np.ndarray,
    inverse: np.ndarray,
    sizes: np.ndarray,
    order: np.ndarray,
    labels: np.ndarray,
    left: np.ndarray,
) -> None:
    """Fill what each split still needs of each class (``left`` [S, C], train last) with single rows."""
    single = np.flatnonzero(sizes[inverse] == 1)
    single = single[np.argsort(order[inverse[single]], kind="stable")]
    for label in range(left.shape[1]):
        of_label = inverse[single[labels[single] == label]]
        start = 0
        for split in range(len(left) - 1):
            stop = start + max(int(left[split, label]), 0)
            place[of_label[start:stop]] = split
            start = stop


def _fill_empty(
    place: np.ndarray,
    inverse: np.ndarray,
    sizes: np.ndarray,
    order: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
) -> None:
    """Give a split that got nothing, as few groups allow, the smallest group that train can spare."""
    train = len(names) - 1
    for split in range(train):
        if (place == split).any():
            continue
        spare = np.flatnonzero(place == train)
        for group in spare[np.lexsort((order[spare], sizes[spare]))]:
            left = (place[inverse] == train) & (inverse != group)
            if len(np.unique(labels[left])) == len(np.unique(labels)):
                place[group] = split
                break


def _check_made(splits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    for name in names:
        if not (splits == name).any():
            raise DataError(
                f"{name} cannot be made: the rows hang together in groups too large for its share.",
                hint=f"Give a file for {name}, set data.{name} larger or to 0, or group by something finer.",
            )
    missing = set(np.unique(labels)) - set(np.unique(labels[splits == "train"]))
    if missing:
        raise DataError(
            f"Class {min(missing)} would have no row in train: all its rows hang together in one group.",
            hint="Group by something finer, or give the splits as files.",
        )


def sample_rows(row_ids: Sequence[str], labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose ``n`` rows, each class in proportion: those with the smallest hash of seed and row id.

    Args:
        row_ids: Ids [N].
        labels: Class index, -1 for unlabelled (a stratum of its own) [N].
        n: Rows wanted; all rows when there are fewer.
        seed: Another seed gives another sample.

    Returns:
        Boolean mask [N]. The ids chosen do not depend on the order of the rows, and each class keeps at
        least one row where ``n`` allows.
    """
    chosen = np.zeros(len(row_ids), dtype=bool)
    strata = labels + 1
    shares = proportional(np.bincount(strata), n, floor=1)
    # the second key makes the order total even where two hashes meet
    order = np.lexsort((np.asarray(row_ids), hash_order(row_ids, seed, "rows")))
    for stratum, share in enumerate(shares):
        chosen[order[strata[order] == stratum][:share]] = True
    return chosen
