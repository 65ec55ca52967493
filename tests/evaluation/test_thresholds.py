"""Thresholds: against an exhaustive search with scikit-learn, and blind to the test labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from tunescope.errors import DataError
from tunescope.evaluation import Scored, best_threshold, tune_thresholds


def made(n, classes=2, seed=0, shares=None, signal=1.2):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=shares)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += signal
    return labels, logits


SCORES = {
    "f1": lambda y, p: reference.f1_score(y, p, zero_division=0),
    "balanced_accuracy": reference.balanced_accuracy_score,
    "accuracy": reference.accuracy_score,
    "matthews_corrcoef": reference.matthews_corrcoef,
}


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("decimals", [8, 1])
def test_no_threshold_does_better(metric, decimals):
    labels, logits = made(120, shares=[0.8, 0.2])
    share = np.round(softmax(logits, axis=1)[:, 1], decimals)
    found = best_threshold(labels == 1, share, metric)
    cuts = np.r_[-1, share, np.nextafter(share, 2), 2]
    every = [SCORES[metric](labels, (share >= cut).astype(int)) for cut in cuts]
    assert found.after == pytest.approx(max(every))
    assert SCORES[metric](labels, (share >= found.value).astype(int)) == pytest.approx(found.after)
    assert SCORES[metric](labels, (share >= 0.5).astype(int)) == pytest.approx(found.before)


def test_of_equal_thresholds_that_nearest_to_one_half_is_taken():
    assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]).value == 0.5
    assert best_threshold([0, 0, 1, 1], [0.6, 0.7, 0.8, 0.9]).value == pytest.approx(0.75)
    assert best_threshold([0, 1], [0.5, 0.5], "f1").value == 0.5
    wrong = best_threshold([1, 0, 0, 0], [0.1, 1.0, 1.0, 1.0], "accuracy")
    assert wrong.value > 1.0  # nothing is said to be of the class
    assert wrong.after == 0.75


def test_test_rows_judge_and_do_not_choose():
    validation, test = (
        Scored(*made(400, seed=1, shares=[0.85, 0.15])),
        Scored(*made(500, seed=2, shares=[0.85, 0.15])),
    )
    tuned = tune_thresholds(validation, test, ["no", "yes"])
    assert tuned["chosen_on"] == "validation"
    (found,) = tuned["thresholds"]
    assert found["class"] == "yes"
    assert "chosen on validation rows" in found["note"]
    share = softmax(test.logits, axis=1)[:, 1]
    for part, cut in (("before", 0.5), ("after", found["threshold"])):
        expected = reference.f1_score(test.labels, share >= cut)
        assert found["test"][part]["value"] == pytest.approx(expected)
        assert found["test"][part]["low"] < expected < found["test"][part]["high"]
    change = found["test"]["difference"]
    assert change["value"] == pytest.approx(
        found["test"]["after"]["value"] - found["test"]["before"]["value"]
    )
    assert change["high"] - change["low"] < found["test"]["after"]["high"] - found["test"]["after"]["low"]
    flipped = tune_thresholds(validation, Scored(1 - test.labels, -test.logits), ["no", "yes"])
    assert flipped["thresholds"][0]["threshold"] == found["threshold"]
    other = tune_thresholds(Scored(validation.labels, validation.logits - [0, 1.0]), test, ["no", "yes"])
    assert other["thresholds"][0]["threshold"] < found["threshold"]


def test_more_classes_have_one_threshold_each_against_the_rest():
    validation, test = Scored(*made(300, 3, 1)), Scored(*made(300, 3, 2))
    found = tune_thresholds(validation, test, ["a", "b", "c"], "balanced_accuracy")["thresholds"]
    share = softmax(validation.logits, axis=1)
    for c, each in enumerate(found):
        assert (
            each["threshold"]
            == best_threshold(validation.labels == c, share[:, c], "balanced_accuracy").value
        )
        assert each["validation"]["after"] >= each["validation"]["before"]


def test_what_cannot_be_tuned_or_judged_is_said():
    labels, logits = made(60, 3)
    only = labels[labels < 2], logits[labels < 2]
    found = tune_thresholds(Scored(*only), Scored(labels, logits), ["a", "b", "c"])["thresholds"]
    assert found[2]["threshold"] is None
    assert found[2]["note"] == "undefined: no validation row has the label 'c'"
    found = tune_thresholds(Scored(labels, logits), Scored(*only), ["a", "b", "c"])["thresholds"]
    assert found[2]["test"]["after"]["note"] == "undefined: no test row has this label"
    with pytest.raises(DataError, match="needs validation rows of the class and others; 2 of 2 are of it"):
        best_threshold([1, 1], [0.2, 0.3])
    with pytest.raises(ValueError, match=r"expected one of f1, .*; found 'recall'"):
        best_threshold([1, 0], [0.2, 0.3], "recall")
