"""A base's fitted linear head as a file of a few kilobytes, so that a probe is fitted once and not for every look."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from tunescope.files import atomic_path
from tunescope.models.classifier import Classifier
from tunescope.models.heads import LinearHead

HEAD = "base_head.safetensors"


def write_head(base: Classifier, path: Path) -> None:
    """Write the linear head of a base, and what its record says of it, whole or not at all."""
    assert isinstance(base.head, LinearHead)
    linear = base.head.linear
    tensors = {name: getattr(linear, name).detach().cpu().contiguous() for name in ("weight", "bias")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"record": json.dumps(base.record.get("head", ""))})


def put_head(base: Classifier, path: Path) -> bool:
    """Give a base the head that was written to a file; False where there is none, or it is damaged or does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
            record = json.loads(file.metadata()["record"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return False
    if tuple(weight.shape) != (len(base.labels.names), base.width) or len(bias) != len(weight):
        return False
    linear = nn.Linear(weight.shape[1], weight.shape[0]).requires_grad_(False)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    base.head = LinearHead(linear).to(base.device).eval()
    base.record = {**base.record, "head": record}
    return True
