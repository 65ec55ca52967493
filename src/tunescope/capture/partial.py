"""Running a model from block *k* on, from a stored residual stream: the exact shortcut under every sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier, right_padded


@dataclass
class Trace:
    """One clean forward pass of a batch, stored so that any block can be the start of another.

    Attributes:
        resid_pre: The residual stream before each block, L tensors [B, T, D].
        calls: What each block was called with beside the stream (mask, positions).
        logits: Clean logits, [B, C].
        attention_mask: Right-padded mask, [B, T].
    """

    resid_pre: list[torch.Tensor]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    logits: torch.Tensor
    attention_mask: torch.Tensor


def blocks_of(classifier: Classifier) -> list[nn.Module]:
    """Return the transformer blocks in order."""
    family, trunk = classifier.family, classifier.trunk
    return [trunk.get_submodule(family.path("block", layer)) for layer in range(classifier.n_layers)]


def trace(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> Trace:
    """Run a batch once without gradients and keep what :func:`run_from` needs.

    Raises:
        SiteError: A block was not called exactly once.
    """
    resid: list[torch.Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        resid.append(arguments[0])
        calls.append((arguments[1:], dict(named)))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks_of(classifier)]
    try:
        with torch.no_grad():
            logits = classifier(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if len(resid) != classifier.n_layers:
        raise SiteError(f"{len(resid)} block calls were seen in a model of {classifier.n_layers} blocks.")
    mask = right_padded(inputs["input_ids"], inputs["attention_mask"])[1]
    return Trace(resid, calls, logits, mask)


def run_from(classifier: Classifier, stored: Trace, layer: int, copies: int = 1) -> torch.Tensor:
    """Run blocks ``layer`` to the last on ``copies`` copies of the stored batch, then norm, pooling and head.

    Hooks and edits on the blocks act as in a full pass; copies lie one after another along the batch axis, so an
    edit can treat each differently. Identical to a full forward pass up to rounding.

    Returns:
        Logits, [copies x B, C].
    """
    hidden = copied(stored.resid_pre[layer], copies, len(stored.attention_mask))
    rows = len(stored.attention_mask)
    with torch.no_grad():
        for index, block in enumerate(blocks_of(classifier)[layer:], start=layer):
            arguments, named = stored.calls[index]
            output = block(
                hidden,
                *(copied(value, copies, rows) for value in arguments),
                **{key: copied(value, copies, rows) for key, value in named.items()},
            )
            hidden = output if isinstance(output, torch.Tensor) else output[0]
        if classifier.family.final_norm is not None:
            hidden = classifier.trunk.get_submodule(classifier.family.final_norm)(hidden)
        mask = copied(stored.attention_mask, copies, rows)
        return classifier.head(classifier.pool(hidden, mask))


def copied(value: Any, copies: int, rows: int) -> Any:
    """Repeat a per-row tensor, or each of a tuple, along the batch axis; all else passes through."""
    if isinstance(value, tuple):
        return tuple(copied(one, copies, rows) for one in value)
    if copies == 1 or not isinstance(value, torch.Tensor) or value.dim() < 2 or value.shape[0] != rows:
        return value
    return value.repeat(copies, *(1 for _ in value.shape[1:]))
