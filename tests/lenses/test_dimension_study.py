"""Study 001's own classifiers and counts, against closed forms and planted truths."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.lenses import LENSES, look
from tunescope.lenses.dimensions.study import (
    carried,
    cumulative,
    machine_predictions,
    matched_order,
    their_counts,
    their_dimensions,
)
from tunescope.models import load

BAND = np.array([-3.0, -2.5, -2.0, -0.5, 0.0, 0.5, 2.0, 2.5, 3.0])
MIDDLE = (np.abs(BAND) < 1).astype(np.int64)


def test_the_constant_496_is_named_and_carried_over():
    variance = np.array([1.0, 9.0, 4.0, 0.0])
    assert their_dimensions(768, None) == {"study 001's dimension 496": 496}
    assert their_dimensions(4, variance) == {
        "study 001's 496 of 768 as a share of the width": 2,
        "the base's second greatest variance": 2,
    }
    assert carried(496, 384) == 248
    assert carried(768, 256) == 256
    assert their_counts(768) == [92, 300, 765]
    assert their_counts(256) == [30, 100, 255]


def test_only_the_radial_machine_finds_a_class_between_two_others():
    """One class lies between the two halves of the other: no threshold and no linear machine can have all right."""
    train, labels = np.tile(BAND, 20), np.tile(MIDDLE, 20)
    assert (machine_predictions(train, labels, BAND, "rbf", 0) == MIDDLE).all()
    assert (machine_predictions(train, labels, BAND, "linear", 0) == MIDDLE).mean() < 0.9
    side = (BAND > 0.25).astype(np.int64)
    assert (machine_predictions(train, np.tile(side, 20), BAND, "linear", 0) == side).all()


def test_a_constant_dimension_gets_the_most_frequent_class():
    assert machine_predictions(np.ones(5), np.array([1, 1, 0, 1, 0]), np.ones(3), "rbf", 0).tolist() == [
        1,
        1,
        1,
    ]


def test_the_matched_order_takes_the_nearest_that_is_not_the_dimension_itself():
    weighted = np.array([5.0, 4.9, 1.0, 1.1])
    assert matched_order([0, 1, 2, 3], weighted).tolist() == [1, 0, 3, 2]
    generator = np.random.default_rng(0)
    weighted = generator.random(33)
    order = matched_order(generator.permutation(33), weighted)
    assert sorted(order) == list(range(33))


def test_cumulative_shares_end_at_one_and_equal_partial_sums():
    shares = np.array([0.5, -0.25, 0.75])
    found = list(cumulative(shares, np.array([2, 0, 1]), np.array([0, 1, 2, 3])))
    assert found == [(0, 0.0), (1, 0.75), (2, 1.25), (3, 1.0)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    model = load(str(tiny_folder("gpt2", tmp_path_factory.mktemp("model"), n_labels=2)))
    with torch.no_grad():
        model.trunk.ln_f.weight[7] *= 40
    subject = make_subject(model, model, make_rows(150, classes=2))
    options = {"rows": {"n": 60}, "train_rows": 50, "random": 2}
    return look(subject, [("dimensions", options)], LENSES)[0].table, model.width


def test_the_lens_scores_both_machines_and_keeps_their_counts(table):
    table, width = table
    tuned = table.filter(pl.col("model") == "tuned")
    machines = tuned.filter(pl.col("metric") == "support_vector_accuracy")
    assert machines.height == 2 * 3
    assert set(machines["classifier"]) == {"linear support vectors", "RBF support vectors"}
    assert machines.filter(pl.col("by") == "variance")["dimension"].unique().to_list() == [7]
    assert machines["agreement"].is_between(0, 1).all()
    assert machines["p"].null_count() == 0
    curve = tuned.filter(pl.col("metric") == "removal_accuracy")
    assert set(their_counts(width)) <= set(curve["removed"])
    matched = curve.filter(pl.col("order") == "matched to the loudest in weight times deviation")
    assert set(matched["head_fit"]) == {"frozen", "refitted"}
    shares = tuned.filter((pl.col("metric") == "cumulative_share") & (pl.col("removed") == width))
    np.testing.assert_allclose(shares["value"], 1.0, atol=1e-9)
    assert shares.height == 4  # two classes, two orders
