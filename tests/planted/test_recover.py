"""Recovery is exact for the best possible classifier, and gives its controls for one that learnt nothing."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
import pytest

from tunescope.errors import DataError, RunError
from tunescope.planted.corpus import write_corpus
from tunescope.planted.recover import RecoverOptions, left_out, planted_places, recover
from tunescope.planted.truth import Planting, class_probabilities

LABELS = ("negative", "neutral", "positive")
ROWS = {"train": 100, "validation": 100, "test": 600, "corpus": 20, "pairs": 200}
OPTIONS = RecoverOptions(sentences=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, ROWS, seed=11)
    return folder


def best(texts, labels=LABELS):
    """Logits of the Bayes-optimal classifier; even where a text is none of the grammar's."""
    logits = []
    for text in texts:
        try:
            probabilities = class_probabilities(text, Planting())
        except DataError:
            probabilities = dict.fromkeys(LABELS, 1 / 3)
        logits.append([np.log(probabilities[name]) for name in labels])
    return np.array(logits)


def ignorant(texts):
    """Logits that depend on the text but not on what it says."""
    return np.array([np.random.default_rng(zlib.crc32(text.encode())).normal(size=3) for text in texts])


def by_metric(recovery, **where):
    rows = [row for row in recovery.records if all(row.get(key) == value for key, value in where.items())]
    assert len(rows) == 1, rows
    return rows[0]


def test_the_best_classifier_recovers_everything_exactly(folder):
    found = recover(LABELS, best, folder, options=OPTIONS)
    accuracy = by_metric(found, metric="accuracy")
    assert accuracy["value"] == pytest.approx(accuracy["planted"], abs=1e-12)
    assert by_metric(found, metric="noise_share")["value"] == pytest.approx(0.08, abs=1e-12)
    assert by_metric(found, metric="clean_accuracy")["value"] == 1.0
    gap = by_metric(found, metric="gender_gap_ambiguous")
    assert (gap["value"], gap["planted"], gap["class"]) == (
        pytest.approx(0.44),
        pytest.approx(0.44),
        "positive",
    )
    assert by_metric(found, metric="gender_gap_decisive")["value"] == pytest.approx(0.0)


def test_the_best_classifier_shows_the_planted_words(folder):
    found = recover(LABELS, best, folder, options=OPTIONS)
    for kind in ("plain", "flipped", "diminished"):
        row = by_metric(found, metric=f"top_word_{kind}")
        # Leaving out "although" merges two clauses into one that no rule reads, so that it can weigh as much.
        assert row["value"] > 0.9
        assert 0.05 < row["control"] < 0.5
        assert row["low"] > row["control"]
    for name in LABELS:
        row = by_metric(found, metric="top_words", **{"class": name})
        assert row["value"] == 1.0
        assert row["n"] == 8


def test_a_classifier_that_learnt_nothing_gives_the_controls(folder):
    found = recover(LABELS, ignorant, folder, options=OPTIONS)
    row = by_metric(found, metric="top_word_plain")
    assert row["low"] < row["control"] < row["high"]
    for name in ("ambiguous", "decisive"):
        gap = by_metric(found, metric=f"gender_gap_{name}")
        # The difference of two independent probabilities of 100 pairs: a standard error of about 0.035.
        assert abs(gap["value"]) < 0.11
        assert gap["low"] < gap["value"] < gap["high"]
    assert by_metric(found, metric="accuracy")["value"] == pytest.approx(1 / 3, abs=0.08)


def test_the_order_of_the_logits_is_that_of_the_labels_given(folder):
    order = ("positive", "negative", "neutral")
    found = recover(order, lambda texts: best(texts, order), folder, options=OPTIONS)
    assert by_metric(found, metric="clean_accuracy")["value"] == 1.0
    assert by_metric(found, metric="gender_gap_ambiguous")["value"] == pytest.approx(0.44)


def test_intervals_of_the_gap_are_clustered_by_person(folder):
    row = by_metric(recover(LABELS, ignorant, folder, options=OPTIONS), metric="gender_gap_ambiguous")
    subjects = pl.read_parquet(folder / "pairs.parquet").filter("ambiguous")["subject"].n_unique()
    assert f"of {subjects} groups" in row["method"]


def test_the_drop_is_the_exact_change_of_the_margin(folder):
    """An additive classifier: the margin of two equal classes moves by the word's own weight."""

    def weight(word):
        return zlib.crc32(word.encode()) % 1000 / 100

    def additive(texts):
        score = [sum(weight(piece.rstrip(".,").lower()) for piece in text.split()) for text in texts]
        return np.array([[0.0, -1e9, value] for value in score])

    examples = recover(LABELS, additive, folder, options=OPTIONS).examples
    assert set(examples["predicted"]) == {"positive"}
    for row in examples.head(200).iter_rows(named=True):
        assert row["drop"] == pytest.approx(weight(row["word"]), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("Very awful.", ["awful.", "Very."]),
        ("In the end, it was.", ["the end, it was.", "In end, it was.", "In the, it was.", "In the end, was.",
                                 "In the end, it."]),
    ],
)  # fmt: skip
def test_leaving_words_out_keeps_punctuation_in_place(text, variants):
    assert left_out(text) == variants


@pytest.mark.parametrize(
    ("text", "word", "modifier", "places"),
    [
        ("The film was lovely.", "lovely", None, [3]),
        ("The film was anything but lovely.", "lovely", "anything but", [3, 4, 5]),
        ("The film was not very lovely, even though it was.", "lovely", "not", [3, 5]),
        ("Although the song was awful, the film was not awful.", "awful", "not", [8, 9]),
    ],
)
def test_planted_places(text, word, modifier, places):
    assert planted_places(text, word, modifier) == places


def test_every_sentence_has_exactly_its_planted_words_marked(folder):
    examples = recover(LABELS, ignorant, folder, options=OPTIONS).examples
    assert examples["sentence"].n_unique() == 300
    marked = examples.filter("is_planted").group_by("sentence", "kind").len()
    assert len(marked) == 300
    assert set(marked.filter(pl.col("kind") == "plain")["len"]) == {1}
    assert set(marked.filter(pl.col("kind") == "flipped")["len"]) == {2, 3}


def test_other_labels_and_missing_truth_are_refused(folder, tmp_path):
    with pytest.raises(
        DataError, match=r"has the labels negative, neutral, positive; the classifier has bad, good"
    ):
        recover(("bad", "good"), best, folder)
    with pytest.raises(RunError, match=r"truth\.json is missing"):
        recover(LABELS, best, tmp_path)
