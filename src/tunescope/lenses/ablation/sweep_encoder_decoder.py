"""The sweep of an encoder-decoder: every change, one batch of rows of equal length after another.

Each batch is run once and the streams before all blocks are stored. Changes that start in one block ride together, as
copies along the batch axis, in one pass from that block on: changes of the decoder do not run the encoder again. In
that block the attentions before and at the change are not run again either
(:mod:`tunescope.capture.stack_attention`): a head only adds a term to the attention's output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from tunescope.capture.encoder_decoder import StackTrace, run_from_stack, stack_blocks, trace_stacks
from tunescope.capture.hooks import read
from tunescope.capture.sites import Site, locate
from tunescope.capture.stack_attention import Attended, attending, keeping_attentions
from tunescope.data.batches import Batch, collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import EditKind, Part, Variant
from tunescope.lenses.ablation.replacement import Donors, Lent, Replacer, Statistics, stored_site
from tunescope.lenses.ablation.sweep import equal_length_batches
from tunescope.lenses.ablation.sweep_store import SweepStore
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS, StackName
from tunescope.progress import Task

STORED_BYTES = 2**28  # what one batch's stored streams may take
RESAMPLED: tuple[EditKind, ...] = ("resample", "resample_other_class")


@dataclass(frozen=True)
class StackSweep:
    """A sweep of an encoder-decoder that is ready to run; the attributes are those of ``sweep.Sweep``."""

    model: Classifier
    variants: Sequence[Variant]
    statistics: Statistics
    seed: int
    tokens_at_once: int = 1024
    donors: Tokens | None = None
    directions: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def run(
        self, tokens: Tokens, task: Task, kept: SweepStore | None = None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch: row positions [B], clean logits [B, C], logits of every variant [V, B, C].

        Arguments are those of ``sweep.Sweep.run``.

        Raises:
            LensError: A logit is not finite; the row (and the change) are named.
        """
        drawn = self._random()
        starts: dict[tuple[int, int, int], list[int]] = {}
        for index, variant in enumerate(self.variants):
            starts.setdefault(min(_start(part) for part in variant.parts), []).append(index)
        most = max(1, min(self.tokens_at_once, STORED_BYTES // (4 * stream_width(self.model))))
        for batch in equal_length_batches(tokens, most):
            done = None if kept is None else kept.get(batch.index)
            if done is not None:
                task.advance(len(batch.row_ids))
                yield batch.index, *done
                continue
            with torch.inference_mode(), fast_activations(self.model.model):
                with keeping_attentions(self.model) as attended:
                    stored = trace_stacks(self.model, batch.to(self.model.device).inputs())
                _require_finite(stored.logits[None], None, batch.row_ids)
                replacer = self.replacer(tokens, batch)
                out = stored.logits.new_empty(len(self.variants), *stored.logits.shape)
                size = max(1, self.tokens_at_once // stored.attention_mask.numel())
                for start, members in starts.items():
                    for first in range(0, len(members), size):
                        chunk = members[first : first + size]
                        chosen = [self.variants[index] for index in chunk]
                        riding = _Copies(self.model, stored, replacer, chosen, drawn[chunk], attended)
                        out[chunk] = riding.logits(*start)
                    task.advance(len(batch.row_ids) * len(members) / len(self.variants))
                _require_finite(out, self.variants, batch.row_ids)
                clean, changed = stored.logits.cpu(), out.cpu()
            if kept is not None:
                kept.put(batch.index, clean, changed)
            yield batch.index, clean, changed

    def _random(self) -> torch.Tensor:
        """Draw one random unit vector a variant, [V, D]."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.variants), self.model.width, generator=generator)
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(self.model.device)

    def replacer(self, tokens: Tokens, batch: Batch) -> Replacer:
        """Return what computes the changes of a batch of rows of equal length."""
        length = int(batch.input_ids.shape[1])
        made = Replacer(
            self.model, self.statistics, batch.row_ids, length, self.seed, directions=dict(self.directions)
        )
        for edit in dict.fromkeys(variant.edit for variant in self.variants if variant.edit in RESAMPLED):
            if self.donors is None:
                raise LensError("Resampling needs reference rows to resample from; none were given.")
            made.lent[edit] = self._lent(tokens, batch.index, edit, length)
        return made

    def _lent(self, tokens: Tokens, index: np.ndarray, edit: EditKind, length: int) -> Lent:
        """Run the rows that lend their values to some rows of equal length."""
        assert self.donors is not None
        chooser = Donors(self.donors, self.seed)
        chosen = [chooser.choose(tokens, int(i), edit == "resample_other_class") for i in index]
        parts = [part for variant in self.variants if variant.edit == edit for part in variant.parts]
        sites = list(dict.fromkeys(stored_site(part) for part in parts))
        passes = {}
        for row in dict.fromkeys(chosen):
            inputs = collate(self.donors, np.array([row])).to(self.model.device).inputs()
            passes[row] = _Lender(read(self.model, sites, inputs), inputs["input_ids"])
        # The pooled token is the last: donors are aligned from the end.
        found = [passes[row] for row in chosen]
        return Lent(cast(Any, found), length, self.model.pooling == "last")


@dataclass(frozen=True)
class _Lender:
    """One row's values at some sites, in the form that :class:`Lent` reads."""

    values: dict[Site, torch.Tensor]
    logits: torch.Tensor  # says the device alone

    @property
    def length(self) -> int:
        return int(self.logits.shape[1])

    def at(self, site: Site) -> torch.Tensor:
        return self.values[site]


def stream_width(model: Classifier) -> int:
    """Return how many numbers a clean pass stores per token: streams before blocks, and what attentions gave."""
    heads = [stack.n_heads * stack.head_width for stack in model.stacks]
    encoder, decoder = (stack.n_layers for stack in model.stacks)
    return encoder * (2 * model.width + heads[0]) + decoder * (3 * model.width + 2 * heads[1])


# How far a block has been run when the change of a site is made: before its attentions, at the first, at the second.
_BEFORE, _ATTENTION, _CROSS, _AFTER = range(4)
_RANKS = {
    "embeddings": _BEFORE, "head_out": _ATTENTION, "attn_out": _ATTENTION, "cross_head_out": _CROSS,
    "cross_attn_out": _CROSS,
}  # fmt: skip


def _start(part: Part) -> tuple[int, int, int]:
    """Return where a part lies in the order of running: the stack, the block, and the place in it."""
    stack = cast(StackName, part.site.stack)
    return STACKS.index(stack), part.site.layer or 0, _RANKS.get(part.site.name, _AFTER)


def _require_finite(logits: torch.Tensor, variants: Sequence[Variant] | None, row_ids: Sequence[str]) -> None:
    bad = (~torch.isfinite(logits)).any(-1)
    if bool(bad.any()):
        variant, row = (int(number) for number in bad.nonzero()[0])
        if variants is None:
            raise LensError(f"The model gives logits that are not finite for row {row_ids[row]}.")
        one = variants[variant]
        raise LensError(
            f"Row {row_ids[row]}: with {one.name} changed ({one.edit}) the logits are not finite."
        )


@dataclass
class _Copies:
    """Variants that start in one block, as copies along the batch axis: copy v of row b is at v * B + b."""

    model: Classifier
    stored: StackTrace
    replacer: Replacer
    chosen: Sequence[Variant]
    random: torch.Tensor
    attended: dict[Site, Attended]

    def logits(self, order: int, layer: int, rank: int) -> torch.Tensor:
        """Return the logits of every variant, [V, B, C], running from a place in a block on."""
        stack = STACKS[order]
        names = [("attn_out", _ATTENTION), *([("cross_attn_out", _CROSS)] if stack == "decoder" else [])]
        spared = [Site(name, layer, stack) for name, own in names if rank >= own]
        self.places = torch.arange(self.stored.attention_mask.shape[1], device=self.stored.logits.device)
        places = {
            (cast(StackName, part.site.stack), part.site.layer, _PLACE[part.site.name])
            for one in self.chosen for part in one.parts
        }  # fmt: skip
        with contextlib.ExitStack() as hooks:
            for site in spared:
                hooks.enter_context(self._attending(site))
            for name, at, place in sorted(places, key=str):
                if at is None or Site(place, at, name) not in spared:
                    hooks.callback(self._hook(name, at, place).remove)
            found = run_from_stack(self.model, self.stored, stack, layer, len(self.chosen))
        return found.unflatten(0, (len(self.chosen), -1))

    def _attending(self, site: Site) -> contextlib.AbstractContextManager[None]:
        """Spare an attention whose inputs have not changed: its stored output is changed instead."""
        heads = Site(_INNER[site.name], site.layer, site.stack)

        def change(output: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            return self._changed({site: output, heads: values}, output)

        return attending(self.model, self.attended[site], site, len(self.chosen), change)

    def _hook(self, stack: StackName, layer: int | None, place: str) -> Any:
        """Register the changes of all copies at one module."""
        if place == "embeddings":
            site = Site("embeddings", stack=stack)

            def before(_m: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
                return (self._changed({site: given[0]}, given[0]), *given[1:])

            return stack_blocks(self.model, stack)[0].register_forward_pre_hook(before)
        assert layer is not None
        site = Site(place, layer, stack)
        module = locate(self.model, site).module
        inner = _INNER.get(place)

        def after(_m: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
            value = output if isinstance(output, torch.Tensor) else output[0]
            values = {site: value}
            if inner is not None:
                within = Site(inner, layer, stack)
                heads = self._heads(stack) if inner != "mlp_neurons" else 0
                values[within] = given[0].unflatten(-1, (heads, -1)) if heads else given[0]
            changed = self._changed(values, value)
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return module.register_forward_hook(after)

    def _heads(self, stack: StackName) -> int:
        return self.model.stacks[STACKS.index(stack)].n_heads

    def _changed(self, values: dict[Site, torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        """Return an output [V * B, T, D] with the variants' changes at these sites, read from ``values``."""
        count = len(self.chosen)
        split = {site: value.unflatten(0, (count, -1)) for site, value in values.items()}
        out = output.clone().unflatten(0, (count, -1))
        for index, variant in enumerate(self.chosen):
            for part in variant.parts:
                if part.site in split:
                    out[index] += self._delta(index, part, split[part.site][index])
        return out.flatten(0, 1)

    def _delta(self, index: int, part: Part, current: torch.Tensor) -> torch.Tensor:
        """Return what a variant adds at a part, [B, T, D]; nothing for a no-op, a random direction for a control."""
        return self.replacer.added(self.chosen[index], part, current, self.places, self.random[index])


# What a sublayer's output is made of, as it is changed.
_INNER = {"attn_out": "head_out", "cross_attn_out": "cross_head_out", "mlp_out": "mlp_neurons"}

# At which module's output the change of a site is made.
_PLACE = {
    "embeddings": "embeddings", "head_out": "attn_out", "attn_out": "attn_out", "cross_head_out": "cross_attn_out",
    "cross_attn_out": "cross_attn_out", "mlp_neurons": "mlp_out", "mlp_out": "mlp_out", "resid_post": "resid_post",
}  # fmt: skip
