"""A shift as on DI725 (positives 1.75 % of train, a third of test), planted, with the known Bayes answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, recall_score

from tunescope.evaluation import PriorRows, Scored, effective_prior, prior_shift

NAMES = ("negative", "neutral", "positive")
ROWS = {"negative": 417, "neutral": 536, "positive": 17}  # of DI725's 970
TRAIN = np.array([417, 536, 17]) / 970
TARGET = np.array([1, 1, 1]) / 3
SIGNAL = 1.6


@pytest.fixture(scope="module")
def shifted():
    """Test rows of equal classes, and the logits of a calibrated model of the train rows."""
    generator = np.random.default_rng(5)
    labels = generator.permutation(np.arange(1500) % 3)
    seen = generator.normal(size=(1500, 3))
    seen[np.arange(1500), labels] += SIGNAL
    return labels, SIGNAL * seen, SIGNAL * seen + np.log(TRAIN)


def values(records):
    return {(one["metric"], one["class"]): one["value"] for one in records}


def test_a_planted_shift_is_undone_to_the_bayes_answer(shifted):
    labels, likelihood, logits = shifted
    found = prior_shift("uniform", TRAIN, PriorRows(Scored(labels, logits), NAMES), 3)
    got = values(found["records"])
    best = softmax(likelihood, axis=1)  # the log likelihood alone: Bayes' rule under equal classes
    assert got["accuracy", None] == pytest.approx(accuracy_score(labels, best.argmax(axis=1)))
    assert got["log_loss", None] == pytest.approx(log_loss(labels, best))
    assert got["recall", "positive"] == pytest.approx(recall_score(labels == 2, best.argmax(axis=1) == 2))
    assert got["balanced_accuracy", None] > balanced_accuracy_score(labels, logits.argmax(axis=1)) + 0.1
    assert recall_score(labels == 2, logits.argmax(axis=1) == 2) < 0.3 < 0.7 < got["recall", "positive"]
    assert (found["done"], found["split"], found["estimate"]) == (True, "test", None)
    assert found["target"] == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    assert found["train"] == pytest.approx(dict(zip(NAMES, TRAIN, strict=True)))
    assert "No test label chose the target shares: they are equal" in found["note"]


def test_the_estimate_finds_the_planted_shares_and_reads_no_label(shifted):
    labels, _, logits = shifted
    found = prior_shift("estimate", TRAIN, PriorRows(Scored(labels, logits), NAMES), 3)
    ends = found["estimate"]
    for name in NAMES:
        assert ends["low"][name] <= 1 / 3 <= ends["high"][name]
        assert found["target"][name] == pytest.approx(1 / 3, abs=0.06)
    assert "expectation maximisation on the logits of 1,500 test rows" in found["note"]
    hidden = np.where(np.arange(1500) < 1400, -1, labels)
    other = prior_shift("estimate", TRAIN, PriorRows(Scored(hidden, logits), NAMES), 3)
    assert (other["target"], other["estimate"]) == (found["target"], ends)
    assert {one["n"] for one in other["records"] if one["metric"] == "accuracy"} == {100}


def test_named_shares_are_taken_by_name_and_scaled(shifted):
    labels, _, logits = shifted
    rows = PriorRows(Scored(labels, logits), NAMES)
    found = prior_shift({"positive": 17, "negative": 417, "neutral": 536}, TRAIN, rows, 3)
    assert found["target"] == pytest.approx(dict(zip(NAMES, TRAIN, strict=True)))
    got = values(found["records"])  # to where the logits are already: nothing may change
    assert got["accuracy", None] == pytest.approx(accuracy_score(labels, logits.argmax(axis=1)))


def test_a_class_that_no_row_seems_to_have_keeps_finite_logits():
    logits = np.array([[9.0, 0.0, -800.0]] * 4 + [[0.0, 9.0, -800.0]] * 4)
    rows = PriorRows(Scored(np.array([0] * 4 + [1] * 4), logits), NAMES)
    found = prior_shift("estimate", TRAIN, rows)
    assert 0 < found["target"]["positive"] < 1e-11
    assert values(found["records"])["accuracy", None] == 1


def test_weights_sampling_and_adjustment_change_what_the_logits_carry():
    """The least weighted loss over a table of rows: its own shares are what the correction must take out."""
    rows = {"train_rows": ROWS}
    np.testing.assert_allclose(effective_prior(rows, NAMES), TRAIN)
    balanced = {name: 970 / (3 * n) for name, n in ROWS.items()}
    np.testing.assert_allclose(effective_prior({**rows, "class_weights": balanced}, NAMES), TARGET)
    np.testing.assert_allclose(effective_prior({**rows, "sampling": "balanced"}, NAMES), TARGET)
    for tau, shares in ((1.0, TARGET), (0.5, np.sqrt(TRAIN) / np.sqrt(TRAIN).sum())):
        adjustment = dict(zip(NAMES, tau * np.log(TRAIN), strict=True))
        np.testing.assert_allclose(effective_prior({**rows, "logit_adjustment": adjustment}, NAMES), shares)
    assert effective_prior({}, NAMES) is None


def test_what_cannot_be_corrected_says_why(shifted):
    rows = PriorRows(Scored(shifted[0], shifted[2]), NAMES)
    assert prior_shift("uniform", None, rows) == {
        "done": False, "asked": "uniform", "reason": "the classes' shares in training are not known",
    }  # fmt: skip
    found = prior_shift("estimate", np.array([0.5, 0.5, 0.0]), rows)
    assert found["reason"] == "Class 2 has no row in training: its share cannot be estimated."
