"""Baselines: planted truths, brute force, scikit-learn, and the facts of DI725."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

from tunescope.config import DataConfig
from tunescope.data import load_rows
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.errors import DataError
from tunescope.evaluation import baselines
from tunescope.evaluation.baselines.rules import (
    fit_lookup,
    leave_one_out,
    possible_columns,
    values_of,
)

NAMES = ("bad", "good")
WORDS = {0: ["sad", "poor", "dull"], 1: ["happy", "rich", "bright"]}


def rows_of(labels, texts=None, splits=None, **columns) -> Rows:
    n = len(labels)
    frame = pl.DataFrame(
        {
            "row_id": [f"r{i:04d}" for i in range(n)], "position": list(range(n)),
            "split": splits or ["train"] * (n - n // 4) + ["test"] * (n // 4),
            "text": texts or [f"word{i}" for i in range(n)], "label": pl.Series(labels, dtype=pl.Int64), **columns,
        }
    )  # fmt: skip
    return Rows(frame, LabelMap(NAMES), {})


def value(baseline, split, metric="accuracy"):
    return next(
        r["value"]
        for r in baseline["records"]
        if (r["split"], r["metric"], r["class"]) == (split, metric, None)
    )


def worded(n=200, seed=0, noise=0.0, **columns):
    """Texts of which one word of seven tells the label."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    told = np.where(generator.random(n) < noise, 1 - labels, labels)
    filler = [f"w{i}" for i in range(30)]
    texts = [" ".join([*generator.choice(filler, 6), generator.choice(WORDS[int(t)])]) for t in told]
    return rows_of(labels.tolist(), texts, **columns)


def test_majority_says_trains_class_and_its_log_loss_is_that_of_trains_shares():
    rows = rows_of([0] * 7 + [1] * 2 + [1, 1, 0], splits=["train"] * 9 + ["test"] * 3)
    found = baselines.majority(rows)
    assert found["predictions"]["prediction"].to_list() == [0] * 12
    assert value(found, "test") == pytest.approx(1 / 3)
    assert value(found, "test", "roc_auc_ovr") == 0.5
    expected = log_loss([1, 1, 0], [[7 / 9, 2 / 9]] * 3)
    assert value(found, "test", "log_loss") == pytest.approx(expected, abs=1e-5)
    assert found["about"] == "always 'bad': 7 of 9 train rows"


def test_predictions_have_the_columns_of_an_arms():
    found, left_out = baselines.cheap(worded(column=["x"] * 200))
    assert left_out == {}
    assert list(found) == ["majority", "lookup", "tfidf"]
    for one in found.values():
        assert one["predictions"].columns == [
            "row_id", "split", "label", "prediction", "logit_bad", "logit_good", "probability_bad",
            "probability_good", "tokens", "truncated",
        ]  # fmt: skip
        chances = one["predictions"].select("probability_bad", "probability_good").to_numpy()
        assert chances.sum(axis=1) == pytest.approx(1.0)
        assert (chances.argmax(axis=1) == one["predictions"]["prediction"].to_numpy()).all()
        assert one["predictions"]["tokens"].dtype == pl.Int64


def test_leave_one_out_is_that_of_a_loop():
    generator = np.random.default_rng(3)
    values, labels = generator.integers(0, 12, 80).astype(str), generator.integers(0, 3, 80)
    expected = []
    for i in range(80):
        others = np.arange(80) != i
        own = labels[others & (values == values[i])]
        shares = np.bincount(labels[others], minlength=3) / 79
        expected.append(int((np.bincount(own, minlength=3) + shares).argmax()))
    assert leave_one_out(values, labels, 3).argmax(axis=1).tolist() == expected


