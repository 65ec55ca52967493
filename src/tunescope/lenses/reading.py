"""One pass for many: lenses that only read declare their sites, and one forward pass a model serves them all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tunescope import processes
from tunescope.capture.finite import not_finite_rows
from tunescope.capture.hooks import eager_attention, reading
from tunescope.capture.lockstep import side_by_side
from tunescope.capture.shared import decided_before, going_on_from, keeping, shared_depth, starting_from
from tunescope.capture.sites import PATTERNS, Reader, Site
from tunescope.data.batches import Batch, batches
from tunescope.data.packed import PackedBatch, packed_batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.reading_lens import PerModel, ReadingLens, View
from tunescope.lenses.reading_turns import Recorder, Turns, mask_of, sites_of
from tunescope.lenses.subject import Subject, Which
from tunescope.models.classifier import Classifier
from tunescope.models.packed import Layout, packing_problem, padded_again
from tunescope.models.store import ActivationStore
from tunescope.progress import Task

__all__ = ["PerModel", "ReadingLens", "View", "read_model", "read_pass"]

# Cells of one block's attention pattern in one batch: 16 MiB in float32. Larger ones are slower on a processor, whose
# memory comes anew from the system with each.
PATTERN_CELLS = 1 << 22
# Tokens of one batch without padding on a processor: its activations, neurons above all, stay near its caches. The
# bare pass loses nothing by it.
PROCESSOR_TOKENS = 2048
WINDOW = 256  # batches are formed inside windows of rows, so that states keyed by rank stay small


def read_pass(subject: Subject, tokens: Tokens, lenses: Sequence[ReadingLens]) -> None:
    """Show every lens the base and the tuned model on the same batches.

    Where tuning left the first blocks as they were, they are run once: what they give is shown as the base's and as
    the tuned model's, batch by batch, and the tuned model goes on from there. Else the whole base comes first.
    """
    team = processes.team(len(tokens), subject.base, subject.tuned)
    if team is not None:
        wanted = Recorder.of(subject, lenses)
        with team.share(_help, wanted, subject.base, subject.tuned, tokens):
            _read(subject, tokens, lenses, team)
    else:
        _read(subject, tokens, lenses, None)


def _read(
    subject: Subject, tokens: Tokens, lenses: Sequence[ReadingLens], team: processes.Team | None
) -> None:
    models: list[tuple[Which, Classifier]] = [("base", subject.base), ("tuned", subject.tuned)]
    total = len(tokens) * len(models)
    depth = shared_depth(subject.base, subject.tuned)
    same_sites = sites_of(subject.base, lenses) == sites_of(subject.tuned, lenses)
    with subject.progress.task(f"{subject.arm}: reading activations", total, "rows") as task:
        if any(lens.side_by_side for lens in lenses):
            _read_side_by_side(subject, tokens, Turns(lenses, task, team))
        elif depth and same_sites:
            _read_both(subject, depth, tokens, Turns(lenses, task, team))
        else:
            for which, model in models:
                _read_one(which, model, tokens, Turns(lenses, task, team), subject.store)


def read_model(
    which: Which,
    model: Classifier,
    tokens: Tokens,
    lenses: Sequence[ReadingLens],
    task: Task,
    store: ActivationStore | None = None,
) -> None:
    """Show every lens one model, batch by batch, and report each batch to ``task``."""
    _read_one(which, model, tokens, Turns(lenses, task), store)


def _read_one(
    which: Which, model: Classifier, tokens: Tokens, turns: Turns, store: ActivationStore | None
) -> None:
    sites = sites_of(model, turns.lenses)
    start = starting_from(store, model, tokens, sites)
    for batch in turns.own(_batches(model, tokens, sites), {which: model}):
        shown = _Shown.of(batch.to(model.device))
        receive = shown.receiver(which, model, turns.lenses)
        with torch.inference_mode(), start(batch), reading(model, sites, receive):
            model(**shown.batch.inputs())
        turns.task.advance(len(batch.row_ids))


def _read_both(subject: Subject, depth: int, tokens: Tokens, turns: Turns) -> None:
    """Show every lens both models, the blocks before ``depth`` computed once."""
    base, tuned, lenses = subject.base, subject.tuned, turns.lenses
    sites = sites_of(base, lenses)
    late = [site for site in sites if not decided_before(site, depth)]
    start = starting_from(subject.store, base, tokens, sites, depth)
    for batch in turns.own(_batches(base, tokens, sites), {"base": base, "tuned": tuned}):
        shown = _Shown.of(batch.to(base.device))
        as_base, as_tuned = (
            shown.receiver("base", base, lenses),
            shown.receiver("tuned", tuned, lenses),
        )

        def receive(
            site: Site, value: torch.Tensor, first: Reader = as_base, second: Reader = as_tuned
        ) -> None:
            first(site, value)
            if decided_before(site, depth):
                second(site, value)

        with torch.inference_mode(), contextlib.ExitStack() as stack:
            with start(batch), reading(base, sites, receive), keeping(base, depth) as kept:
                base(**shown.batch.inputs())
            if any(site.name == "attn_pattern" for site in sites):  # one form of attention in all blocks
                stack.enter_context(eager_attention(tuned))
            stack.enter_context(reading(tuned, late, as_tuned))
            stack.enter_context(going_on_from(tuned, depth, kept[-1]))
            tuned(**shown.batch.inputs())
        turns.task.advance(2 * len(batch.row_ids))


def _read_side_by_side(subject: Subject, tokens: Tokens, turns: Turns) -> None:
    """Show every lens both models block by block; in small batches, for patterns grow with the square of the length."""
    base, tuned, lenses = subject.base, subject.tuned, turns.lenses
    longest = max(len(ids) for ids in tokens.input_ids)
    most = max(longest, PATTERN_CELLS // (base.n_heads * longest))
    source = batches(tokens, max_tokens=most, window=WINDOW)
    for batch in turns.own(source, {"base": base, "tuned": tuned}):
        shown = _Shown.of(batch.to(base.device))
        with torch.inference_mode(), contextlib.ExitStack() as stack:
            as_base, as_tuned = shown.receiver("base", base, lenses), shown.receiver("tuned", tuned, lenses)
            stack.enter_context(reading(base, sites_of(base, lenses), as_base))
            stack.enter_context(reading(tuned, sites_of(tuned, lenses), as_tuned))
            for _ in side_by_side(base, tuned, shown.batch.inputs()):
                pass
        turns.task.advance(2 * len(batch.row_ids))


@dataclass(frozen=True)
class _Shown:
    """One batch whose activations are handed to lenses; ``layout`` is None where it has padding."""

    batch: Batch | PackedBatch
    mask: torch.Tensor
    layout: Layout | None

    @classmethod
    def of(cls, batch: Batch | PackedBatch) -> _Shown:
        return cls(batch, *mask_of(batch))

    def receiver(self, which: Which, model: Classifier, lenses: Sequence[ReadingLens]) -> Reader:
        """Return what hands one model's activations to the lenses that want them."""
        wanted = [(lens, set(lens.sites(model))) for lens in lenses]
        batch = self.batch

        def receive(site: Site, value: torch.Tensor) -> None:
            if self.layout is not None and site.name not in ("pooled", "logits"):
                value = padded_again(value, self.layout)
            self._require_finite(which, site, value)
            view = View(which, model, site, value, self.mask, batch.index, batch.row_ids, batch.labels)
            for lens, own in wanted:
                if site in own:
                    lens.update(view)

        return receive

    def _require_finite(self, which: Which, site: Site, value: torch.Tensor) -> None:
        """Refuse an activation that is not finite at a real token; patterns are softmaxes and follow their sites."""
        if site.name in PATTERNS:
            return
        mask = None if site.name in ("pooled", "logits") else self.mask
        bad = not_finite_rows(value, mask, self.batch.row_ids)
        if bad is not None:
            raise LensError(f"{which}: {site} is NaN or infinite in {bad}.")


def _help(
    team: processes.Team, recorder: Recorder, base: Classifier, tuned: Classifier, tokens: Tokens
) -> None:
    """Run this process's batches and send the leader what its lenses are to see."""
    recorder.tuned = tuned
    store = None if recorder.store is None else ActivationStore(recorder.store)
    _read(Subject("", None, base, tuned, "none", {}, store=store), tokens, [recorder], team)


def _batches(model: Classifier, tokens: Tokens, sites: Sequence[Site]) -> Iterator[Batch | PackedBatch]:
    """Yield batches without padding where the model can; attention patterns need the padded, square form."""
    pattern = any(site.name == "attn_pattern" for site in sites)
    if pattern or packing_problem(model.model, model.family) is not None:
        return batches(tokens, window=WINDOW)
    if model.device.type == "cpu":
        return packed_batches(tokens, max_tokens=PROCESSOR_TOKENS, window=WINDOW)
    return packed_batches(tokens, window=WINDOW)
