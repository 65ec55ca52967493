"""The logit margin, on which all effects are measured first."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from tunescope.stats.arrays import as_floats, as_integers


def margin(logits: Any, labels: Any) -> Any:
    """Return the logit margin of the true class, `z_y - logsumexp_{c != y} z_c`, per row.

    It is the log odds of the true class, and unlike its probability it does not saturate. With two classes it
    is the difference of the two logits. Positive means more probable than all others together.

    Args:
        logits: `[..., C]`, torch or numpy; half precision is computed in float32.
        labels: `[...]` class indices.

    Returns:
        `[...]`, of the kind that the logits are; gradients flow through a torch tensor.

    Raises:
        ValueError: Fewer than 2 classes.
        IndexError: A label outside 0 to C - 1.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"a margin needs at least 2 classes, found {logits.shape[-1]}")
    if hasattr(logits, "detach"):
        return _margin_torch(logits, labels)
    scores = as_floats(logits)
    index = as_integers(labels)
    _require_index(int(index.min(initial=0)), int(index.max(initial=0)), scores.shape[-1])
    others = scores.copy()
    np.put_along_axis(others, index[..., None], -np.inf, axis=-1)
    return np.take_along_axis(scores, index[..., None], axis=-1)[..., 0] - special.logsumexp(others, axis=-1)


def _margin_torch(logits: Any, labels: Any) -> Any:
    import torch

    scores = logits.float() if logits.element_size() < 4 else logits
    index = torch.as_tensor(labels, device=scores.device).long()
    if index.numel():
        _require_index(int(index.min()), int(index.max()), scores.shape[-1])
    true_class = torch.nn.functional.one_hot(index, scores.shape[-1]).bool()
    own = scores.gather(-1, index[..., None])[..., 0]
    return own - torch.logsumexp(scores.masked_fill(true_class, float("-inf")), dim=-1)


def _require_index(low: int, high: int, classes: int) -> None:
    if low < 0 or high >= classes:
        raise IndexError(f"expected labels from 0 to {classes - 1}, found {low if low < 0 else high}")
