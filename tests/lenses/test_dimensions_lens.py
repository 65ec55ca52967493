"""The dimensions lens: a planted deciding dimension and a loud idle one are told apart; laws and bad input."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import FAMILIES, tiny_folder
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.lenses.dimensions.head_input import read_head_input
from tunescope.models import load

SMALL = {"rows": {"split": "validation", "n": 60}, "random": 5, "train_rows": 60}


def dimensions_of(subject, **options):
    return look(subject, [("dimensions", {**SMALL, **options})], LENSES)[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_laws_hold_in_every_family(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    subject = make_subject(model, model, make_rows(120))
    table = dimensions_of(subject).table.filter(pl.col("model") == "tuned")
    shares = table.filter(pl.col("metric") == "logit_share").group_by("class").agg(pl.col("value").sum())
    np.testing.assert_allclose(shares["value"], 1.0, atol=1e-9)
    full = table.filter(pl.col("metric") == "model_accuracy")["value"].item()
    start = table.filter((pl.col("removed") == 0) & (pl.col("head_fit") == "frozen"))
    np.testing.assert_allclose(start["value"], full)
    end = table.filter((pl.col("removed") == model.width) & (pl.col("edit") == "zero"))
    assert end["value"].n_unique() == 1  # whatever the order, nothing is left but the bias


def test_a_deciding_and_an_idle_rogue_dimension_are_told_apart(tmp_path):
    """Labels are the sign of dimension 3; dimension 7 has by far the greatest variance and says nothing."""
    model = load(str(tiny_folder("gpt2", tmp_path, n_labels=2)))
    with torch.no_grad():
        model.trunk.ln_f.weight[7] *= 40
        weight = model.head.parts["score"].weight
        weight.zero_()
        weight[1, 3] = 1.0
    rows = make_rows(240, classes=2)
    subject = make_subject(model, model, rows)
    for split, tokens in subject.splits.items():
        values = read_head_input(model, tokens).values[:, 3]
        labels = (values > 0).astype(np.int64)
        assert 0 < labels.mean() < 1
        object.__setattr__(subject.splits[split], "labels", labels)
    table = dimensions_of(subject, rows={"split": "validation", "n": 160}).table
    one = table.filter((pl.col("metric") == "one_dimension_accuracy") & (pl.col("model") == "tuned"))
    by_variance, by_accuracy = (
        one.filter(pl.col("by") == by).row(0, named=True) for by in ("variance", "train accuracy")
    )
    assert (by_variance["dimension"], by_accuracy["dimension"]) == (7, 3)
    assert by_accuracy["value"] > 0.97
    assert by_variance["value"] < by_accuracy["value"] - 0.1
    shares = table.filter((pl.col("metric") == "logit_share") & (pl.col("model") == "tuned"))
    carried = shares.filter(pl.col("class") == shares["class"][0]).sort("value", descending=True)
    assert carried["dimension"][0] == 3
    assert carried["value"][0] == pytest.approx(1.0)


def test_train_rows_cannot_score_themselves(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    with pytest.raises(LensError, match="train rows cannot score them"):
        dimensions_of(make_subject(model, model), rows={"split": "train", "n": 20})
