"""What the last linear layer of a classifier reads, row by row, and that layer as a plain matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.models.classifier import Classifier
from tunescope.models.heads import ReorderedHead, SigmoidHead
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
    layer, head = _last_linear(classifier)
    values = np.empty((len(tokens), layer.in_features))
    logits = np.empty((len(tokens), len(classifier.labels)))
    caught: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0]))
    try:
        with torch.inference_mode(), progress.task("reading the head's input", len(tokens), "rows") as task:
            for batch in batches(tokens):
                caught.clear()
                given = batch.to(classifier.device).inputs()
                if "row_of" in given:
                    raise LensError("Rows of several windows have no one vector at the head's input.")
                logits[batch.index] = classifier(**given).double().cpu().numpy()
                found = caught[-1].reshape(len(batch), -1, layer.in_features)[:, 0]
                values[batch.index] = found.double().cpu().numpy()
                task.advance(len(batch))
    finally:
        handle.remove()
    gap = float(np.abs(head.logits(values) - logits).max()) if len(tokens) else 0.0
    if gap > TOLERANCE * max(1.0, float(np.abs(logits).max(initial=0.0))):
        raise LensError(f"The head is not linear in what its last layer reads: logits differ by {gap:.2g}.")
    return HeadInput(values, logits, head)


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
