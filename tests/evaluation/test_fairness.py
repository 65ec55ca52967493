"""Differences between groups: against fairlearn, and by simulation of their intervals and p values."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn import metrics as reference

from tunescope.errors import DataError
from tunescope.evaluation import fairness_metrics


def by_name(records):
    return {(r["metric"], r["class"]): r for r in records}


def made(n, groups, gap=0.0, seed=0):
    generator = np.random.default_rng(seed)
    group = generator.integers(0, groups, n)
    labels = generator.integers(0, 2, n)
    right = generator.random(n) < np.where(group == 0, 0.8 - gap, 0.8)
    return labels, np.where(right, labels, 1 - labels), group


@pytest.mark.parametrize("groups", [2, 5])
def test_values_are_fairlearns(groups):
    labels, guesses, group = made(400, groups, 0.2)
    got = by_name(fairness_metrics(labels, guesses, group, ["no", "yes"]))
    for c, name in enumerate(("no", "yes")):
        y, p = labels == c, guesses == c
        expected = {
            "demographic_parity_difference": reference.demographic_parity_difference(
                y, p, sensitive_features=group
            ),
            "demographic_parity_ratio": reference.demographic_parity_ratio(y, p, sensitive_features=group),
            "equalized_odds_difference": reference.equalized_odds_difference(y, p, sensitive_features=group),
        }
        for metric, value in expected.items():
            record = got[metric, name]
            assert record["value"] == pytest.approx(value), metric
            assert 0 <= record["low"] <= record["value"] <= record["high"] <= 1
            assert record["method"].startswith(
                "stratified bootstrap (rows within their group), 1000 resamples"
            )


def test_a_planted_difference_is_found_and_no_difference_is_not():
    planted = by_name(fairness_metrics(*made(1500, 3, 0.3), ["no", "yes"]))[
        "equalized_odds_difference", "yes"
    ]
    assert planted["p"] == pytest.approx(1 / 1001)
    assert planted["low"] > 0.1
    labels, guesses, group = made(600, 3)
    selected = by_name(fairness_metrics(labels, np.where(group == 0, 1, guesses), group, ["no", "yes"]))
    for metric in ("demographic_parity_difference", "demographic_parity_ratio"):
        assert selected[metric, "yes"]["p"] == pytest.approx(1 / 1001)
    equal = by_name(
        fairness_metrics(np.tile([0, 1], 60), np.tile([0, 1], 60), np.repeat([0, 1, 2], 40), ["no", "yes"])
    )
    assert equal["demographic_parity_ratio", "yes"]["value"] == 1
    assert equal["demographic_parity_ratio", "yes"]["p"] == 1
    p, covered = [], []
    for seed in range(60):
        record = by_name(fairness_metrics(*made(300, 3, seed=seed), ["no", "yes"], seed))
        p.append(record["equalized_odds_difference", "yes"]["p"])
        covered.append(record["equalized_odds_difference", "yes"]["low"] == 0)
    assert np.mean(covered) >= 0.9
    assert 0.3 < np.mean(p) < 0.7  # uniform where nothing is there
    assert np.mean(np.array(p) < 0.1) < 0.25


def test_intervals_hold_a_true_difference():
    inside = []
    for seed in range(80):
        record = by_name(fairness_metrics(*made(400, 2, 0.15, seed), ["no", "yes"], seed))
        record = record["equalized_odds_difference", "yes"]
        inside.append(record["low"] <= 0.15 <= record["high"])
    assert np.mean(inside) >= 0.88


def test_few_rows_are_said():
    labels, guesses, group = made(300, 2, 0.1)
    group[:6] = 2
    labels[:6] = [0, 0, 0, 1, 1, 1]
    got = by_name(fairness_metrics(labels, guesses, group, ["no", "yes"]))
    assert got["equalized_odds_difference", "yes"]["note"].startswith(
        "'2' has only 3 rows on one side of this label: the interval is likely too narrow; with shuffled groups"
    )
    assert got["demographic_parity_difference", "yes"]["note"].startswith("'2' has only 6 rows: ")
    assert (
        "only"
        not in by_name(fairness_metrics(*made(300, 2), ["no", "yes"]))[
            "demographic_parity_difference", "yes"
        ]["note"]
    )


def test_what_is_undefined_is_said():
    labels, guesses = np.array([0, 1, 1, 1, 0, 1]), np.array([0, 1, 0, 1, 1, 0])
    group = np.array(["x", "x", "x", "y", "y", "y"])
    one = fairness_metrics(labels, guesses, np.full(6, "x"), ["no", "yes"])
    assert {r["note"] for r in one} == {"undefined: the rows are all of one group"}
    lacking = by_name(fairness_metrics(np.ones(6, int), guesses, group, ["no", "yes"]))
    assert (
        lacking["equalized_odds_difference", "no"]["note"]
        == "undefined: no row of 'x', 'y' has the label 'no'"
    )
    assert lacking["equalized_odds_difference", "yes"]["note"] == (
        "undefined: all rows of 'x', 'y' have the label 'yes'"
    )
    never = by_name(fairness_metrics(labels, np.zeros(6, int), group, ["no", "yes"]))
    assert never["demographic_parity_ratio", "yes"]["note"] == (
        "undefined: no row of any group was predicted as 'yes'"
    )
    none = by_name(fairness_metrics(labels, np.array([0, 0, 0, 1, 1, 0]), group, ["no", "yes"]))
    assert none["demographic_parity_ratio", "yes"]["value"] == 0
    assert none["demographic_parity_ratio", "yes"]["low"] is None
    assert "a group has a rate of 0" in none["demographic_parity_ratio", "yes"]["note"]
    with pytest.raises(DataError, match="one prediction and one group per label"):
        fairness_metrics(labels, guesses, group[1:], ["no", "yes"])
    with pytest.raises(DataError, match="Expected every label from 0 to 1; found 2"):
        fairness_metrics(labels + 1, guesses, group, ["no", "yes"])