def test_the_lookup_takes_the_planted_column_and_says_majority_where_a_value_is_new():
    labels = [0, 1, 1] * 20
    tells = [f"topic{i % 6}" for i in range(60)]  # 6 is a multiple of the labels' period
    tells[-1] = "never seen"
    rows = rows_of(labels, other=[i % 7 for i in range(60)], tells=tells, row=list(range(60)))
    found = baselines.lookup(rows)
    assert "'tells'" in found["about"]
    assert "45 of 45 right, the best of 3 columns" in found["about"]
    assert "1 of 15 other rows have a value that train has not" in found["about"]
    assert value(found, "train") == 1.0
    assert value(found, "test") == 1.0  # the new value's label is train's most frequent
    assert found["predictions"]["prediction"][-1] == 1


def test_a_column_of_unique_values_is_worth_nothing_when_left_out():
    rows = rows_of([0, 1, 1, 1] * 10, splits=["train"] * 40, row=list(range(40)))
    assert value(baselines.lookup(rows), "train") == pytest.approx(0.75)


def test_of_columns_that_predict_alike_the_simpler_is_taken_and_lists_are_none():
    rows = rows_of([0, 1] * 20, fine=[f"{i % 4}" for i in range(40)], coarse=[i % 2 for i in range(40)],
                   several=[[i] for i in range(40)])  # fmt: skip
    assert possible_columns(rows.frame) == ["fine", "coarse"]
    assert fit_lookup(rows.frame, rows.label_array, 2, ["fine", "coarse"]).column == "coarse"


def test_missing_values_are_a_value():
    rows = rows_of([0, 1] * 20, gap=[None if i % 2 else "there" for i in range(40)])
    assert value(baselines.lookup(rows), "test") == 1.0


def test_words_are_learned_and_their_absence_is_not():
    assert value(baselines.tfidf(worded()), "test") == 1.0
    noise = worded(n=240, noise=0.5)
    assert value(baselines.tfidf(noise), "test") < 0.75
    found = baselines.tfidf(worded())
    assert "3-fold cross-validation of 150 train rows" in found["about"]


def test_tfidf_is_deterministic_and_depends_on_train_alone():
    rows = worded()
    again = baselines.tfidf(rows)["predictions"]
    assert baselines.tfidf(rows)["predictions"].equals(again)
    changed = rows.frame.with_columns(
        pl.when(pl.col("split") == "test").then(pl.lit("sad poor dull")).otherwise("text").alias("text")
    )
    other = baselines.tfidf(Rows(changed, rows.labels, {}))["predictions"]
    assert other.filter(pl.col("split") == "train").equals(again.filter(pl.col("split") == "train"))


def test_what_cannot_be_made_is_left_out_with_its_reason():
    found, left_out = baselines.cheap(rows_of([0, 1] * 8, texts=["..."] * 16))
    assert list(found) == ["majority"]
    assert left_out["lookup"] == "The look-up baseline needs a column beside text and label; there is none."
    assert "found no word" in left_out["tfidf"]
    with pytest.raises(DataError, match="there are none"):
        baselines.cheap(rows_of([None] * 8))


def test_a_class_with_few_rows_or_none_in_train_is_no_obstacle():
    rows = rows_of([0] * 20 + [1] + [0, 1], texts=["sad day"] * 20 + ["happy day"] * 2 + ["happy"],
                   splits=["train"] * 21 + ["test"] * 2)  # fmt: skip
    assert "too few rows for 3 folds" in baselines.tfidf(rows)["about"]


def grouped_rows(leak, n=400, groups=40, seed=0):
    """Rows in groups; where they leak, each group has its own word and (mostly) its own label."""
    generator = np.random.default_rng(seed)
    group = np.arange(n) % groups
    own = generator.integers(0, 2, groups)[group] if leak else generator.integers(0, 2, n)
    labels = np.where(generator.random(n) < 0.1, 1 - own, own)
    words = [f"w{i}" for i in range(20)]
    texts = [
        " ".join(
            [
                *generator.choice(words, 5),
                f"topic{g}",
                generator.choice(WORDS[int(y)] if i % 3 == 0 else words),
            ]
        )
        for i, (g, y) in enumerate(zip(group, labels, strict=True))
    ]
    return rows_of(labels.tolist(), texts, ["train"] * n, topic=[f"t{g}" for g in group])


