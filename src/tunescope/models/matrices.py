"""Every weight matrix of a trunk in one orientation, output x input, with the rows and columns of each head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunescope.models.adapted import is_adapted, plain_layer
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import Stack, stacks_of
from tunescope.models.family import ATTENTION_PARTS, Family


@dataclass(frozen=True)
class Matrix:
    """One weight matrix, or the part of a fused one that has a meaning of its own.

    Attributes:
        part: ``query``, ``key``, ``value``, ``attn_projection``, ``mlp_projection``; any other matrix goes by its
            path inside the block (``mlp.c_fc``), and those outside blocks by their path in the trunk (``wte``).
        layer: Its block; None outside blocks.
        stack: ``encoder`` or ``decoder`` of an encoder-decoder; else None.
        weight: [outputs, inputs]; a view where nothing was merged.
        by_row: Whether heads are slices of rows (query, key, value) or of columns (output projection).
        heads: Rows or columns of each head; empty where heads have none of their own.
    """

    part: str
    layer: int | None
    stack: str | None
    weight: torch.Tensor
    by_row: bool = True
    heads: list[torch.Tensor] = field(default_factory=list)

    def of_head(self, head: int) -> torch.Tensor:
        """Return the slice that belongs to one head alone (in grouped-query attention: to one group's key or value)."""
        return self.weight[self.heads[head]] if self.by_row else self.weight[:, self.heads[head]]


def matrices(model: Classifier) -> Iterator[Matrix]:
    """Yield the matrices of embeddings and blocks, in the model's order; vectors (norms, biases) are none of them."""
    blocks: set[str] = set()
    stacks = stacks_of(model.family, model.model.config)
    for stack in stacks:
        blocks.update(f"{path}." for path in stack.blocks())
    for path, module in _weighted(model.trunk):
        if not path.startswith(tuple(blocks)):
            yield Matrix(path, None, None, oriented(module))
    for stack in stacks:
        for layer, block in enumerate(stack.blocks()):
            for path, module in _weighted(model.trunk.get_submodule(block)):
                yield from _of_block(model, stack, layer, path, f"{block}.{path}", module)


def oriented(module: nn.Module) -> torch.Tensor:
    """Return a layer's weight, adapter included, as [outputs, inputs]; an embedding's as [entries, width]."""
    plain = plain_layer(module)
    weight = cast(torch.Tensor, plain.weight).detach()
    return weight.T if isinstance(plain, Conv1D) else weight


def _weighted(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the innermost modules that hold a matrix, peft's layers as the layers that they wrap."""
    inside: tuple[str, ...] = ()
    for path, one in module.named_modules():
        if inside and path.startswith(inside):
            continue
        if is_adapted(one):
            inside = (*inside, f"{path}.")
            yield path, one
        elif isinstance(getattr(one, "weight", None), torch.Tensor) and one.weight.ndim == 2:  # type: ignore[union-attr]
            yield path, one


def _of_block(
    model: Classifier, stack: Stack, layer: int, inner: str, path: str, module: nn.Module
) -> Iterator[Matrix]:
    family, weight = stack.family, oriented(module)
    width = model.head_width
    if family.fuses_attention_inputs and path == family.path("query", layer):
        for part, rows in _fused_rows(family, weight, stack.n_heads):
            heads = list(torch.arange(len(rows)).reshape(stack.n_heads, -1))
            yield Matrix(part, layer, stack.name, weight[rows], heads=heads)
        return
    for part in ATTENTION_PARTS:
        if path == family.path(part, layer):
            yield Matrix(part, layer, stack.name, weight, heads=_slices(weight.shape[0], width))
            return
    if path == family.path("attention_projection", layer):
        heads = _slices(weight.shape[1], width)
        yield Matrix("attn_projection", layer, stack.name, weight, by_row=False, heads=heads)
    elif path == family.path("mlp_projection", layer):
        yield Matrix("mlp_projection", layer, stack.name, weight)
    else:
        yield Matrix(inner, layer, stack.name, weight)


def _fused_rows(family: Family, weight: torch.Tensor, n_heads: int) -> list[tuple[str, torch.Tensor]]:
    """Return the rows of query, key and value in one fused projection, each with its heads in order."""
    rows = torch.arange(weight.shape[0])
    parts = (
        rows.reshape(n_heads, 3, -1).transpose(0, 1) if family.fused_by_head else rows.reshape(3, n_heads, -1)
    )
    return [(part, own.reshape(-1)) for part, own in zip(ATTENTION_PARTS, parts, strict=True)]


def _slices(size: int, width: int) -> list[torch.Tensor]:
    return list(torch.arange(size).split(width))
