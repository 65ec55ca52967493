"""The sweep of an encoder-decoder: every change, one batch of rows of equal length after another.

Each batch is run once and the streams before all blocks are stored. Changes that start in one block ride together, as
copies along the batch axis, in one pass from that block on: changes of the decoder do not run the encoder again. The
changed block itself is run whole (:mod:`tunescope.lenses.ablation.sweep` spares its attention; here that is not done).
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
from tunescope.data.batches import Batch, collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import EditKind, Part, Variant
from tunescope.lenses.ablation.replacement import Donors, Lent, Replacer, Statistics, stored_site
from tunescope.lenses.ablation.sweep import equal_length_batches
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

    def run(self, tokens: Tokens, task: Task) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch: row positions [B], clean logits [B, C], logits of every variant [V, B, C].

        Raises:
            LensError: A logit is not finite; the row (and the change) are named.
        """
        drawn = self._random()
        starts: dict[tuple[int, int], list[int]] = {}
        for index, variant in enumerate(self.variants):
            starts.setdefault(min(_start(part) for part in variant.parts), []).append(index)
        most = max(1, min(self.tokens_at_once, STORED_BYTES // (4 * stream_width(self.model))))
        for batch in equal_length_batches(tokens, most):
            with torch.inference_mode(), fast_activations(self.model.model):
                stored = trace_stacks(self.model, batch.to(self.model.device).inputs())
                _require_finite(stored.logits[None], None, batch.row_ids)
                replacer = self._replacer(tokens, batch)
                out = stored.logits.new_empty(len(self.variants), *stored.logits.shape)
                size = max(1, self.tokens_at_once // stored.attention_mask.numel())
                for (order, layer), members in starts.items():
                    for first in range(0, len(members), size):
                        chunk = members[first : first + size]
                        chosen = [self.variants[index] for index in chunk]
                        riding = _Copies(self.model, stored, replacer, chosen, drawn[chunk])
                        out[chunk] = riding.logits(STACKS[order], layer)
                    task.advance(len(batch.row_ids) * len(members) / len(self.variants))
                _require_finite(out, self.variants, batch.row_ids)
                result = stored.logits.cpu(), out.cpu()
            yield batch.index, *result

    def _random(self) -> torch.Tensor:
        """Draw one random unit vector a variant, [V, D]."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.variants), self.model.width, generator=generator)
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(self.model.device)

    def _replacer(self, tokens: Tokens, batch: Batch) -> Replacer:
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
    """Return how many numbers a clean pass stores per token: the stream before every block of both stacks."""
    return sum(stack.n_layers for stack in model.stacks) * model.width


def _start(part: Part) -> tuple[int, int]:
    """Return where a part lies in the order of running: the stack, and the block that must be run anew."""
    stack = cast(StackName, part.site.stack)
    return STACKS.index(stack), part.site.layer or 0


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

    def logits(self, stack: StackName, layer: int) -> torch.Tensor:
        """Return the logits of every variant, [V, B, C], running from a block on."""
        self.places = torch.arange(self.stored.attention_mask.shape[1], device=self.stored.logits.device)
        places = {
            (cast(StackName, part.site.stack), part.site.layer, _PLACE[part.site.name])
            for one in self.chosen for part in one.parts
        }  # fmt: skip
        with contextlib.ExitStack() as hooks:
            for name, at, place in sorted(places, key=str):
                hooks.callback(self._hook(name, at, place).remove)
            found = run_from_stack(self.model, self.stored, stack, layer, len(self.chosen))
        return found.unflatten(0, (len(self.chosen), -1))

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
        inner = {"attn_out": "head_out", "cross_attn_out": "cross_head_out", "mlp_out": "mlp_neurons"}.get(
            place
        )

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


# At which module's output the change of a site is made.
_PLACE = {
    "embeddings": "embeddings", "head_out": "attn_out", "attn_out": "attn_out", "cross_head_out": "cross_attn_out",
    "cross_attn_out": "cross_attn_out", "mlp_neurons": "mlp_out", "mlp_out": "mlp_out", "resid_post": "resid_post",
}  # fmt: skip
