"""The exact sweep under the ablation lens: every head and sublayer of a model, one batch after another.

A variant is one change in one block. The blocks before it are not run again: each batch is traced once, and all
variants of a block ride together from its stored residual stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from tunescope.capture.hooks import reading
from tunescope.capture.partial import Trace, run_from, trace
from tunescope.capture.sites import Site, head_weights, locate
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.models.classifier import Classifier, right_padded
from tunescope.progress import Task
from tunescope.stats.states import Moments

EditKind = Literal["zero", "mean"]
Control = Literal["none", "random", "no_op"]

# A batch of a sweep is few rows of nearly equal length times many variants: no padding to compute, same bulk.
ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class Variant:
    """One change in one block.

    Attributes:
        layer: The block.
        site: ``head_out``, ``attn_out`` or ``mlp_out``.
        head: The head, for ``head_out``.
        edit: What replaces the component: zero, or its mean over real tokens of the reference rows.
        control: ``none`` is the effect itself; ``random`` subtracts a random direction of the norm that the edit
            would have removed at each token; ``no_op`` changes nothing.
    """

    layer: int
    site: str
    head: int | None
    edit: EditKind
    control: Control = "none"


@dataclass(frozen=True)
class Means:
    """Means over real tokens, per layer: ``z`` [L, H, D/H], ``attn_out`` and ``mlp_out`` [L, D]."""

    z: torch.Tensor
    attn_out: torch.Tensor
    mlp_out: torch.Tensor


def variants(model: Classifier, edits: Sequence[EditKind], random: bool) -> list[Variant]:
    """List every head and sublayer with every edit, its random control (for the first edit) and one no-op a block."""
    found = []
    for layer in range(model.n_layers):
        components: list[tuple[str, int | None]] = [("head_out", head) for head in range(model.n_heads)]
        components += [("attn_out", None), ("mlp_out", None)]
        for site, head in components:
            found += [Variant(layer, site, head, edit) for edit in edits]
            if random:
                found.append(Variant(layer, site, head, edits[0], "random"))
        found.append(Variant(layer, "mlp_out", None, edits[0], "no_op"))
    return found


def component_means(model: Classifier, reference: Tokens, task: Task) -> Means:
    """Average heads and sublayers over the real tokens of reference rows, in one pass and in float64."""
    sites = [
        Site(name, layer) for layer in range(model.n_layers) for name in ("head_z", "attn_out", "mlp_out")
    ]
    states = {site: Moments(model.width) for site in sites}
    for batch in batches(reference):
        moved = batch.to(model.device)
        mask = right_padded(moved.input_ids, moved.attention_mask)[1].bool()

        def receive(site: Site, value: torch.Tensor, mask: torch.Tensor = mask) -> None:
            flat = value.flatten(2) if site.name == "head_z" else value
            states[site].update(flat[mask])

        with torch.inference_mode(), reading(model, sites, receive):
            model(**moved.inputs())
        task.advance(len(batch.row_ids))

    def stack(name: str) -> torch.Tensor:
        rows = [torch.as_tensor(states[Site(name, layer)].mean) for layer in range(model.n_layers)]
        return torch.stack(rows).to(model.device, torch.float32)

    return Means(stack("head_z").unflatten(-1, (model.n_heads, -1)), stack("attn_out"), stack("mlp_out"))


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to run.

    Attributes:
        model: The classifier.
        variants: What to change, grouped by layer.
        means: Replacement values of the mean edit.
        seed: Seeds the random directions.
        tokens_at_once: Padded tokens in one forward pass over stacked variants; bounds the memory.
    """

    model: Classifier
    variants: Sequence[Variant]
    means: Means
    seed: int
    tokens_at_once: int = 8192

    def run(self, tokens: Tokens, task: Task) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch: row positions [B], clean logits [B, C], logits of every variant [V, B, C].

        Raises:
            LensError: The model gives logits that are not finite.
        """
        directions = self._directions()
        layers = {
            layer: [i for i, v in enumerate(self.variants) if v.layer == layer]
            for layer in range(self.model.n_layers)
        }
        for batch in batches(tokens, max_rows=ROWS_AT_ONCE):
            stored = trace(self.model, batch.to(self.model.device).inputs())
            if not bool(torch.isfinite(stored.logits).all()):
                bad = int((~torch.isfinite(stored.logits)).any(1).nonzero()[0])
                raise LensError(f"The model gives logits that are not finite for row {batch.row_ids[bad]}.")
            out = stored.logits.new_empty(len(self.variants), *stored.logits.shape)
            for layer, members in layers.items():
                for chunk in _chunks(members, self.tokens_at_once // max(1, stored.attention_mask.numel())):
                    chosen = [self.variants[i] for i in chunk]
                    out[chunk] = self._variants(stored, layer, chosen, directions[chunk])
                task.advance(len(batch.row_ids) / self.model.n_layers)
            yield batch.index, stored.logits.cpu(), out.cpu()

    def _directions(self) -> torch.Tensor:
        """Draw one random unit vector a variant, [V, D]."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.variants), self.model.width, generator=generator)
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(self.model.device)

    def _variants(
        self, stored: Trace, layer: int, chosen: Sequence[Variant], directions: torch.Tensor
    ) -> torch.Tensor:
        attention = locate(self.model, Site("attn_out", layer)).module
        mlp = locate(self.model, Site("mlp_out", layer)).module
        change = _BlockChange(self, layer, chosen, directions)
        handles = [
            attention.register_forward_hook(change.attention),
            mlp.register_forward_hook(change.mlp),
        ]
        try:
            logits = run_from(self.model, stored, layer, copies=len(chosen))
        finally:
            for handle in handles:
                handle.remove()
        return logits.unflatten(0, (len(chosen), -1))


@dataclass(frozen=True)
class _BlockChange:
    """The hooks that change each copy of a stacked batch in its own way."""

    sweep: Sweep
    layer: int
    chosen: Sequence[Variant]
    directions: torch.Tensor

    def attention(self, _module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        model, means = self.sweep.model, self.sweep.means
        out = output.unflatten(0, (len(self.chosen), -1)).clone()  # [V, B, T, D]
        z = (
            arguments[0].unflatten(0, (len(self.chosen), -1)).unflatten(-1, (model.n_heads, -1))
        )  # [V, B, T, H, D/H]
        weights = head_weights(model, self.layer)
        for index, variant in enumerate(self.chosen):
            if variant.control == "no_op" or variant.site == "mlp_out":
                continue
            if variant.site == "head_out":
                head = variant.head or 0
                kept = means.z[self.layer, head] if variant.edit == "mean" else 0.0
                removed = (z[index, :, :, head] - kept) @ weights[head]
            else:
                removed = out[index] - (means.attn_out[self.layer] if variant.edit == "mean" else 0.0)
            out[index] -= self._removed(index, removed)
        return out.flatten(0, 1)

    def mlp(self, _module: nn.Module, _arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        out = output.unflatten(0, (len(self.chosen), -1)).clone()
        for index, variant in enumerate(self.chosen):
            if variant.control != "no_op" and variant.site == "mlp_out":
                kept = self.sweep.means.mlp_out[self.layer] if variant.edit == "mean" else 0.0
                out[index] -= self._removed(index, out[index] - kept)
        return out.flatten(0, 1)

    def _removed(self, index: int, removed: torch.Tensor) -> torch.Tensor:
        if self.chosen[index].control == "random":
            return removed.norm(dim=-1, keepdim=True) * self.directions[index]
        return removed


def _chunks(members: list[int], size: int) -> Iterator[list[int]]:
    size = max(1, size)
    for start in range(0, len(members), size):
        yield members[start : start + size]
