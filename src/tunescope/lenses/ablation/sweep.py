"""The exact sweep under the ablation lens: every change of a model, one batch of rows after another.

Each batch of rows of equal length is run once and stored (:mod:`tunescope.capture.stored`). A change starts at the
block that it is in, from stored values; the changes that start in one block ride together in one pass through the
blocks after it. Nothing is padded, so that the results of a row do not depend on its batch mates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tunescope import processes
from tunescope.capture.fused_heads import FusedHeads, can_fuse
from tunescope.capture.stored import StoredPass, store
from tunescope.data.batches import Batch, collate
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import Variant, neurons_of
from tunescope.lenses.ablation.replacement import Donors, Replacer, Statistics
from tunescope.lenses.ablation.sweep_stack import Answered, Stack, is_one_head, together
from tunescope.lenses.ablation.sweep_store import Logits, SweepStore
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.packed import packing_problem
from tunescope.progress import SILENT, Task

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
        answers: What is measured instead of the pooled token's logits: made from the positions of a batch's rows and
            its clean pass, it turns states [R, T, D] behind the last block into numbers [R, A], and has those of the
            unchanged model as ``clean`` [B, A]. For language models, whose every token counts.
    """

    model: Classifier
    variants: Sequence[Variant]
    statistics: Statistics
    seed: int
    tokens_at_once: int = 1024
    donors: Tokens | None = None
    directions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    answers: Callable[[np.ndarray, StoredPass], Answered] | None = None

    def run(
        self, tokens: Tokens, task: Task, kept: SweepStore | None = None
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield, batch by batch: row positions [B], clean logits [B, C], logits of every variant [V, B, C].

        Args:
            tokens: The rows.
            task: Is told of every row that is done.
            kept: Where finished batches are kept and, after an interruption, found again; None keeps nothing.

        Raises:
            LensError: An activation or a logit is not finite; the layer and the row are named.
        """
        todo: list[list[Batch]] = []
        for pack in self._packs(tokens):
            fresh = []
            for batch in pack:
                done = None if kept is None else kept.get(batch.index)
                if done is None:
                    fresh.append(batch)
                else:
                    task.advance(len(batch.row_ids))
                    yield batch.index, *done
            todo += [fresh] if fresh else []
        # what is measured instead of logits may be a function of its place in the program, which cannot be sent
        rows = sum(map(_rows_of, todo)) if self.answers is None else 0
        with processes.shared(rows, [self.model], _help, self, tokens, todo) as team:
            for pack, made in self.each_pack(tokens, todo, task, team):
                for batch, (clean, changed) in zip(pack, made, strict=True):
                    if kept is not None:
                        kept.put(batch.index, clean, changed)
                    yield batch.index, clean, changed

    def each_pack(
        self, tokens: Tokens, packs: Sequence[list[Batch]], task: Task, team: processes.Team | None = None
    ) -> Iterator[tuple[list[Batch], list[Logits]]]:
        """Yield packs of batches that run together with their logits; the processes of a team compute them in turns."""
        made_once = (self._random(), self._fused(tokens))
        here: list[bool] = []

        def make(pack: list[Batch]) -> list[Logits]:
            here.append(True)
            return self._logits(tokens, pack, made_once, task)

        for pack, made in processes.in_turns(packs, make, team):
            if not here:
                task.advance(_rows_of(pack))
            here.clear()
            yield pack, made

    def _logits(
        self,
        tokens: Tokens,
        batches: Sequence[Batch],
        made_once: tuple[torch.Tensor, FusedHeads | None],
        task: Task,
    ) -> list[Logits]:
        """Return clean logits and those of every variant, batch by batch, of batches that run together."""
        drawn, fused = made_once
        rows = _rows_of(batches)
        with torch.inference_mode(), fast_activations(self.model.model):
            passes, clean, made = [], [], []
            for batch in batches:
                stored = self._store(batch, fused)
                answered = None if self.answers is None else self.answers(batch.index, stored)
                clean.append(stored.logits if answered is None else answered.clean)
                require_finite_pass(stored, clean[-1], batch.row_ids)
                passes.append(stored)
                made.append((self.replacer(tokens, batch, stored), answered))
            outs = [one.new_empty(len(self.variants), *one.shape) for one in clean]
            size = max(1, self.tokens_at_once // max(1, sum(_tokens_of(one) for one in passes)))
            for members, alone in self._members():
                for first in range(0, len(members), size):
                    chunk = members[first : first + size]
                    chosen = [self.variants[index] for index in chunk]
                    stacks = [
                        Stack(
                            self.model,
                            one,
                            replacer,
                            chosen,
                            drawn[chunk],
                            answered,
                            fused if alone else None,
                        )
                        for one, (replacer, answered) in zip(passes, made, strict=True)
                    ]
                    for out, logits in zip(outs, together(self.model, stacks), strict=True):
                        out[chunk] = logits
                task.advance(rows * len(members) / len(self.variants))
            for batch, out in zip(batches, outs, strict=True):
                _require_finite_logits(out, self.variants, batch.row_ids)
            return [(one.cpu(), out.cpu()) for one, out in zip(clean, outs, strict=True)]

    def _store(self, batch: Batch, fused: FusedHeads | None) -> StoredPass:
        """Run a batch once; where heads are fused, what each MLP's first product gave is kept too."""
        with contextlib.nullcontext(None) if fused is None else fused.keeping() as inner:
            stored = store(self.model, batch.to(self.model.device).inputs(), reads_neurons(self.variants))
        if inner is not None:
            stored.values["mlp_inner"] = inner
        return stored

    def _fused(self, tokens: Tokens) -> FusedHeads | None:
        """Return the fused heads where they save more than making them costs: a product of D tokens a block."""
        heads = sum(is_one_head(one) for one in self.variants)
        saved = heads * sum(len(ids) for ids in tokens.input_ids)
        worth = saved > 2 * self.model.n_layers * self.model.width
        return FusedHeads(self.model) if worth and can_fuse(self.model) else None

    def _members(self) -> Iterator[tuple[list[int], bool]]:
        """Yield the variants of one start that ride together, single heads apart from all else: whether they are."""
        for members in self._starts().values():
            for alone in (True, False):
                found = [index for index in members if is_one_head(self.variants[index]) == alone]
                if found:
                    yield found, alone

    def _starts(self) -> dict[int, list[int]]:
        """Return the variants by the block that they start in."""
        starts: dict[int, list[int]] = {}
        for index, variant in enumerate(self.variants):
            starts.setdefault(variant.start, []).append(index)
        return starts

    def _packs(self, tokens: Tokens) -> Iterator[list[Batch]]:
        """Yield batches of rows of equal length, several together where that makes fuller matrix products.

        Small products cost more a token. Batches are put together until the copies of one block's variants fill a
        pass; families that have not been proven on lines without padding stay apart.
        """
        most = self._most_tokens()
        widest = max((len(members) for members in self._starts().values()), default=1)
        room = min(most, self.tokens_at_once // widest)
        if packing_problem(self.model.model, self.model.family) is not None:
            room = 0
        pack: list[Batch] = []
        held = 0
        for batch in equal_length_batches(tokens, most):
            size = batch.input_ids.numel()
            if pack and held + size > room:
                yield pack
                pack, held = [], 0
            pack.append(batch)
            held += size
        if pack:
            yield pack

    def _most_tokens(self) -> int:
        room = STORED_BYTES // (4 * stored_width(self.model, self.variants))
        return max(1, min(self.tokens_at_once, room))

    def _random(self) -> torch.Tensor:
        """Draw one random unit vector a variant, [V, D]."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.variants), self.model.width, generator=generator)
        return (drawn / drawn.norm(dim=1, keepdim=True)).to(self.model.device)

    def replacer(self, tokens: Tokens, batch: Batch, stored: StoredPass) -> Replacer:
        """Return what says by how much each part of a variant changes in a batch."""
        neurons = reads_neurons(self.variants)
        made = Replacer(self.model, self.statistics, batch.row_ids, stored.length, self.seed,
                        directions=dict(self.directions))  # fmt: skip
        for edit in dict.fromkeys(variant.edit for variant in self.variants):
            if edit in ("resample", "resample_other_class"):
                if self.donors is None:
                    raise LensError("Resampling needs reference rows to resample from; none were given.")
                donors, other = Donors(self.donors, self.seed), edit == "resample_other_class"
                made.lent[edit] = donors.values(self.model, tokens, batch.index, other, neurons)
        return made


def _help(team: processes.Team, sweep: Sweep, tokens: Tokens, packs: Sequence[list[Batch]]) -> None:
    """Compute this process's packs for the leader."""
    with SILENT.task("ablation", len(tokens)) as task:
        for _ in sweep.each_pack(tokens, packs, task, team):
            pass


def _rows_of(pack: Sequence[Batch]) -> int:
    return sum(len(batch.row_ids) for batch in pack)


def _tokens_of(stored: StoredPass) -> int:
    return stored.trace.attention_mask.numel()


def reads_neurons(variants: Sequence[Variant]) -> bool:
    """Return whether a change is one of neurons, whose values are the largest to be stored."""
    return any(part.site.name == "mlp_neurons" for variant in variants for part in variant.parts)


def stored_width(model: Classifier, variants: Sequence[Variant]) -> int:
    """Return how many numbers a clean pass stores per token for a sweep."""
    width = VALUES_STORED * model.width + (neurons_of(model, 0) if reads_neurons(variants) else 0)
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


def require_finite_pass(stored: Any, clean: torch.Tensor, row_ids: Sequence[str]) -> None:
    """Refuse a clean pass (of one stack or two) that gives a NaN or an infinity.

    Raises:
        LensError: The first block behind which the stream is not finite is named, and the row.
    """
    if bool(torch.isfinite(clean).all()):
        return
    for block, value in stored.behind():
        bad = (~torch.isfinite(value)).flatten(1).any(1)
        if bool(bad.any()):
            raise LensError(
                f"The residual stream behind {block} is not finite for row {row_ids[int(bad.nonzero()[0])]}."
            )
    bad = (~torch.isfinite(clean)).any(1)
    raise LensError(f"The model gives logits that are not finite for row {row_ids[int(bad.nonzero()[0])]}.")


def _require_finite_logits(out: torch.Tensor, variants: Sequence[Variant], row_ids: Sequence[str]) -> None:
    bad = (~torch.isfinite(out)).any(-1)
    if bool(bad.any()):
        variant, row = (int(number) for number in bad.nonzero()[0])
        one = variants[variant]
        raise LensError(
            f"Row {row_ids[row]}: with {one.name} changed ({one.edit}) the logits are not finite."
        )
