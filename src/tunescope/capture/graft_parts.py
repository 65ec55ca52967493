"""The named parts of a model's weights that a graft puts into another model: embeddings, blocks and sublayers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS, Stack

PartKind = Literal["embeddings", "block", "attention", "mlp"]
GraftPlace = Literal["encoder", "decoder", "cross"]
PLACES: tuple[GraftPlace, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True)
class GraftPart:
    """A named part of the weights; written ``embeddings``, ``L3.block``, ``L3.attention`` or ``L3.mlp``.

    In an encoder-decoder the place stands in front: ``encoder.L3.mlp``, ``decoder.L3.attention`` (self-attention) or
    ``cross.L3.attention`` (cross-attention). The embeddings are those of both stacks, which share their tokens' table.
    """

    kind: PartKind
    layer: int | None = None
    place: GraftPlace | None = None

    @property
    def start(self) -> int:
        """The first block whose output changes; -1 for the embeddings."""
        return -1 if self.layer is None else self.layer

    def __str__(self) -> str:
        place = "" if self.place is None else f"{self.place}."
        return self.kind if self.layer is None else f"{place}L{self.layer}.{self.kind}"


def readout_parameters(model: Classifier) -> set[int]:
    """Return the ids of the parameters of final norm and head (BERT's pooler lies in the trunk's module)."""
    found = {id(value) for value in model.head.parameters()}
    pooler = getattr(model.trunk, "pooler", None)
    if isinstance(pooler, nn.Module):
        found |= {id(value) for value in pooler.parameters()}
    if model.family.final_norm is not None:
        found |= {id(v) for v in model.trunk.get_submodule(model.family.final_norm).parameters()}
    return found


def parts_of(model: Classifier, kinds: Iterable[PartKind]) -> list[GraftPart]:
    """List the parts of some kinds, the embeddings first, then block by block; the encoder's before the decoder's."""
    wanted = tuple(kinds)
    found = [GraftPart("embeddings")] if "embeddings" in wanted else []
    inner: list[PartKind] = [kind for kind in wanted if kind != "embeddings"]
    if not model.is_encoder_decoder:
        return found + [GraftPart(kind, layer) for layer in range(model.n_layers) for kind in inner]
    for stack in model.stacks:
        own: tuple[GraftPlace, ...] = ("encoder",) if stack.name == "encoder" else ("decoder", "cross")
        for layer in range(stack.n_layers):
            for kind in inner:
                found += [GraftPart(kind, layer, one) for one in (own if kind == "attention" else own[:1])]
    return found


def names_of(model: Classifier, part: GraftPart) -> list[str]:
    """Return the names of a part's parameters inside the trunk.

    Every parameter of the trunk but those of final norm and head is in the embeddings or in one block; every parameter
    of a block is in its attention, in its cross-attention or in its MLP. A norm belongs to the sublayer that it
    normalises; the norm behind an encoder belongs to that encoder's last block.

    Raises:
        SiteError: The layer is outside the model, or the place belongs to another kind of model.
    """
    stack = _stack_of(model, part)
    if part.layer is not None and not 0 <= part.layer < stack.n_layers:
        raise SiteError(
            f"{part}: layer {part.layer} is outside the model; its layers are 0 to {stack.n_layers - 1}."
        )
    readout = readout_parameters(model)
    every = [name for name, value in model.trunk.named_parameters() if id(value) not in readout]
    if part.layer is None:
        blocks = tuple(path for one in model.stacks for path in _block_paths(model, one))
        return [name for name in every if not name.startswith(blocks)]
    inside = _block_paths(model, stack, part.layer)
    own = [name for name in every if name.startswith(inside)]
    if part.kind == "block":
        return own
    attention, cross = (
        [name for name in own if name.startswith(one)] for one in _attentions(model, stack, part)
    )
    if part.kind == "attention":
        return cross if part.place == "cross" else attention
    return [name for name in own if name not in {*attention, *cross}]


def rows_of(parts: Sequence[GraftPart], model: Classifier) -> dict[str, torch.Tensor | None]:
    """Return the whole tensors of some parts, as :func:`~tunescope.capture.patch_models.grafted` wants them."""
    return {name: None for part in parts for name in names_of(model, part)}


def _stack_of(model: Classifier, part: GraftPart) -> Stack:
    if part.layer is not None and model.is_encoder_decoder != (part.place is not None):
        said = "an encoder and a decoder" if model.is_encoder_decoder else "one stack of blocks"
        raise SiteError(f"{part}: {model.family.name} has {said}; write for example {_example(model)}.")
    return model.stacks[STACKS.index("encoder" if part.place == "encoder" else "decoder")] if part.place else (
        model.stacks[-1]
    )  # fmt: skip


def _example(model: Classifier) -> str:
    return "encoder.L0.mlp or cross.L0.attention" if model.is_encoder_decoder else "L0.mlp"


def _block_paths(model: Classifier, stack: Stack, layer: int | None = None) -> tuple[str, ...]:
    """Return what the names of a stack's parameters begin with: of one block, or of all."""
    blocks = stack.blocks()
    chosen = blocks if layer is None else [blocks[layer]]
    if stack.name == "encoder" and stack.family.final_norm is not None and layer in (None, len(blocks) - 1):
        chosen = [*chosen, stack.family.final_norm]
    return tuple(f"{path}." for path in chosen)


def _attentions(model: Classifier, stack: Stack, part: GraftPart) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the names begin with of self-attention with its norm, and of cross-attention with its norm."""
    family = stack.family
    own = (family.attention, family.norms[0])  # the norm before the attention, or behind its sum
    cross = [family.cross_attention, family.cross_attention_norm]
    attention, other = (
        tuple(f"{path.format(layer=part.layer)}." for path in paths if path) for paths in (own, cross)
    )
    return attention, other
