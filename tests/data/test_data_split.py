"""Laws of splits and samples, for any labels, repeats and groups."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tunescope.data.split import group_keys, hash_order, make_splits, proportional, sample_rows
from tunescope.errors import DataError

SHARES = st.sampled_from(
    [{"test": 0.1, "validation": 0.1}, {"validation": 0.25}, {"test": 0.3, "validation": 0.2}]
)
LAWS = settings(max_examples=80, deadline=None)


@st.composite
def labelled(draw, most_repeats: int = 3):
    """Keys and labels of 40 to 160 rows: 2 to 4 classes, some keys several times."""
    n = draw(st.integers(40, 160))
    classes = draw(st.integers(2, 4))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    labels = [*labels, *range(classes), *range(classes)]
    keys = [f"k{i}" for i in range(len(labels))]
    for target in draw(st.lists(st.integers(0, n - 1), max_size=8)):
        for step in range(1, draw(st.integers(1, most_repeats))):
            keys[(target + step) % n] = keys[target]
    return keys, np.asarray(labels)


@LAWS
@given(labelled(), SHARES, st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_split_and_equal_keys_never_cross(rows, shares, seed):
    keys, labels = rows
    splits = make_splits(keys, labels, shares, seed)
    assert set(splits) == {*shares, "train"}
    where: dict[str, set] = {}
    for key, split in zip(keys, splits, strict=True):
        where.setdefault(key, set()).add(split)
    assert all(len(found) == 1 for found in where.values())
    assert set(labels[splits == "train"]) == set(labels)


@LAWS
@given(labelled(most_repeats=1), SHARES, st.integers(0, 99))
def test_without_repeats_every_class_is_within_one_row_of_its_share(rows, shares, seed):
    keys, labels = rows
    splits = make_splits(keys, labels, shares, seed)
    for split, share in shares.items():
        assert (splits == split).sum() == max(1, round(share * len(labels)))
        for label in np.unique(labels):
            of_label = labels == label
            assert abs((of_label & (splits == split)).sum() - share * of_label.sum()) <= 1.5
            # 1 by largest remainder, and at most .5 from rounding the split's size


@LAWS
@given(labelled(), SHARES, st.integers(0, 99))
def test_with_repeats_a_class_is_off_by_no_more_than_its_largest_group(rows, shares, seed):
    keys, labels = rows
    splits = make_splits(keys, labels, shares, seed)
    largest = max(Counter(keys).values())
    for split, share in shares.items():
        for label in np.unique(labels):
            of_label = labels == label
            assert abs((of_label & (splits == split)).sum() - share * of_label.sum()) <= 1.5 + largest


@LAWS
@given(labelled(), SHARES, st.integers(0, 99), st.randoms(use_true_random=False))
def test_splits_do_not_depend_on_the_order_of_the_rows(rows, shares, seed, random):
    keys, labels = rows
    order = np.asarray(random.sample(range(len(keys)), len(keys)))
    splits = make_splits(keys, labels, shares, seed)
    again = make_splits([keys[i] for i in order], labels[order], shares, seed)
    assert again.tolist() == splits[order].tolist()


def test_another_seed_is_another_split():
    keys, labels = [f"k{i}" for i in range(200)], np.arange(200) % 2
    one, two = (make_splits(keys, labels, {"test": 0.5}, seed) for seed in (0, 1))
    assert 60 < (one != two).sum() < 140  # two independent halves differ in half of the rows


def test_every_row_is_as_likely_to_be_in_test():
    keys, labels = [f"k{i}" for i in range(50)], np.arange(50) % 2
    keys[:10] = ["p0", "p0", "p2", "p2", "p4", "p4", "p6", "p6", "p8", "p8"]
    hits = sum((make_splits(keys, labels, {"test": 0.2}, seed) == "test").astype(int) for seed in range(600))
    # binomial(600, .2): mean 120, standard deviation 9.8; rows of pairs must not be favoured or spared
    assert np.all(np.abs(hits - 120) < 50), hits


def test_large_groups_fill_the_shares():
    labels = np.arange(1000) % 2
    keys = [f"g{i // 50}" for i in range(1000)]  # twenty groups of fifty
    splits = make_splits(keys, labels, {"test": 0.1, "validation": 0.2}, 0)
    assert Counter(splits) == {"train": 700, "validation": 200, "test": 100}


def test_five_groups_are_enough_for_three_splits():
    labels = np.arange(100) % 2
    keys = [f"g{i // 20}" for i in range(100)]
    for seed in range(10):
        splits = make_splits(keys, labels, {"test": 0.1, "validation": 0.1}, seed)
        assert Counter(splits) == {"train": 60, "validation": 20, "test": 20}


def test_what_groups_forbid_is_refused():
    labels = np.asarray([0, 1] * 10)
    with pytest.raises(DataError, match="test cannot be made: the rows hang together"):
        make_splits(["one"] * 20, labels, {"test": 0.1}, 0)
    with pytest.raises(DataError, match="leave no rows for train"):
        make_splits([f"k{i}" for i in range(20)], labels, {"test": 0.6, "validation": 0.4}, 0)


def test_two_rows_of_a_class_leave_one_to_train():
    labels = np.asarray([0] * 20 + [1] * 2)
    for seed in range(20):
        splits = make_splits([f"k{i}" for i in range(22)], labels, {"test": 0.4, "validation": 0.4}, seed)
        assert "train" in splits[labels == 1]


@LAWS
@given(
    st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 12)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_group_keys_are_the_connected_components(pairs, random):
    texts = [f"t{text}" for text, _ in pairs]
    groups = [None if group is None else f"g{group}" for _, group in pairs]
    keys = group_keys(pl.Series(texts), pl.Series(groups, dtype=pl.String))
    # an independent reference: merge until nothing changes
    sets = [{i} for i in range(len(pairs))]
    merged = True
    while merged:
        merged = False
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                linked = any(
                    texts[i] == texts[j] or (groups[i] is not None and groups[i] == groups[j])
                    for i in sets[a]
                    for j in sets[b]
                )
                if linked:
                    sets[a] |= sets.pop(b)
                    merged = True
                    break
            if merged:
                break
    expected = {i: min(texts[j] for j in group) for group in sets for i in group}
    assert keys == [expected[i] for i in range(len(pairs))]
    order = random.sample(range(len(pairs)), len(pairs))
    again = group_keys(
        pl.Series([texts[i] for i in order]), pl.Series([groups[i] for i in order], dtype=pl.String)
    )
    assert again == [keys[i] for i in order]


@LAWS
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 0),
    st.integers(0, 120),
    st.integers(0, 2),
)
def test_proportional_shares(counts, total, floor):
    counts = np.asarray(counts)
    shares = proportional(counts, total, floor=floor)
    assert shares.sum() == min(total, counts.sum())
    assert np.all((shares >= 0) & (shares <= counts))
    if floor == 0:
        assert np.all(np.abs(shares - shares.sum() * counts / counts.sum()) < 1)
    elif np.minimum(counts, floor).sum() <= total:
        assert np.all(shares >= np.minimum(counts, floor))


@LAWS
@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=80),
    st.integers(1, 90),
    st.integers(0, 99),
    st.randoms(use_true_random=False),
)
def test_samples_do_not_depend_on_order_and_keep_proportions(labels, n, seed, random):
    labels = np.asarray(labels)
    ids = [f"id{i}" for i in range(len(labels))]
    chosen = sample_rows(ids, labels, n, seed)
    assert chosen.sum() == min(n, len(ids))
    order = random.sample(range(len(ids)), len(ids))
    again = sample_rows([ids[i] for i in order], labels[order], n, seed)
    assert again.tolist() == chosen[order].tolist()
    for label in np.unique(labels):
        if n >= len(np.unique(labels)):
            assert chosen[labels == label].any()


def test_a_sample_keeps_a_row_of_a_rare_class():
    labels = np.asarray([0] * 990 + [1] * 8 + [2] * 2)
    chosen = sample_rows([f"id{i}" for i in range(1000)], labels, 20, 0)
    assert np.bincount(labels[chosen]).tolist() == [18, 1, 1]


@LAWS
@given(st.lists(st.integers(0, 2), min_size=10, max_size=60), st.integers(3, 9), st.integers(0, 99))
def test_a_sample_takes_the_smallest_hashes_of_each_class(labels, n, seed):
    labels = np.asarray(labels)
    ids = [f"id{i}" for i in range(len(labels))]
    assume(n <= len(ids))
    chosen = sample_rows(ids, labels, n, seed)
    key = f"rows:{seed}".encode()
    reference = np.asarray(
        [int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8, key=key).digest(), "big") for i in ids],
        dtype=np.uint64,
    )
    assert hash_order(ids, seed, "rows").tolist() == reference.tolist()
    for label in np.unique(labels):
        inside, outside = reference[chosen & (labels == label)], reference[~chosen & (labels == label)]
        assert not len(inside) or not len(outside) or inside.max() < outside.min()
