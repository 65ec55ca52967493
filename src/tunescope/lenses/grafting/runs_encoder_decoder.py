"""Grafts between two encoder-decoders: weights of either stack, of cross-attention, and single heads of all three.

A graft of a block behind the first of its stack starts there; everything else is a full pass, because T5's first
blocks make the table of positions for all blocks of their stack, and the stacks share their embeddings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from tunescope.capture.encoder_decoder import run_from_stack, stack_blocks
from tunescope.capture.graft_parts import GraftPart
from tunescope.capture.patch import PatchPlace
from tunescope.capture.patch_models import grafted, random_like, tuned_readout
from tunescope.capture.patch_stacks import StackPass, StackPatcher, store_stacks
from tunescope.capture.sites import Site, head_weights, locate, stack_of
from tunescope.lenses.ablation.sweep import equal_length_batches, require_finite_pass
from tunescope.lenses.grafting.runs import TOKENS_STORED, Grafts, Run, Stored
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import StackName

SHARED = "relative_attention_bias"  # T5's table of positions is of all blocks, and so of no head


@dataclass
class StackGrafts(Grafts):
    """:class:`Grafts` of encoder-decoders; runs of blocks, sublayers and heads name their ``place``."""

    def _batches(self, random: bool = False) -> Iterator[Stored]:
        with torch.inference_mode(), tuned_readout(self.base, self.tuned), contextlib.ExitStack() as stack:
            for model in (self.base, self.tuned):
                stack.enter_context(fast_activations(model.model))
            for batch in equal_length_batches(self.tokens, TOKENS_STORED):
                inputs = batch.to(self.base.device).inputs()
                passes = [store_stacks(model, inputs) for model in (self.base, self.tuned)]
                for one in passes:
                    require_finite_pass(one, one.logits, batch.row_ids)
                yield Stored(batch, inputs, passes[0], passes[1])

    def _depths(self, stored: Stored, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Graft up to a depth or from one on, by the weights."""
        for index, one in enumerate(runs):
            if one.scope in ("up_to_here", "from_here"):
                out[index] = self._grafted(stored, one)

    def _run_grafted(self, stored: Stored, one: Run, model: Classifier, clean: Any) -> torch.Tensor:
        parts = self.parts_in(one)
        start = min((part.layer or 0 for part in parts), default=0)
        places = {part.place for part in parts}
        if one.scope == "one" and start > 0 and None not in places:
            stack: StackName = "encoder" if places == {"encoder"} else "decoder"
            return run_from_stack(model, clean.trace, stack, start)
        logits: torch.Tensor = model(**stored.inputs)
        return logits

    def _heads(self, stored: Stored, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Graft single heads: patches of their outputs, all heads of an attention from one pass of its block."""
        groups: dict[tuple[str, str, GraftPart], list[int]] = {}
        for index, one in enumerate(runs):
            if one.kind == "head":
                groups.setdefault((one.direction, one.control, one.part), []).append(index)
        for (direction, control, part), members in groups.items():
            model, other, clean = self._sides(stored, direction)
            site = head_site(part)
            names = [name for name in self.names_of_heads(part) if name in self.moved]
            if not names:
                out[members] = clean.logits
                continue
            donor = "tuned" if model is self.base else "base"
            seed = self.seed if control == "random" else None
            with grafted(model, self.states[donor], dict.fromkeys(names), seed):
                heads = block_heads(model, clean, site)
            weights = head_weights(model, site.layer or 0, site.stack, part.place == "cross")
            theirs = head_weights(other, site.layer or 0, site.stack, part.place == "cross")
            if control == "random":
                theirs = weights + random_like(theirs - weights, self.seed, f"heads of {part}")
            elif control == "no_op":
                heads, theirs = clean.at(inner(site)), weights
            lent = StackPass(clean.trace, {**clean.values, inner(site): heads})
            places = [PatchPlace(site, (int(runs[index].head or 0),)) for index in members]
            patcher = StackPatcher(model, clean, lent, {site: theirs})
            out[members] = patcher.logits(places)

    def names_of_heads(self, part: GraftPart) -> list[str]:
        """Return the names of the weights with which an attention's heads read and write; biases of reading too."""
        stack = stack_of(self.base, head_site(part))
        path = stack.family.cross_attention if part.place == "cross" else stack.family.attention
        assert path is not None
        inside = f"{path.format(layer=part.layer)}."
        return [
            name
            for name, _ in self.base.trunk.named_parameters()
            if name.startswith(inside) and SHARED not in name
        ]


def head_site(part: GraftPart) -> Site:
    """Return the site of an attention's heads."""
    cross = part.place == "cross"
    stack = "decoder" if cross else part.place
    return Site("cross_head_out" if cross else "head_out", part.layer, cast(StackName, stack))


def inner(site: Site) -> Site:
    """Return the site of the heads' values before the output projection."""
    return Site(site.name.replace("head_out", "head_z"), site.layer, site.stack)


def block_heads(model: Classifier, stored: StackPass, site: Site) -> torch.Tensor:
    """Run one block on its stored stream, and return its heads' values before the output projection, [B, T, H, D/H].

    Args:
        model: The model, with the weights that are asked about in place.
        stored: A pass of the rows.
        site: The heads.
    """
    stack, layer = cast(StackName, site.stack), site.layer or 0
    place = locate(model, inner(site))
    found: list[torch.Tensor] = []

    def keep(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        found.append(given[0].unflatten(-1, (place.heads, -1)))

    handle = place.module.register_forward_pre_hook(keep)
    try:
        arguments, named = stored.trace.calls[stack][layer]
        stack_blocks(model, stack)[layer](stored.trace.resid_pre[stack][layer], *arguments, **named)
    finally:
        handle.remove()
    return found[0]
