"""What the last linear layer of a classifier reads, row by row, and that layer as a plain matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tunescope.capture.shared import going_on_from, keeping, shared_depth, starting_from
from tunescope.capture.sites import Site
from tunescope.data.batches import Batch
from tunescope.data.packed import PackedBatch
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.models.classifier import Classifier
from tunescope.models.heads import ReorderedHead, SigmoidHead
from tunescope.models.packed import model_batches
from tunescope.models.store import ActivationStore
from tunescope.progress import SILENT, Progress
from tunescope.stats.dimension_curves import Linear

TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeadInput:
    """Rows as the last linear layer sees them.

    Attributes:
        values: `[N, D]` float64: pooled states after whatever nonlinear part the head has (BERT's pooler).
        logits: `[N, C]`, the model's own.
        head: The layer; ``head.logits(values)`` equals ``logits``.
    """

    values: np.ndarray
    logits: np.ndarray
    head: Linear


def read_head_input(classifier: Classifier, tokens: Tokens, progress: Progress = SILENT) -> HeadInput:
    """Run every row once and keep what goes into the last linear layer of the head.

    Raises:
        LensError: The head does not end in a linear layer, or rows are cut into several windows.
    """
    return read_head_inputs([classifier], tokens, progress)[0]


def read_head_inputs(
    models: Sequence[Classifier],
    tokens: Tokens,
    progress: Progress = SILENT,
    store: ActivationStore | None = None,
) -> list[HeadInput]:
    """Do what :func:`read_head_input` does for a model, or for a base and what was tuned from it.

    Blocks that tuning left alone are run once, or start from what the store holds; see
    :mod:`tunescope.capture.shared`.

    Raises:
        LensError: A head does not end in a linear layer, or rows are cut into several windows.
    """
    readers = [_HeadReader(model, len(tokens)) for model in models]
    depth = shared_depth(models[0], models[1]) if len(models) == 2 else 0
    count = len(tokens) * len(models)
    start = starting_from(store, models[0], tokens, [Site("pooled")], depth or None)
    with torch.inference_mode(), progress.task("reading the head's input", count, "rows") as task:
        for batch in model_batches(models[0], tokens):
            with contextlib.ExitStack() as stack:
                kept = stack.enter_context(keeping(models[0], depth)) if depth else []
                with start(batch):
                    readers[0].read(batch)
                if kept:
                    stack.enter_context(going_on_from(models[1], depth, kept[-1]))
                for reader in readers[1:]:
                    reader.read(batch)
            task.advance(len(batch) * len(models))
    return [reader.found() for reader in readers]


class _HeadReader:
    """Collects one model's inputs of the last linear layer, batch by batch."""

    def __init__(self, classifier: Classifier, rows: int) -> None:
        self.classifier = classifier
        self.layer, self.head = _last_linear(classifier)
        self.values = np.empty((rows, self.layer.in_features))
        self.logits = np.empty((rows, len(classifier.labels)))

    def read(self, batch: Batch | PackedBatch) -> None:
        given = batch.to(self.classifier.device).inputs()
        if "row_of" in given:
            raise LensError("Rows of several windows have no one vector at the head's input.")
        caught: list[torch.Tensor] = []
        handle = self.layer.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
        try:
            self.logits[batch.index] = self.classifier(**given).double().cpu().numpy()
        finally:
            handle.remove()
        found = caught[-1].reshape(len(batch), -1, self.layer.in_features)[:, 0]
        self.values[batch.index] = found.double().cpu().numpy()

    def found(self) -> HeadInput:
        gap = float(np.abs(self.head.logits(self.values) - self.logits).max()) if len(self.values) else 0.0
        if gap > TOLERANCE * max(1.0, float(np.abs(self.logits).max(initial=0.0))):
            raise LensError(
                f"The head is not linear in what its last layer reads: logits differ by {gap:.2g}."
            )
        return HeadInput(self.values, self.logits, self.head)


def _last_linear(classifier: Classifier) -> tuple[nn.Linear, Linear]:
    layers = [module for module in classifier.head.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise LensError("The classifier's head has no linear layer.")
    layer = layers[-1]
    weight = layer.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
    for module in classifier.head.modules():
        if isinstance(module, SigmoidHead):
            weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    if isinstance(classifier.head, ReorderedHead):
        order = classifier.head.order.cpu().numpy()
        weight, bias = weight[order], bias[order]
    return layer, Linear(weight, bias)
