"""Deliberate sabotage: bugs of the five studies, and of houses like ours, are put into the code; the doctor sees each.

Every case patches the real code, runs the check that must miss and one that should not mind.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from tunescope.capture import edits, hooks
from tunescope.data.tokens import Tokens
from tunescope.doctor import numbers
from tunescope.doctor.examine import examine
from tunescope.lenses.ablation.components import projection_bias
from tunescope.lenses.ablation.replacement import Replacer
from tunescope.lenses.attention.lens import AttentionLens
from tunescope.models import classifier as classifiers
from tunescope.models.classifier import Classifier
from tunescope.stats import blocks, intervals, kernels
from tunescope.tuning import lora

# Their packages call functions by the same names.
PREDICT, LOOK = (
    importlib.import_module(f"tunescope.{name}") for name in ("evaluation.predict", "lenses.look")
)
pytestmark = pytest.mark.usefixtures("without_grids")


def wrong_parameter_name(monkeypatch):
    """Study 000: the mask looks up a name that only the bias has, so the weights are never touched."""
    real, real_change = Replacer.delta, Replacer.head_change

    def head_change(self, *args, **options):
        return 0.0 * real_change(self, *args, **options)

    def delta(self, variant, part, current, places):
        if part.site.name == "head_out":
            return -projection_bias(self.model, part.layer).detach().expand(*current.shape[:2], -1)
        return real(self, variant, part, current, places)

    monkeypatch.setattr(Replacer, "delta", delta)
    monkeypatch.setattr(Replacer, "head_change", head_change)


def every_column_holds_the_first_class(monkeypatch):
    """Study 000: P(sadness) was appended six times."""
    real = PREDICT.probabilities_of

    def probabilities_of(logits):
        return np.repeat(real(logits)[:, :1], logits.shape[1], axis=1)

    monkeypatch.setattr(PREDICT, "probabilities_of", probabilities_of)


def pooling_on_padding(monkeypatch):
    """Study 001: the last position of the batch is pooled, not the last token of the row."""
    real = classifiers.pool

    def pool(hidden, attention_mask, pooling):
        return hidden[:, -1] if pooling == "last" else real(hidden, attention_mask, pooling)

    monkeypatch.setattr(classifiers, "pool", pool)


def biased_cka(monkeypatch):
    """Study 001: HSIC_0, kernels centred with their diagonals, in place of HSIC_1."""

    def centred(matrix):
        matrix -= matrix.mean(axis=0)
        matrix -= matrix.mean(axis=1)[:, None]
        return matrix

    monkeypatch.setattr(blocks, "u_center", centred)
    monkeypatch.setattr(kernels, "u_center", centred)


def lora_on_a_fresh_layer(monkeypatch):
    """Study 002: the projection was replaced after the pretrained weights had been copied."""
    real = lora.inject

    def inject(classifier, config, found, train_head_bias):
        with torch.no_grad():
            for name in found.targets:
                classifier.trunk.get_submodule(name).weight.normal_(0, 0.02)
        real(classifier, config, found, train_head_bias)

    monkeypatch.setattr(lora, "inject", inject)


def scrambled_reshape(monkeypatch):
    """Study 004: numbers of shape (text, layer, head) are read in another order of axes."""
    real = AttentionLens.table

    def table(self):
        for key, values in self.values.items():
            if np.isfinite(values).all():  # no text was too short for it
                self.values[key] = values.transpose(2, 1, 0).reshape(values.shape)
        return real(self)

    monkeypatch.setattr(AttentionLens, "table", table)


def base_and_tuned_swapped(monkeypatch):
    def swap(subject):
        subject.base, subject.tuned = subject.tuned, subject.base

    monkeypatch.setattr(LOOK, "require_same_tokens", swap)


def intervals_of_half_width(monkeypatch):
    real = intervals._quantiles

    def quantiles(draws, tails):
        low, high = real(draws, tails)
        center = (low + high) / 2
        return np.stack([(low + center) / 2, (high + center) / 2])

    monkeypatch.setattr(intervals, "_quantiles", quantiles)


def layers_off_by_one(monkeypatch):
    real = hooks.locate

    def locate(classifier, site):
        return real(classifier, replace(site, layer=max(site.layer - 1, 0)) if site.layer else site)

    monkeypatch.setattr(hooks, "locate", locate)


def edits_that_change_nothing(monkeypatch):
    monkeypatch.setattr(edits, "_changed", lambda activation, edit, heads: activation)


def shuffled_labels(monkeypatch):
    real = Tokens.take

    def take(self, index):
        taken = real(self, index)
        return replace(taken, labels=np.random.default_rng(0).permutation(taken.labels))

    monkeypatch.setattr(Tokens, "take", take)


def dropout_left_on(monkeypatch):
    monkeypatch.setattr(Classifier, "train", lambda self, mode=True: torch.nn.Module.train(self, True))


def p_values_of_one_side(monkeypatch):
    real = numbers.mcnemar_exact
    monkeypatch.setattr(numbers, "mcnemar_exact", lambda one, other: real(one, other) / 2)


CASES = [
    (
        wrong_parameter_name,
        "decisive-head",
        "logit-lens",
        "zero ablation of L1H2: distance from its closed form",
    ),
    (every_column_holds_the_first_class, "predictions", "logit-lens", "P(good) minus transformers' softmax"),
    (pooling_on_padding, "pooling", "metrics", "padded on the right"),
    (biased_cka, "independent-gaussians", "metrics", "mean CKA streamed in blocks of 64"),
    (lora_on_a_fresh_layer, "lora", "logit-lens", "logits with a fresh adapter minus the pretrained model's"),
    (scrambled_reshape, "head-swap", "logit-lens", "the two heads whose attention changed most"),
    (base_and_tuned_swapped, "patching-cross", "decisive-head", "gain in margin from base to tuned"),
    (base_and_tuned_swapped, "probes", "logit-lens", "base: layers behind which the first word is read"),
    (intervals_of_half_width, "intervals", "metrics", "coverage of 95 % intervals: bootstrap of a mean"),
    (layers_off_by_one, "families", "metrics", "the check itself"),
    (edits_that_change_nothing, "families", "logit-lens", "the check itself"),
    (shuffled_labels, "decisive-head", "metrics", "zero ablation of L1H2: distance from its closed form"),
    (dropout_left_on, "predictions", "metrics", "predicted twice, in training mode"),
    (p_values_of_one_side, "significance", "metrics", "McNemar's p of 3 against 11"),
]


@pytest.mark.parametrize(
    ("sabotage", "catches", "minds_not", "line"),
    CASES,
    ids=[f"{case[0].__name__}-{case[1]}" for case in CASES],
)
def test_the_doctor_catches(sabotage, catches, minds_not, line, monkeypatch):
    monkeypatch.setattr(numbers, "TRIALS", 300)
    sabotage(monkeypatch)
    found = examine([catches, minds_not])
    assert found.missed == [catches]
    missed = [one.what for one in found.outcomes[0].lines if one.met is False]
    assert any(line in what for what in missed), missed


@pytest.mark.slow
def test_without_sabotage_every_check_is_met():
    found = examine()
    assert found.passed, [
        (one.name, line) for one in found.outcomes for line in one.lines if line.met is False
    ]
    assert found.whole
