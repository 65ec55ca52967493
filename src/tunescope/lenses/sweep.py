"""The exact sweep under the ablation lens: every change of a model, one batch of rows after another.

Each batch of rows of equal length is run once and stored (:mod:`tunescope.capture.stored`). A change starts at the
block that it is in, from stored values; the changes that start in one block ride together in one pass through the
blocks after it. Nothing is padded, so that the results of a row do not depend on its batch mates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tunescope.capture.sites import Site, locate
from tunescope.capture.stored import (
    StoredPass,
    after_attention,
    after_mlp,
    logits_of,
    pooled_place,
    run_blocks,
    run_mlp,
    store,
)
from tunescope.data.batches import Batch, collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.components import Part, Variant, neurons_of
from tunescope.lenses.replacement import Donors, Replacer, Statistics, stored_site
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.progress import Task

STORED_BYTES = 2**28  # what one batch's stored values may take
VALUES_STORED = 6  # tensors of the stream's width that are stored a layer


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to run.

    Attributes:
        model: The classifier, in evaluation mode.
        variants: What to change.
        statistics: Replacement values of the edits that need them.
        seed: Seeds the random directions, noise and donors.
        tokens_at_once: Tokens in one pass over stacked variants; bounds the memory.
        donors: Rows to resample from; needed by the resampling edits alone.
        directions: Orthonormal directions by name, [K, D].
    """

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
            LensError: An activation or a logit is not finite; the layer and the row are named.
        """
        drawn = self._random()
        starts: dict[int, list[int]] = {}
        for index, variant in enumerate(self.variants):
            starts.setdefault(variant.start, []).append(index)
        neurons = _reads_neurons(self.variants)
        for batch in equal_length_batches(tokens, self._most_tokens()):
            with torch.inference_mode(), fast_activations(self.model.model):
                stored = store(self.model, batch.to(self.model.device).inputs(), neurons)
                _require_finite(stored, batch.row_ids)
                replacer = self._replacer(tokens, batch, stored, neurons)
                out = stored.logits.new_empty(len(self.variants), *stored.logits.shape)
                size = max(1, self.tokens_at_once // stored.trace.attention_mask.numel())
                for members in starts.values():
                    for first in range(0, len(members), size):
                        chunk = members[first : first + size]
                        chosen = [self.variants[index] for index in chunk]
                        out[chunk] = _Stack(self.model, stored, replacer, chosen, drawn[chunk]).logits()
                    task.advance(len(batch.row_ids) * len(members) / len(self.variants))
                _require_finite_logits(out, self.variants, batch.row_ids)
                result = stored.logits.cpu(), out.cpu()
            yield batch.index, *result

    def _most_tokens(self) -> int:
        room = STORED_BYTES // (4 * stored_width(self.model, self.variants))
        return max(1, min(self.tokens_at_once, room))

    def _random(self) -> torch.Tensor:
        """Draw one random unit vector a variant, [V, D]."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.variants), self.model.width, generator=generator)
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(self.model.device)

    def _replacer(self, tokens: Tokens, batch: Batch, stored: StoredPass, neurons: bool) -> Replacer:
        made = Replacer(self.model, self.statistics, batch.row_ids, stored.length, self.seed,
                        directions=dict(self.directions))  # fmt: skip
        for edit in dict.fromkeys(variant.edit for variant in self.variants):
            if edit in ("resample", "resample_other_class"):
                if self.donors is None:
                    raise LensError("Resampling needs reference rows to resample from; none were given.")
                donors, other = Donors(self.donors, self.seed), edit == "resample_other_class"
                made.lent[edit] = donors.values(self.model, tokens, batch.index, other, neurons)
        return made


def _reads_neurons(variants: Sequence[Variant]) -> bool:
    return any(part.site.name == "mlp_neurons" for variant in variants for part in variant.parts)


def stored_width(model: Classifier, variants: Sequence[Variant]) -> int:
    """Return how many numbers a clean pass stores per token for a sweep."""
    width = VALUES_STORED * model.width + (neurons_of(model, 0) if _reads_neurons(variants) else 0)
    return model.n_layers * width


