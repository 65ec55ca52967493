"""Folds, groups and deduplication: their laws, and how a study asks for them."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunescope.data import folds
from tunescope.data.repeats import clusters
from tunescope.data.split import make_folds, make_splits
from tunescope.errors import DataError

LAWS = settings(max_examples=60, deadline=None)
LONG = "the quick brown fox jumps over the lazy dog and runs away into the dark wood again"


@st.composite
def labelled(draw):
    n = draw(st.integers(20, 90))
    labels = np.asarray(draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    keys = [f"k{i}" for i in range(n)]
    for target in draw(st.lists(st.integers(0, n - 1), max_size=8)):
        keys[(target + 1) % n] = keys[target]
    return keys, labels


@LAWS
@given(labelled(), st.integers(2, 6), st.integers(0, 99), st.randoms(use_true_random=False))
def test_folds_are_a_partition_by_groups_and_do_not_depend_on_order(rows, k, seed, random):
    keys, labels = rows
    fold = make_folds(keys, labels, k, seed)
    assert set(fold) == set(range(k))
    where = defaultdict(set)
    for key, one in zip(keys, fold, strict=True):
        where[key].add(one)
    assert all(len(found) == 1 for found in where.values())
    order = random.sample(range(len(keys)), len(keys))
    again = make_folds([keys[i] for i in order], labels[order], k, seed)
    assert again.tolist() == fold[order].tolist()


@LAWS
@given(labelled(), st.integers(2, 6), st.integers(0, 99), st.booleans())
def test_without_groups_sizes_and_classes_are_even_to_one_row(rows, k, seed, stratify):
    _, labels = rows
    keys = [f"k{i}" for i in range(len(labels))]
    fold = make_folds(keys, labels, k, seed, stratify)
    sizes = np.bincount(fold, minlength=k)
    assert sizes.max() - sizes.min() <= 1
    if stratify:
        for label in np.unique(labels):
            counts = np.bincount(fold[labels == label], minlength=k)
            assert counts.max() - counts.min() <= 1


def test_large_groups_are_spread_evenly_and_keep_the_classes():
    labels = np.arange(1000) % 2
    fold = make_folds([f"g{i // 20}" for i in range(1000)], labels, 5, 0)
    assert Counter(fold.tolist()) == dict.fromkeys(range(5), 200)
    assert all(np.bincount(labels[fold == one]).tolist() == [100, 100] for one in range(5))


def test_folds_that_cannot_be_are_refused():
    labels = np.zeros(6, dtype=int)
    with pytest.raises(DataError, match="Expected 2 or more folds; came 1"):
        make_folds(list("abcdef"), labels, 1, 0)
    with pytest.raises(DataError, match="3 folds cannot be made: the 6 rows hang together in 2 groups"):
        make_folds(list("aaabbb"), labels, 3, 0)


def test_another_seed_is_another_set_of_folds():
    keys, labels = [f"k{i}" for i in range(200)], np.arange(200) % 2
    same = (make_folds(keys, labels, 5, 0) == make_folds(keys, labels, 5, 1)).sum()
    assert 20 < same < 65  # one in five by chance: 40, standard deviation 5.7


def test_unstratified_splits_keep_their_sizes_and_vary_in_their_classes():
    keys, labels = [f"k{i}" for i in range(300)], np.repeat([0, 1], [200, 100])
    held = [(make_splits(keys, labels, {"test": 0.3}, seed, stratify=False) == "test") for seed in range(30)]
    assert {int(mask.sum()) for mask in held} == {90}
    counts = [int(labels[mask].sum()) for mask in held]
    # hypergeometric: mean 30, standard deviation 3.8
    assert len(set(counts)) > 4
    assert abs(np.mean(counts) - 30) < 3


@pytest.fixture
def grouped(write, load):
    """Sixty rows: ten topics, some texts twice, a near-duplicate pair in different topics."""
    lines = [
        f"text number {i % 50} about topic {i % 10} with words w{i % 50},{'ab'[i % 2]},t{i % 10}"
        for i in range(60)
    ]
    lines += [f"{LONG},a,t1", f"{LONG} now,b,t2"]
    return write("x.csv", "text,label,topic\n" + "\n".join(lines) + "\n")


def crossing(values, fold) -> int:
    found = defaultdict(set)
    for value, one in zip(values, fold, strict=True):
        found[value].add(one)
    return sum(len(where) > 1 for where in found.values())


def test_what_never_crosses_folds(grouped, load):
    rows = load(grouped, validation=0, test=0)
    texts, topics = rows.frame["text"].to_list(), rows.frame["topic"].to_list()
    alone = [folds(rows, 3, None, seed) for seed in range(5)]
    assert any(crossing(texts, fold) for fold in alone)  # plain random folds let equal texts cross
    near = [LONG in text for text in texts]
    for seed in range(5):
        assert crossing(texts, folds(rows, 3, "texts", seed)) == 0
        assert crossing(topics, folds(rows, 3, "topic", seed)) == 0
        fold = folds(rows, 3, "duplicates", seed)
        assert crossing(texts, fold) == 0
        assert len(set(fold[near])) == 1
    assert folds(rows, 3, topics, 0).tolist() == folds(rows, 3, "topic", 0).tolist()
    assert any(len(set(folds(rows, 3, "texts", seed)[near])) > 1 for seed in range(5))


def test_groups_that_are_not_there_are_refused(grouped, load):
    rows = load(grouped, validation=0, test=0)
    with pytest.raises(DataError, match="no column 'topics' to group by") as caught:
        folds(rows, 3, "topics")
    assert "Did you mean 'topic'?" in str(caught.value)
    with pytest.raises(DataError, match="Expected a group for each of 62 rows; came 1"):
        folds(rows, 3, ["a"])


def test_a_study_takes_one_fold_as_test_and_the_folds_cover_all_rows(grouped, load):
    tests = [
        load(grouped, folds=4, fold=fold, validation=0.2).split("test").frame["row_id"] for fold in range(4)
    ]
    together = [row for part in tests for row in part]
    whole = load(grouped)
    assert sorted(together) == sorted(whole.frame["row_id"])
    rows = load(grouped, folds=4, fold=1, validation=0.2)
    made = rows.provenance["splits"]["made"]
    assert (made["folds"], made["fold"], made["held_out"]) == (4, 1, "test")
    assert abs(rows.provenance["rows"]["validation"] - 0.2 * 62) <= 2
    assert any(
        "test (fold 1 of 4, counted from 0) and validation (20%)" in note for note in rows.provenance["notes"]
    )
    assert crossing(rows.frame["text"], rows.frame["split"]) == 0


def test_where_test_is_given_the_fold_is_validation(grouped, write, load, refusal):
    test = write("t.csv", "text,label,topic\nnew text,a,t1\nother text,b,t2\n")
    rows = load({"train": grouped, "test": test}, folds=2, fold=0)
    assert rows.provenance["rows"]["test"] == 2
    assert 28 <= rows.provenance["rows"]["validation"] <= 34
    message = refusal({"train": grouped, "test": test, "validation": test}, folds=2)
    assert "no split is left to be a fold" in message


def test_duplicate_clusters_never_cross_splits_and_given_splits_are_told(grouped, write, load, refusal):
    for seed in range(8):
        rows = load(grouped, seed=seed, group_by="duplicates", test=0.3)
        near = rows.frame.filter(pl.col("text").str.contains(LONG))
        assert near["split"].n_unique() == 1
    assert "near duplicates stay together" in rows.provenance["splits"]["made"]["how"]
    test = write("t.csv", f"text,label\n{LONG} indeed,a\nother,b\n")
    rows = load({"train": grouped, "test": test}, group_by="duplicates")
    assert rows.provenance["texts"]["shared_groups"] == {"train/test": 1}
    named = write("n.csv", "text,label,duplicates\na,a,1\nb,b,2\n")
    assert "the file has a column of that name" in refusal(named, group_by="duplicates")


@pytest.mark.parametrize(
    ("how", "kept", "repeats", "shared"),
    [("exact", 10, 1, 1), ("normalised", 8, 2, 2), ("near", 6, 3, 3)],
)
def test_deduplication_leaves_evaluation_alone_and_counts_what_goes(write, load, how, kept, repeats, shared):
    train = [
        "one two three,a", "one two three,a", "One two -- three!,a",
        f"{LONG},b", f"{LONG} now,b",
        "in test,a", "In test.,b", "in test as well says the man who saw it there,b",
        "plain,a", "simple,b", "other,a", "more,b",
    ]  # fmt: skip
    path = write("x.csv", "text,label\n" + "\n".join(train) + "\n")
    test = write("t.csv", "text,label\nin test,a\nin test,b\nas well says the man who saw it there,b\n")
    rows = load({"train": path, "test": test}, deduplicate=how, validation=0)
    account = rows.provenance["deduplicated"]
    assert (account["repeats_in_train"], account["also_in_validation_or_test"]) == (repeats, shared)
    assert rows.provenance["rows"] == {"train": kept, "validation": 0, "test": 3}
    assert len(account["row_ids"]) == repeats + shared
    assert not set(account["row_ids"]) & set(rows.frame["row_id"])
    kinds = clusters(rows.frame["text"], how)
    train_rows = (rows.frame["split"] == "train").to_numpy()
    assert len(set(kinds[train_rows])) == kept
    assert not set(kinds[train_rows]) & set(kinds[~train_rows])
    assert any(note.startswith("Left out as repeats") for note in rows.provenance["notes"])


def test_of_a_repeated_text_with_two_labels_the_frequent_one_stays_in_any_order(write, load):
    lines = ["x,a", "x,b", "x,b", "y,a", "z,a", "v,b", "y,a", "z,b"]
    first, second = ("text,label\n" + "\n".join(part) + "\n" for part in (lines, lines[::-1]))
    one = load(write("1.csv", first), deduplicate="exact", validation=0, test=0)
    two = load(write("2.csv", second), deduplicate="exact", validation=0, test=0)
    key = ["row_id", "text", "label"]
    assert one.frame.select(key).sort("text").equals(two.frame.select(key).sort("text"))
    assert one.frame.filter(pl.col("text") == "x")["label"].to_list() == [1]
    assert one.provenance["deduplicated"]["clusters_with_several_labels"] == 2


def test_deduplication_that_takes_a_whole_label_is_refused(write, refusal):
    path = write("x.csv", "text,label\nsame,a\nsame,a\nsame,b\nsame,a\nsame,b\n")
    assert "leaves no row of 1 of the labels" in refusal(path, deduplicate="exact", validation=0, test=0)
