"""The runs under the lens ``grafting``: rows stored once in both models, and every graft started where it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from tunescope.capture.graft_parts import GraftPart, GraftPlace, PartKind, names_of, parts_of, rows_of
from tunescope.capture.patch import Patcher, PatchPlace
from tunescope.capture.patch_models import (
    grafted,
    heads_under,
    moved_names,
    random_like,
    trunk_state,
    tuned_readout,
    with_head_inputs,
)
from tunescope.capture.sites import Site, head_weights
from tunescope.capture.stored import StoredPass, logits_of, run_blocks, store
from tunescope.data.batches import Batch
from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.sweep import equal_length_batches, require_finite_pass
from tunescope.lenses.patching.measure import Answers
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.progress import Task

TOKENS_STORED = 2048
PARTS: dict[str, PartKind] = {
    "embeddings": "embeddings",
    "attention": "attention",
    "mlp": "mlp",
    "head": "attention",
}


@dataclass(frozen=True)
class Run:
    """One graft.

    Attributes:
        scope: ``one`` part; ``up_to_here`` (the embeddings and blocks 0 to ``layer``); ``from_here`` (blocks ``layer``
            to the last); ``greedy`` (a set of parts); ``rows`` (rows of matrices).
        kind: ``embeddings``, ``block``, ``attention``, ``mlp``, ``head``; ``set`` and ``rows`` for several.
        layer: The block.
        head: The head.
        direction: ``tuned_into_base`` or ``base_into_tuned``.
        control: ``none``, ``random`` (a random change of the same size) or ``no_op`` (its own weights).
        parts: The parts of a set.
        rows: Parameters by name with masks over their rows, of ``rows``.
        step: How many parts a set has.
        share: Which share of all matrix rows is grafted.
        picked: Whether this is the smallest set that reached the share of the gain where it was sought.
        place: ``encoder``, ``decoder`` or ``cross`` (attention) in an encoder-decoder; None elsewhere.
    """

    scope: str
    kind: str
    layer: int | None = None
    head: int | None = None
    direction: str = "tuned_into_base"
    control: str = "none"
    parts: tuple[GraftPart, ...] = ()
    rows: Mapping[str, torch.Tensor | None] = field(default_factory=dict)
    step: int | None = None
    share: float | None = None
    picked: bool | None = None
    place: GraftPlace | None = None

    @property
    def name(self) -> str:
        """How the graft is written."""
        if self.scope == "greedy":
            return " + ".join(str(part) for part in self.parts)
        if self.scope == "rows":
            return f"{100 * (self.share or 0):g} % of rows"
        place = "" if self.place is None else f"{self.place}."
        own = f"{place}L{self.layer}H{self.head}" if self.kind == "head" else str(self.part)
        return own if self.scope == "one" else f"{self.scope.replace('_', ' ')}: {own}"

    @property
    def part(self) -> GraftPart:
        """The single part; for a head its attention sublayer."""
        return GraftPart(PARTS.get(self.kind, "block"), self.layer, self.place)

    @property
    def own_parts(self) -> tuple[GraftPart, ...]:
        """The parts whose weights are put in."""
        return self.parts or (self.part,)


@dataclass
class Stored:
    """A batch of rows of equal length with the passes of base, tuned, and the base with randomly moved weights."""

    batch: Batch
    inputs: dict[str, torch.Tensor]
    base: Any  # a StoredPass, or a StackPass of an encoder-decoder
    tuned: Any
    random: Any = None


@dataclass
class Grafts:
    """Base and tuned on the same rows, ready for grafts.

    Attributes:
        base: The base; its adapters, if any, are merged.
        tuned: The tuned model, likewise.
        tokens: The rows.
        seed: Seeds the random controls.
    """

    base: Classifier
    tuned: Classifier
    tokens: Tokens
    seed: int
    ends: Answers = field(init=False)

    @cached_property
    def states(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights of both models outside the readout."""
        return {"base": trunk_state(self.base), "tuned": trunk_state(self.tuned)}

    @cached_property
    def moved(self) -> set[str]:
        """Names of the weights that tuning changed at all."""
        return moved_names(self.states["base"], self.states["tuned"])

    def parts_in(self, one: Run) -> list[GraftPart]:
        """Return the parts that a graft puts in: of a head its attention, of rows none."""
        if one.scope == "rows":
            return []
        if one.scope not in ("up_to_here", "from_here"):
            return list(one.own_parts)
        depths = parts_of(self.base, ("embeddings", "block"))
        here = depths.index(one.part)
        return depths[: here + 1] if one.scope == "up_to_here" else depths[here:]

    def on(self, rows: np.ndarray) -> Grafts:
        """Return the same models on some of the rows."""
        other = replace(self, tokens=self.tokens.take(rows))
        other.__dict__ |= {name: self.__dict__[name] for name in ("states", "moved") if name in self.__dict__}
        other.ends = self.ends.take(rows)
        return other

    def prepare(self, task: Task) -> None:
        """Run base and tuned under the tuned readout on every row."""
        self.ends = Answers.empty(len(self.tokens), 2)
        for stored in self._batches():
            both = torch.stack([stored.base.logits, stored.tuned.logits])
            self._fill(self.ends, stored, both)
            task.advance(len(stored.batch.row_ids))

    def answers(self, runs: Sequence[Run]) -> Answers:
        """Return the answers of every graft on every row, [N, V]."""
        found = Answers.empty(len(self.tokens), len(runs))
        random = any(one.control == "random" and one.scope == "up_to_here" for one in runs)
        for stored in self._batches(random):
            out = stored.base.logits.new_empty(len(runs), *stored.base.logits.shape)
            self._heads(stored, runs, out)
            self._depths(stored, runs, out)
            for index, one in enumerate(runs):
                if one.scope not in ("up_to_here", "from_here") and one.kind != "head":
                    out[index] = self._grafted(stored, one)
            self._fill(found, stored, out)
        return found

    def _fill(self, found: Answers, stored: Stored, logits: torch.Tensor) -> None:
        index = stored.batch.index
        found.fill(index, logits, np.asarray(self.tokens.labels[index]), stored.batch.row_ids)

    def _batches(self, random: bool = False) -> Iterator[Stored]:
        with torch.inference_mode(), tuned_readout(self.base, self.tuned), contextlib.ExitStack() as stack:
            for model in (self.base, self.tuned):
                stack.enter_context(fast_activations(model.model))
            everything = rows_of(parts_of(self.base, ("embeddings", "block")), self.base) if random else {}
            for batch in equal_length_batches(self.tokens, TOKENS_STORED):
                inputs = batch.to(self.base.device).inputs()
                stored = Stored(batch, inputs, store(self.base, inputs), store(self.tuned, inputs))
                for one in (stored.base, stored.tuned):
                    require_finite_pass(one, one.logits, batch.row_ids)
                if random:
                    with grafted(self.base, self.states["tuned"], everything, self.seed):
                        stored.random = store(self.base, inputs)
                yield stored

    def _heads(self, stored: Stored, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Graft single heads: patches of their outputs, all heads of a block from one attention pass."""
        groups: dict[tuple[str, int, str], list[int]] = {}
        for index, one in enumerate(runs):
            if one.kind == "head" and one.layer is not None:
                groups.setdefault((one.direction, one.layer, one.control), []).append(index)
        for (direction, layer, control), members in groups.items():
            model, other, clean = self._sides(stored, direction)
            attention = set(names_of(self.base, GraftPart("attention", layer)))
            if not attention & self.moved:
                out[members] = clean.logits
                continue
            if control == "random":
                heads, weights = self._random_heads(model, other, clean, layer)
            else:
                heads, weights = heads_under(model, other, clean, layer), head_weights(other, layer)
            donor = with_head_inputs(clean, layer, heads)
            places = [PatchPlace(Site("head_out", layer), (int(runs[index].head or 0),)) for index in members]
            out[members] = Patcher(model, clean, donor, {Site("head_out", layer): weights}).logits(places)

    def _random_heads(
        self, model: Classifier, other: Classifier, clean: StoredPass, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a block's heads and their output weights with random changes as large as tuning's.

        Every vector with which a head reads (a query's, key's or value's) or writes moves as far as the graft would
        move it, in a random direction; a bias moves as a whole. So the control is one of weights, head by head.
        """
        ours, theirs = (self.states["base" if one is self.base else "tuned"] for one in (model, other))
        inside = f"{model.family.path('attention', layer)}."
        changed = {}
        for name in sorted(one for one in self.moved if one.startswith(inside)):
            # The projections of GPT-2 are stored turned around: there a column is what one query (key, value) reads.
            turned = isinstance(model.trunk.get_submodule(name.rpartition(".")[0]), Conv1D)
            way = random_like(theirs[name] - ours[name], self.seed, name, 0 if turned else -1)
            changed[name] = ours[name] + way
        with grafted(model, changed, dict.fromkeys(changed)):
            heads = heads_under(model, model, clean, layer)
        own = head_weights(model, layer)
        written = random_like(head_weights(other, layer) - own, self.seed, f"heads of block {layer}")
        return heads, own + written

    def _sides(self, stored: Stored, direction: str) -> tuple[Classifier, Classifier, Any]:
        if direction == "tuned_into_base":
            return self.base, self.tuned, stored.base
        return self.tuned, self.base, stored.tuned

    def _depths(self, stored: Stored, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Graft up to a depth or from one on: one model's stream goes on in the other's blocks."""
        for index, one in enumerate(runs):
            if one.scope not in ("up_to_here", "from_here"):
                continue
            if not _by_stream(one):
                out[index] = self._grafted(stored, one)
                continue
            if one.scope == "from_here":
                place = PatchPlace(Site("resid_pre", one.layer))
                patcher = Patcher(self.tuned, stored.tuned, stored.base)
            else:
                place = PatchPlace(
                    Site("resid_pre", 0) if one.layer is None else Site("resid_post", one.layer)
                )
                lower = stored.random if one.control == "random" else stored.tuned
                assert lower is not None
                patcher = Patcher(self.base, stored.base, lower)
            out[index] = patcher.logits([place])[0]

    def _grafted(self, stored: Stored, one: Run) -> torch.Tensor:
        """Run a graft of whole tensors or rows from the first block that it changes."""
        model, _, clean = self._sides(stored, one.direction)
        names = dict(one.rows) if one.scope == "rows" else rows_of(self.parts_in(one), model)
        names = {name: mask for name, mask in names.items() if name in self.moved}
        if not names and one.control != "no_op":
            return clean.logits
        itself = "base" if model is self.base else "tuned"
        donor = itself if one.control == "no_op" else ("tuned" if itself == "base" else "base")
        # Of rows the control is which rows are taken; elsewhere it is which way the weights move.
        seed = self.seed if one.control == "random" and one.scope != "rows" else None
        with grafted(model, self.states[donor], names, seed):
            return self._run_grafted(stored, one, model, clean)

    def _run_grafted(self, stored: Stored, one: Run, model: Classifier, clean: Any) -> torch.Tensor:
        """Run a model with the graft in place."""
        parts = (one.part,) if one.scope == "from_here" else one.own_parts
        start = -1 if one.scope == "rows" else min(part.start for part in parts)
        if start < 0:
            logits: torch.Tensor = model(**stored.inputs)
            return logits
        hidden = run_blocks(model, clean, start, clean.trace.resid_pre[start])
        return logits_of(model, hidden)


def _by_stream(one: Run) -> bool:
    """Whether a graft is one model's stream going on in the other's blocks."""
    if one.control == "no_op":
        return False
    return one.scope == "up_to_here" or (one.scope == "from_here" and one.control == "none")
