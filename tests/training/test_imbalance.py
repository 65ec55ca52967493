"""Class weights, subsets and shares against scikit-learn and the counts themselves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight
from training_helpers import LABELS, make_tokens

from tunescope.config.fitting import FittingConfig
from tunescope.errors import ConfigError, DataError
from tunescope.training.imbalance import balanced_subset, class_loss

NAMES = LABELS.names


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 50 + [1] * 9 + [2] * 3)
    loss = class_loss(FittingConfig(class_weights="balanced"), 0.0, labels, NAMES)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert np.allclose(loss.weights.numpy(), expected)
    # every class weighs the same in all
    assert np.allclose(np.bincount(labels) * loss.weights.numpy(), len(labels) / 3)


def test_weights_by_name_go_to_their_classes():
    fitting = FittingConfig(class_weights={"good": 3, "bad": 1, "fine": 2})
    loss = class_loss(fitting, 0.0, np.array([0, 1, 2]), NAMES)
    assert loss.weights.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"goood": 1, "bad": 1, "fine": 1}, r"class_weights: unknown label 'goood'; did you mean 'good'\?"),
        ({"good": 1, "bad": 1}, r"gives no weight to 1 of 3 labels, first 'fine'"),
    ],
)
def test_weights_that_do_not_fit_the_labels_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        class_loss(FittingConfig(class_weights=weights), 0.0, np.array([0, 1, 2]), NAMES)


def test_logit_adjustment_uses_the_shares_of_the_train_rows():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    loss = class_loss(FittingConfig(logit_adjustment=2.0), 0.0, labels, NAMES)
    assert np.allclose(loss.adjustment.numpy(), 2 * np.log([0.6, 0.3, 0.1]))
    with pytest.raises(DataError, match="no train row has the label 'good'"):
        class_loss(FittingConfig(logit_adjustment=1.0), 0.0, np.array([0, 1]), NAMES)


def test_a_balanced_subset_is_balanced_and_depends_on_ids_and_seed_alone():
    tokens = make_tokens(n=90)
    tokens.labels[:] = np.array([0] * 60 + [1] * 25 + [2] * 5)
    chosen = balanced_subset(tokens, 3)
    assert np.bincount(tokens.labels[chosen]).tolist() == [5, 5, 5]
    order = np.random.default_rng(0).permutation(90)
    moved = tokens.take(order)
    again = balanced_subset(moved, 3)
    assert {moved.row_ids[i] for i in again} == {tokens.row_ids[i] for i in chosen}
    other = balanced_subset(tokens, 4)
    assert {tokens.row_ids[i] for i in other} != {tokens.row_ids[i] for i in chosen}