def equal_length_batches(tokens: Tokens, max_tokens: int) -> Iterator[Batch]:
    """Yield every row once in batches of rows of one length, the longest first; a longer row is alone."""
    lengths = np.array([len(ids) for ids in tokens.input_ids])
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        length = int(lengths[order[first]])
        same = order[first : first + max(1, max_tokens // max(1, length))]
        same = same[lengths[same] == length]
        yield collate(tokens, same)
        first += len(same)


def _require_finite(stored: StoredPass, row_ids: Sequence[str]) -> None:
    if bool(torch.isfinite(stored.logits).all()):
        return
    for layer, value in enumerate(stored.values["resid_post"]):
        bad = (~torch.isfinite(value)).flatten(1).any(1)
        if bool(bad.any()):
            raise LensError(
                f"The residual stream behind block {layer} is not finite for row {row_ids[int(bad.nonzero()[0])]}."
            )
    bad = (~torch.isfinite(stored.logits)).any(1)
    raise LensError(f"The model gives logits that are not finite for row {row_ids[int(bad.nonzero()[0])]}.")


def _require_finite_logits(out: torch.Tensor, variants: Sequence[Variant], row_ids: Sequence[str]) -> None:
    bad = (~torch.isfinite(out)).any(-1)
    if bool(bad.any()):
        variant, row = (int(number) for number in bad.nonzero()[0])
        one = variants[variant]
        raise LensError(
            f"Row {row_ids[row]}: with {one.name} changed ({one.edit}) the logits are not finite."
        )


@dataclass
class _Stack:
    """Variants that start in one block, as copies along the batch axis: copy v of row b is at v * B + b."""

    model: Classifier
    stored: StoredPass
    replacer: Replacer
    chosen: Sequence[Variant]
    random: torch.Tensor

    def logits(self) -> torch.Tensor:
        """Return the logits of every variant, [V, B, C]."""
        start, last = self.chosen[0].start, self.model.n_layers - 1
        place = pooled_place(self.model, self.stored.length)
        short = start == last and place is not None
        places = torch.arange(self.stored.length, device=self.stored.logits.device)
        self.places = places[place : place + 1] if short and place is not None else places
        hidden = self._after_start(start)
        later = sorted({part.layer for one in self.chosen for part in one.parts if part.layer > start})
        with contextlib.ExitStack() as stack:
            for layer in later:
                for handle in self._hooks(layer):
                    stack.callback(handle.remove)
            if not short:
                hidden = run_blocks(self.model, self.stored, start + 1, hidden, later)
            return logits_of(self.model, hidden).unflatten(0, (len(self.chosen), -1))

    def _after_start(self, start: int) -> torch.Tensor:
        """Return the stream behind the block in which the variants start, [V * B, P, D]."""
        if start < 0:
            return self._moved(Site("embeddings"), self._clean(Site("embeddings")), range(len(self.chosen)))
        kinds: dict[str, list[int]] = {"resid_post": [], "mlp_out": [], "attn_out": []}
        for index, variant in enumerate(self.chosen):
            names = {part.site.name for part in variant.parts if part.layer == start}
            attention, mlp = names & {"head_out", "attn_out"}, names & {"mlp_neurons", "mlp_out"}
            kinds["attn_out" if attention else "mlp_out" if mlp else "resid_post"].append(index)
        made: dict[int, torch.Tensor] = {}
        for kind, members in kinds.items():
            if members:
                value = getattr(self, f"_from_{kind}")(start, members).unflatten(0, (len(members), -1))
                made |= dict(zip(members, value, strict=True))
        return torch.cat([made[index] for index in range(len(self.chosen))])

    def _from_resid_post(self, layer: int, members: Sequence[int]) -> torch.Tensor:
        site = Site("resid_post", layer)
        return self._moved(site, self._clean(site), members)

    def _from_mlp_out(self, layer: int, members: Sequence[int]) -> torch.Tensor:
        middle = self._clean(Site("resid_mid", layer)).repeat(len(members), 1, 1)
        value = self._sublayer(("mlp_out", "mlp_neurons"), layer, members)
        after = after_mlp(self.model, layer, middle, value)
        return self._behind(layer, after, members)

    def _from_attn_out(self, layer: int, members: Sequence[int]) -> torch.Tensor:
        before = self._clean(Site("resid_pre", layer)).repeat(len(members), 1, 1)
        attention = self._sublayer(("attn_out", "head_out"), layer, members)
        chosen = [self.chosen[index] for index in members]
        both = [
            index for index, one in enumerate(chosen)
            if any(part.layer == layer and part.site.name in ("mlp_out", "mlp_neurons") for part in one.parts)
        ]  # fmt: skip
        if both and all(
            Part(Site("mlp_out", layer)) in chosen[index].parts and chosen[index].edit != "noise" and
            chosen[index].control == "none" for index in both
        ) and len(both) == len(chosen):  # fmt: skip
            # What replaces the MLP's output does not depend on its input, so the MLP is not run.
            middle = after_attention(self.model, layer, before, attention)
            value = self._sublayer(("mlp_out",), layer, members)
            return self._behind(layer, after_mlp(self.model, layer, middle, value), members)
        handle = self._mlp_hook(layer, members) if both else None
        try:
            after = run_mlp(self.model, self.stored, layer, before, attention)
        finally:
            if handle is not None:
                handle.remove()
        return self._behind(layer, after, members)

    def _clean(self, site: Site) -> torch.Tensor:
        """Return the stored value at a site, at the places that are looked at, [B, P, ...]."""
        stored = self.stored
        value = stored.trace.resid_pre[site.layer or 0] if site.name == "resid_pre" else stored.at(site)
        return value[:, self.places] if len(self.places) < stored.length else value

    def _sublayer(self, names: Sequence[str], layer: int, members: Sequence[int]) -> torch.Tensor:
        """Return a sublayer's output with each member's change in it, [M * B, P, D]."""
        clean = self._clean(Site(names[0], layer))
        out = clean.repeat(len(members), 1, 1).unflatten(0, (len(members), -1))
        for place, index in enumerate(members):
            for part in self._parts(index, layer, names):
                out[place] += self._delta(index, part, self._clean(stored_site(part)))
        return out.flatten(0, 1)

    def _moved(self, site: Site, clean: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        out = clean.repeat(len(members), 1, 1).unflatten(0, (len(members), -1))
        layer = -1 if site.layer is None else site.layer
        for place, index in enumerate(members):
            for part in self._parts(index, layer, (site.name,)):
                out[place] += self._delta(index, part, clean)
        return out.flatten(0, 1)

    def _behind(self, layer: int, hidden: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        """Apply the changes of the stream behind a block to copies that have one, [M * B, P, D]."""
        split = hidden.unflatten(0, (len(members), -1))
        for place, index in enumerate(members):
            for part in self._parts(index, layer, ("resid_post",)):
                split[place] += self._delta(index, part, split[place])
        return hidden

    def _parts(self, index: int, layer: int, names: Sequence[str]) -> list[Part]:
        return [part for part in self.chosen[index].parts if part.layer == layer and part.site.name in names]

    def _delta(self, index: int, part: Part, current: torch.Tensor) -> torch.Tensor:
        """Return what a variant adds at a part, [B, P, D]; nothing for a no-op, a random direction for a control."""
        variant = self.chosen[index]
        if variant.control == "no_op":
            return torch.zeros_like(current.flatten(2)[..., :1])
        change = self.replacer.delta(variant, part, current, self.places)
        if variant.control == "random":
            return -change.norm(dim=-1, keepdim=True) * self.random[index]
        return change

    def _hooks(self, layer: int) -> list[Any]:
        """Register the changes of a block behind the start; every copy gets its own."""
        members = range(len(self.chosen))
        handles = [self._mlp_hook(layer, members)]
        attention = locate(self.model, Site("attn_out", layer)).module

        def after_projection(_m: nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            heads = given[0].unflatten(-1, (self.model.n_heads, -1))
            return self._changed(layer, members, {"head_out": heads, "attn_out": output}, output)

        handles.append(attention.register_forward_hook(after_projection))
        block = locate(self.model, Site("resid_post", layer)).module

        def after_block(_m: nn.Module, _given: tuple[Any, ...], output: Any) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            changed = self._changed(layer, members, {"resid_post": hidden}, hidden)
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        handles.append(block.register_forward_hook(after_block))
        return handles

    def _mlp_hook(self, layer: int, members: Sequence[int]) -> Any:
        module = locate(self.model, Site("mlp_out", layer)).module

        def after(_m: nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            return self._changed(layer, members, {"mlp_neurons": given[0], "mlp_out": output}, output)

        return module.register_forward_hook(after)

    def _changed(
        self, layer: int, members: Sequence[int], values: dict[str, torch.Tensor], output: torch.Tensor
    ) -> torch.Tensor:
        """Return an output [M * B, P, D] with the members' changes at these sites, read from ``values``."""
        split = {name: value.unflatten(0, (len(members), -1)) for name, value in values.items()}
        out = output.clone().unflatten(0, (len(members), -1))
        for place, index in enumerate(members):
            for part in self._parts(index, layer, tuple(values)):
                out[place] += self._delta(index, part, split[part.site.name][place])
        return out.flatten(0, 1)