def test_a_planted_leak_shows_as_a_gap_between_random_and_grouped_folds():
    found = baselines.cross_validate(grouped_rows(leak=True), "topic", 4)
    by_name = {one["name"]: one for one in found["baselines"]}
    assert by_name["lookup"]["leak"]
    assert by_name["tfidf"]["leak"]
    assert by_name["lookup"]["random"]["accuracy"]["value"] > 0.85
    assert by_name["lookup"]["gap"]["low"] > 0.2
    gap = by_name["tfidf"]["gap"]["value"]
    scores = [by_name["tfidf"][scheme]["accuracy"]["value"] for scheme in ("random", "grouped")]
    assert gap == pytest.approx(scores[0] - scores[1])
    assert not by_name["majority"]["leak"]
    assert found["sentence"].startswith("Random folds flatter lookup by 0.")
    assert (found["groups"], found["rows"], found["of_rows"]) == (40, 400, 400)
    json.dumps(found, allow_nan=False)


def test_clean_groups_show_no_gap():
    called = 0
    for seed in range(3):
        found = baselines.cross_validate(
            grouped_rows(leak=False, n=240, groups=24, seed=seed), "topic", 3, seed
        )
        called += sum(one["leak"] for one in found["baselines"])
    assert called == 0
    assert "no leak through it is seen" in found["sentence"]


def test_groups_may_come_by_row_id_and_rows_may_be_sampled():
    rows = grouped_rows(leak=True)
    by_id = dict(zip(rows.frame["row_id"], rows.frame["topic"], strict=True))
    found = baselines.cross_validate(rows, by_id, 3, most=150)
    assert (found["rows"], found["of_rows"], found["grouped_by"]) == (150, 400, "the groups given")


def test_cross_validation_refuses_what_cannot_be_folded():
    rows = grouped_rows(leak=False, n=40, groups=4)
    with pytest.raises(DataError, match="no column 'topik'"):
        baselines.cross_validate(rows, "topik")
    with pytest.raises(DataError, match="5 folds cannot keep the 4 groups of 'topic' whole"):
        baselines.cross_validate(rows, "topic")
    with pytest.raises(DataError, match="2 folds or more"):
        baselines.cross_validate(rows, "topic", 1)


@pytest.fixture(scope="module")
def di725(shared):
    folder = shared / "data" / "di725"
    paths = {split: str(folder / f"{split}.parquet") for split in ("train", "test")}
    data = DataConfig(path=paths, text="conversation", label="customer_sentiment", validation=0)
    return load_rows(data, 0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("column", "right", "test"),
    [("issue_sub_category", 970, 1.0), ("issue_category", 748, 0.667), ("issue_area", 617, 0.333)],
)
def test_the_columns_of_di725_determine_the_label_as_known(di725, column, right, test):
    train, held = di725.split("train"), di725.split("test")
    found = fit_lookup(train.frame, train.label_array, 3, [column])
    assert (found.right, found.rows) == (right, 970)
    guesses = found.logits(values_of(held.frame, column)).argmax(axis=1)
    assert (guesses == held.label_array).mean() == pytest.approx(test, abs=5e-4)


@pytest.mark.shared
def test_the_lookup_of_di725_takes_the_sub_category_and_is_always_right(di725):
    found = baselines.lookup(di725)
    assert found["about"].startswith(
        "the most frequent label of the value in 'issue_sub_category' (109 values;"
    )
    assert (value(found, "train"), value(found, "test")) == (1.0, 1.0)


@pytest.mark.shared
def test_grouping_di725_by_sub_category_shows_the_gap(di725):
    found = baselines.cross_validate(di725, "issue_sub_category", 3, most=300)
    by_name = {one["name"]: one for one in found["baselines"]}
    assert by_name["lookup"]["random"]["accuracy"]["value"] > 0.9
    assert by_name["lookup"]["grouped"]["accuracy"]["value"] < 0.65
    assert by_name["lookup"]["leak"]
    assert by_name["tfidf"]["gap"]["value"] > 0
