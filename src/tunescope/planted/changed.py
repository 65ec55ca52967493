"""A base and a tuned model that differ in one attention head: what tuning changed is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunescope.planted.decisive import (
    N_HEADS,
    WIDTH,
    HeadFamily,
    PlantedHead,
    planted_head_model,
)


def changed_head_models(family: HeadFamily, layer: int, head: int, folder: Path) -> PlantedHead:
    """Save ``folder/base`` and ``folder/tuned``, which differ in the weights of head ``head`` of layer ``layer`` alone.

    The tuned model is :func:`planted_head_model`; in the base that head has random queries, keys and values, and writes
    nothing. Grafting this head into the base therefore gives the tuned model, and no other part changes anything.

    Args:
        family: ``gpt2`` or ``bert``.
        layer: The changed head's layer.
        head: Its number.
        folder: Where both folders go.

    Returns:
        The truth of the tuned model.

    Raises:
        ConfigError: No such family, layer or head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from tunescope.models.source import quiet_transformers

    truth = planted_head_model(family, layer, head, folder / "tuned")
    planted_head_model(family, layer, head, folder / "base")
    with quiet_transformers(), torch.no_grad():
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder / "base")
        width = WIDTH // N_HEADS
        own = slice(head * width, (head + 1) * width)
        generator = torch.Generator().manual_seed(1)
        for part in range(3):
            drawn = torch.randn(width, WIDTH, generator=generator) * 0.3
            if family == "gpt2":
                fused = model.transformer.h[layer].attn.c_attn
                fused.weight[:, part * WIDTH + own.start : part * WIDTH + own.stop] = drawn.T
                fused.bias[part * WIDTH + own.start : part * WIDTH + own.stop] = 0
            else:
                inner = model.bert.encoder.layer[layer].attention.self
                projection = (inner.query, inner.key, inner.value)[part]
                projection.weight[own] = drawn
                projection.bias[own] = 0
        if family == "gpt2":
            model.transformer.h[layer].attn.c_proj.weight[own] = 0
        else:
            model.bert.encoder.layer[layer].attention.output.dense.weight[:, own] = 0
        model.save_pretrained(folder / "base")
    return truth
