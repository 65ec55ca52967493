"""Changes of one block riding together: copies of stored rows along the batch axis, from their block to the logits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tunescope.capture.fused_heads import FusedHeads
from tunescope.capture.line import run_line, run_line_last, run_line_mlp
from tunescope.capture.sites import Site, locate
from tunescope.capture.stored import (
    StoredPass,
    after_attention,
    after_mlp,
    logits_of,
    pooled_place,
    run_blocks,
    run_mlp,
)
from tunescope.lenses.ablation.components import Part, Variant
from tunescope.lenses.ablation.replacement import Replacer, stored_site
from tunescope.models.classifier import Classifier


class Answered(Protocol):
    """What a changed model is measured by, of one batch; see :class:`Sweep`."""

    clean: torch.Tensor

    def __call__(self, stream: torch.Tensor) -> torch.Tensor:
        """Return the numbers of states [R, T, D] behind the last block, [R, A]."""
        ...


@dataclass
class Stack:
    """Variants that start in one block, as copies along the batch axis: copy v of row b is at v * B + b."""

    model: Classifier
    stored: StoredPass
    replacer: Replacer
    chosen: Sequence[Variant]
    random: torch.Tensor
    answered: Answered | None = None
    fused: FusedHeads | None = None

    def logits(self) -> torch.Tensor:
        """Return the logits (or answers) of every variant, [V, B, C]."""
        hidden, later = self.begun(), self.later()
        with contextlib.ExitStack() as stack:
            for layer in later:
                for handle in self._hooks(layer):
                    stack.callback(handle.remove)
            return self.ended(hidden, self.start + 1, later)

    @property
    def start(self) -> int:
        """The block that the changes start in."""
        return self.chosen[0].start

    def later(self) -> list[int]:
        """Return the blocks behind the start in which there are changes too."""
        return sorted({part.layer for one in self.chosen for part in one.parts if part.layer > self.start})

    def begun(self) -> torch.Tensor:
        """Return the stream behind the block of the start, [V * B, P, D]; P is 1 where only one token is read."""
        self._look()
        return self._after_start(self.start)

    def attention_alone(self) -> bool:
        """Whether every change is one of heads or of the attention's output, in the block of the start."""
        parts = [part for one in self.chosen for part in one.parts]
        return all(part.layer >= 0 and part.site.name in ("head_out", "attn_out") for part in parts)

    def before_mlp(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stream before the block of the start and its changed attention output, [V * B, P, D] each."""
        self._look()
        before = self._clean(Site("resid_pre", self.start)).repeat(len(self.chosen), 1, 1)
        return before, self._sublayer(("attn_out", "head_out"), self.start, range(len(self.chosen)))

    def head_changes(self) -> torch.Tensor:
        """Return by how much each copy's head changes before the output projection, [V, B * T, D/H]."""
        clean = self.stored.at(Site("head_z", self.start))
        made = [self.replacer.head_change(one, clean).flatten(0, 1) for one in self.chosen]
        return torch.stack(made)

    def _look(self) -> None:
        """Choose the tokens to compute behind the block of the start: in the last one only what pooling reads."""
        place = pooled_place(self.model, self.stored.length) if self.answered is None else None
        places = torch.arange(self.stored.length, device=self.stored.logits.device)
        short = self.start == self.model.n_layers - 1 and place is not None
        self.places = places[place : place + 1] if short and place is not None else places

    def ended(self, hidden: torch.Tensor, first: int, later: Sequence[int] = ()) -> torch.Tensor:
        """Run blocks ``first`` to the last, norm, pooling and head (or what is measured instead), [V, B, C]."""
        last = self.model.n_layers - 1
        whole = later if self.answered is None else [*later, last]
        if first <= last:
            hidden = run_blocks(self.model, self.stored, first, hidden, whole)
        if self.answered is not None:
            return self.answered(hidden).unflatten(0, (len(self.chosen), -1))
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
        if self.model.is_parallel and not both:  # the MLP does not see its own block's attention
            mlp = self._clean(Site("mlp_out", layer)).repeat(len(members), 1, 1)
            return self._behind(layer, before + attention + mlp, members)
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
        return self.replacer.added(self.chosen[index], part, current, self.places, self.random[index])

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


def is_one_head(variant: Variant) -> bool:
    """Return whether a change is that of one head at every token, without a control: what can be fused."""
    part = variant.parts[0]
    return (
        len(variant.parts) == 1 and variant.control == "none" and part.site.name == "head_out" and
        part.units is not None and len(part.units) == 1 and part.positions is None and part.direction is None
    )  # fmt: skip


def _behind_fused(stacks: Sequence[Stack], fused: FusedHeads) -> list[torch.Tensor]:
    """Return the stream behind the block in which one head a copy has changed, [V * B, T, D] of every stack."""
    start = stacks[0].start
    middle, inner = (
        torch.cat([one.stored.values[name][start].flatten(0, 1) for one in stacks])
        for name in ("resid_mid", "mlp_inner")
    )
    changes = torch.cat([one.head_changes() for one in stacks], 1)
    heads = [one.parts[0].units[0] for one in stacks[0].chosen]  # type: ignore[index]
    after = fused.behind(start, middle, inner, heads, changes)
    parts = after.split([one.stored.rows * one.stored.length for one in stacks], 1)
    return [
        part.unflatten(1, (one.stored.rows, one.stored.length)).flatten(0, 1)
        for part, one in zip(parts, stacks, strict=True)
    ]


def together(model: Classifier, stacks: Sequence[Stack]) -> list[torch.Tensor]:
    """Return the logits of the same changes in rows of several lengths, [V, B, C] each.

    What works token by token is run on all of them in one line without padding, and attention row by row. Changes in
    several blocks are run length by length.
    """
    start, last = stacks[0].start, model.n_layers - 1
    whole = stacks[0].answered is not None or pooled_place(model, 1) is None
    fused = stacks[0].fused if start < last else None
    if len(stacks) == 1 and fused is not None:
        return [stacks[0].ended(_behind_fused(stacks, fused)[0], start + 1)]
    if len(stacks) == 1 or stacks[0].later():
        return [stack.logits() for stack in stacks]
    if fused is not None:
        states = _behind_fused(stacks, fused)
    elif stacks[0].attention_alone():
        before, attention = zip(*(stack.before_mlp() for stack in stacks), strict=True)
        states = run_line_mlp(model, start, before, attention)
    else:
        states = [stack.begun() for stack in stacks]
    if start == last:
        return [stack.ended(hidden, last + 1) for stack, hidden in zip(stacks, states, strict=True)]
    end = last + 1 if whole else last
    states = run_line(model, range(start + 1, end), states)
    if not whole and model.family.norm_order == "pre":
        states, end = run_line_last(model, [stack.stored for stack in stacks], states), last + 1
    return [stack.ended(hidden, end) for stack, hidden in zip(stacks, states, strict=True)]
