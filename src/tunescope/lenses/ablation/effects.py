"""Effects per example: what a change of the model does to each row's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from tunescope.evaluation.metrics import margin
from tunescope.lenses.ablation.components import Variant

Metric = Literal[
    "margin_change", "probability_change", "predicted_margin_change", "kl", "flip", "class_probability_change"
]
UNSIGNED = ("kl", "flip")  # never negative, so that flipping signs tests nothing


@dataclass(frozen=True)
class Effects:
    """What a sweep of one model gave, per example: N rows, V variants, C classes.

    Attributes:
        variants: The V changes.
        margin_change: Of the true class, in logits, [N, V]; negative where the true class loses.
        probability_change: Of the true class, [N, V].
        predicted_margin_change: Of the class that the unchanged model predicts, in logits, [N, V].
        kl: Kullback-Leibler divergence from the unchanged to the changed distribution, in nats, [N, V].
        flip: 1 where the predicted class is another, else 0, [N, V].
        class_probability_change: Of every class, [N, V, C].
        predicted: The class that the unchanged model predicts, [N].
    """

    variants: list[Variant]
    margin_change: np.ndarray
    probability_change: np.ndarray
    predicted_margin_change: np.ndarray
    kl: np.ndarray
    flip: np.ndarray
    class_probability_change: np.ndarray
    predicted: np.ndarray

    def minus(self, other: Effects) -> Effects:
        """Return the paired difference from the effects of the same changes on another model."""
        return replace(self, **{
            name: getattr(self, name) - getattr(other, name) for name in ARRAYS
        })  # fmt: skip

    def columns(self, wanted: Sequence[int]) -> Effects:
        """Return the effects of some variants."""
        chosen = [self.variants[index] for index in wanted]
        return replace(
            self, variants=chosen, **{name: getattr(self, name)[:, list(wanted)] for name in ARRAYS}
        )


ARRAYS = (
    "margin_change", "probability_change", "predicted_margin_change", "kl", "flip", "class_probability_change",
)  # fmt: skip


def empty_effects(variants: Sequence[Variant], rows: int, classes: int) -> Effects:
    """Return effects to be filled batch by batch."""
    shape = (rows, len(variants))
    arrays: dict[str, Any] = {name: np.empty(shape) for name in ARRAYS[:-1]}
    every = np.empty((*shape, classes), dtype=np.float32)
    return Effects(
        list(variants), **arrays, class_probability_change=every, predicted=np.empty(rows, dtype=np.int64)
    )


def fill(
    effects: Effects, index: np.ndarray, clean: torch.Tensor, changed: torch.Tensor, labels: np.ndarray
) -> None:
    """Write the effects of one batch.

    Args:
        effects: Filled in place.
        index: The rows' positions, [B].
        clean: Logits of the unchanged model, [B, C].
        changed: Logits of every variant, [V, B, C].
        labels: True classes, [B].
    """
    before, after = clean.double(), changed.double()
    true, predicted = torch.as_tensor(labels), before.argmax(-1)
    count = len(after)
    effects.predicted[index] = predicted.numpy()
    for name, classes in (("margin_change", true), ("predicted_margin_change", predicted)):
        new = torch.as_tensor(margin(after.flatten(0, 1), classes.repeat(count))).unflatten(0, (count, -1))
        getattr(effects, name)[index] = (new - torch.as_tensor(margin(before, classes))).T.numpy()
    log_before, log_after = torch.log_softmax(before, -1), torch.log_softmax(after, -1)
    change = log_after.exp() - log_before.exp()  # [V, B, C]
    effects.class_probability_change[index] = change.transpose(0, 1).float().numpy()
    own = change.gather(-1, true.expand(count, -1).unsqueeze(-1)).squeeze(-1)
    effects.probability_change[index] = own.T.numpy()
    # Below 0 only by rounding.
    kl = (log_before.exp() * (log_before - log_after)).sum(-1).clamp(min=0)
    effects.kl[index] = kl.T.numpy()
    effects.flip[index] = (after.argmax(-1) != predicted).T.double().numpy()
