"""Slices: against plain metrics of the chosen rows; no row is ever dropped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from tunescope.errors import DataError
from tunescope.evaluation import (
    SliceOptions,
    classification_metrics,
    length_bins,
    measure_slices,
    slice_metrics,
    standard_columns,
)

NAMES = ["a", "b", "c"]


def made(n=600, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    logits = generator.normal(size=(n, 3))
    logits[np.arange(n), labels] += 1.5
    return labels, logits, generator


def pick(records, **wanted):
    return [r for r in records if all(r[key] == value for key, value in wanted.items())]


def test_a_slices_metrics_are_those_of_its_rows():
    labels, logits, generator = made()
    where = generator.choice(["north", "south"], 600, p=[0.7, 0.3])
    records = slice_metrics(labels, logits, NAMES, {"where": where}, "test")
    json.dumps(records, allow_nan=False)
    for name in ("north", "south"):
        rows = where == name
        alone = {
            (r["metric"], r["class"]): r
            for r in classification_metrics(labels[rows], logits[rows], NAMES, "test")
        }
        for metric in ("accuracy", "balanced_accuracy", "f1_macro"):
            (got,) = pick(records, column="where", group=name, metric=metric)
            expected = alone[metric, None]
            assert (got["value"], got["n"], got["split"]) == (expected["value"], rows.sum(), "test")
            width = expected["high"] - expected["low"]
            assert (got["low"], got["high"]) == pytest.approx(
                (expected["low"], expected["high"]), abs=width / 8
            )
        for c, label in enumerate(NAMES):
            (got,) = pick(records, column="where", group=name, metric="recall", **{"class": label})
            assert (got["low"], got["high"]) == (
                alone["recall", label]["low"],
                alone["recall", label]["high"],
            )
            (rate,) = pick(records, column="where", group=name, metric="selection_rate", **{"class": label})
            assert rate["value"] == pytest.approx((logits[rows].argmax(axis=1) == c).mean())
    whole = pick(records, column="where", group=None)
    assert {r["metric"] for r in whole} == {
        "demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference",
    }  # fmt: skip


def test_the_longest_rows_are_in_the_last_bin():
    lengths = np.array([3, 64, 65, 128, 129, 1281, 40_000])
    bins = length_bins(lengths, [64, 128, 1280])
    assert bins.tolist() == ["0-64", "0-64", "65-128", "65-128", "129-1280", "1281+", "1281+"]
    sizes = np.random.default_rng(0).gamma(2.0, 150.0, 5000).astype(int)
    names, counts = np.unique(length_bins(sizes).astype(str), return_counts=True)
    assert counts.sum() == 5000  # study 002 lost 43 reviews of more than 1,280 tokens
    assert "513+" in names
    assert counts.min() > 100
    assert set(length_bins([9, 9, 9])) == {"0-16"}
    with pytest.raises(ValueError, match=r"edges that ascend, found \[5, 5\]"):
        length_bins([1], [5, 5])
    with pytest.raises(ValueError, match="at least 0, found -1"):
        length_bins([-1])


def test_every_row_is_in_one_slice_of_each_column():
    labels, logits, generator = made()
    lengths = generator.integers(1, 3000, 600)
    rare = np.array([f"value {i}" if i < 30 else "common" for i in range(600)], dtype=object)
    rare[50:90] = None
    columns = {
        **standard_columns(lengths, lengths > 512), "rare": rare, "number": generator.normal(size=600),
        "missing": np.where(np.arange(600) < 100, np.nan, generator.normal(size=600)), "flag": lengths % 2 == 0,
        "year": 2000 + generator.integers(0, 3, 600),
    }  # fmt: skip
    records = slice_metrics(labels, logits, NAMES, columns, "validation")
    for column in columns:
        found = [r for r in pick(records, column=column, metric="accuracy") if r["group"] is not None]
        assert sum(r["n"] for r in found) == 600, column
        right = sum(round(r["value"] * r["n"]) for r in found)
        assert right == reference.accuracy_score(labels, logits.argmax(axis=1), normalize=False)
    (rest,) = pick(records, column="rare", group="(all other values)", metric="accuracy")
    assert rest["n"] == 30
    assert rest["note"].startswith("30 values with few rows each, put together: 'value 0', 'value 1'")
    assert pick(records, column="rare", group="(missing)", metric="accuracy")[0]["n"] == 40
    assert pick(records, column="missing", group="(missing)", metric="accuracy")[0]["n"] == 100
    assert len([r for r in pick(records, column="number", metric="accuracy") if r["group"]]) == 4
    assert {r["group"] for r in pick(records, column="year")} == {"2000", "2001", "2002", None}
    assert [r["group"] for r in pick(records, column="flag", metric="accuracy")] == ["False", "True"]


def test_few_rows_and_missing_classes_are_said():
    labels, logits, _ = made(100)
    where = np.where(np.arange(100) < 5, "few", "many")
    labels[:5] = 0
    records = slice_metrics(labels, logits, NAMES, {"where": where}, "test")
    (few,) = pick(records, group="few", metric="accuracy")
    assert "few rows: fewer than 20" in few["note"]
    (recall,) = pick(records, group="few", metric="recall", **{"class": "b"})
    assert recall["value"] is None
    assert recall["note"].startswith("undefined: no row of this slice has the label 'b'")
    (odds,) = pick(records, group=None, metric="equalized_odds_difference", **{"class": "b"})
    assert odds["note"] == "undefined: no row of 'few' has the label 'b'"
    kept = measure_slices(labels, logits, NAMES, {"where": where}, SliceOptions("test", least=5))
    assert "few rows" not in (pick(kept, group="few", metric="accuracy")[0]["note"] or "")
    unlabelled = slice_metrics(np.full(100, -1), logits, NAMES, {"where": where}, "test")
    assert all(r["note"] == "undefined: no rows" for r in unlabelled)
    with pytest.raises(
        DataError, match=r"Column 'where': expected one value for each of 100 rows, found \(99,\)"
    ):
        slice_metrics(labels, logits, NAMES, {"where": where[1:]}, "test")
