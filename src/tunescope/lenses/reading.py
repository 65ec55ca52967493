"""One pass for many: lenses that only read declare their sites, and one forward pass a model serves them all."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tunescope.capture.finite import not_finite_rows
from tunescope.capture.hooks import eager_attention, reading
from tunescope.capture.lockstep import side_by_side
from tunescope.capture.shared import decided_before, going_on_from, keeping, shared_depth, starting_from
from tunescope.capture.sites import PATTERNS, Reader, Site
from tunescope.data.batches import Batch, batches
from tunescope.data.packed import PackedBatch, packed_batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.subject import Subject, Which
from tunescope.models.classifier import Classifier
from tunescope.models.packed import Layout, packing_problem, padded_again
from tunescope.models.store import ActivationStore
from tunescope.progress import Task

# Cells of one block's attention pattern in one batch: 16 MiB in float32. Larger ones are slower on a processor, whose
# memory comes anew from the system with each.
PATTERN_CELLS = 1 << 22
# Tokens of one batch without padding on a processor: its activations, neurons above all, stay near its caches. The
# bare pass loses nothing by it.
PROCESSOR_TOKENS = 2048
WINDOW = 256  # batches are formed inside windows of rows, so that states keyed by rank stay small


@dataclass(frozen=True)
class View:
    """One site of one model for one batch, handed over inside the hook.

    Attributes:
        which: ``base`` or ``tuned``.
        model: The classifier being read.
        site: Where.
        activation: The activation; shapes as in :func:`tunescope.capture.reading`.
        attention_mask: Right-padded mask, [B, T].
        ranks: Positions of the rows among those looked at, [B].
        row_ids: Their ids, the same for base and tuned.
        labels: Class indices, [B].
    """

    which: Which
    model: Classifier
    site: Site
    activation: torch.Tensor
    attention_mask: torch.Tensor
    ranks: np.ndarray
    row_ids: list[str]
    labels: torch.Tensor


class ReadingLens(ABC):
    """A lens that reads activations and keeps a mergeable state.

    Attributes:
        side_by_side: It compares the two models' activations themselves, so a batch's base and tuned views of a site
            must come one after the other, before those of the next block.
    """

    side_by_side: bool = False

    @abstractmethod
    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites it needs of a model."""

    @abstractmethod
    def update(self, view: View) -> None:
        """Reduce one activation; nothing of its size may be kept."""

    @abstractmethod
    def table(self) -> pl.DataFrame:
        """Return the tidy table of the result."""

    def examples(self) -> pl.DataFrame | None:
        """Return what is kept of single texts, or None; asked for after the table."""
        return None

    def before(self) -> ReadingLens | None:
        """Return a lens that must have seen all rows before this one sees the first, or None."""
        return None


class PerModel(ReadingLens):
    """Hands each model's activations to a lens of its own, in the one pass that serves both models.

    Args:
        lenses: A lens for ``base`` and one for ``tuned``, which look at the same sites.
    """

    def __init__(self, lenses: Mapping[Which, ReadingLens]) -> None:
        self.lenses = lenses

    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites of either lens."""
        return next(iter(self.lenses.values())).sites(model)

    def update(self, view: View) -> None:
        """Hand one activation on."""
        self.lenses[view.which].update(view)

    def table(self) -> pl.DataFrame:
        """Return the tables of both lenses, one below the other."""
        return pl.concat([lens.table() for lens in self.lenses.values()])


def read_pass(subject: Subject, tokens: Tokens, lenses: Sequence[ReadingLens]) -> None:
    """Show every lens the base and the tuned model on the same batches.

    Where tuning left the first blocks as they were, they are run once: what they give is shown as the base's and as
    the tuned model's, batch by batch, and the tuned model goes on from there. Else the whole base comes first.
    """
    models: list[tuple[Which, Classifier]] = [("base", subject.base), ("tuned", subject.tuned)]
    total = len(tokens) * len(models)
    depth = shared_depth(subject.base, subject.tuned)
    same_sites = all(set(lens.sites(subject.base)) == set(lens.sites(subject.tuned)) for lens in lenses)
    with subject.progress.task(f"{subject.arm}: reading activations", total, "rows") as task:
        if any(lens.side_by_side for lens in lenses):
            _read_side_by_side(subject, tokens, lenses, task)
            return
        if depth and same_sites:
            _read_both(subject, depth, tokens, lenses, task)
            return
        for which, model in models:
            read_model(which, model, tokens, lenses, task, subject.store)


def read_model(
    which: Which,
    model: Classifier,
    tokens: Tokens,
    lenses: Sequence[ReadingLens],
    task: Task,
    store: ActivationStore | None = None,
) -> None:
    """Show every lens one model, batch by batch, and report each batch to ``task``."""
    sites = _sites(model, lenses)
    start = starting_from(store, model, tokens, sites)
    for batch in _batches(model, tokens, sites):
        shown = _Shown.of(batch.to(model.device))
        receive = shown.receiver(which, model, lenses)
        with torch.inference_mode(), start(batch), reading(model, sites, receive):
            model(**shown.batch.inputs())
        task.advance(len(batch.row_ids))


def _read_both(
    subject: Subject, depth: int, tokens: Tokens, lenses: Sequence[ReadingLens], task: Task
) -> None:
    """Show every lens both models, the blocks before ``depth`` computed once."""
    base, tuned = subject.base, subject.tuned
    sites = _sites(base, lenses)
    late = [site for site in sites if not decided_before(site, depth)]
    start = starting_from(subject.store, base, tokens, sites, depth)
    for batch in _batches(base, tokens, sites):
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
        task.advance(2 * len(batch.row_ids))


def _read_side_by_side(subject: Subject, tokens: Tokens, lenses: Sequence[ReadingLens], task: Task) -> None:
    """Show every lens both models block by block; in small batches, for patterns grow with the square of the length."""
    base, tuned = subject.base, subject.tuned
    longest = max(len(ids) for ids in tokens.input_ids)
    most = max(longest, PATTERN_CELLS // (base.n_heads * longest))
    for batch in batches(tokens, max_tokens=most, window=WINDOW):
        shown = _Shown.of(batch.to(base.device))
        with torch.inference_mode(), contextlib.ExitStack() as stack:
            as_base, as_tuned = shown.receiver("base", base, lenses), shown.receiver("tuned", tuned, lenses)
            stack.enter_context(reading(base, _sites(base, lenses), as_base))
            stack.enter_context(reading(tuned, _sites(tuned, lenses), as_tuned))
            for _ in side_by_side(base, tuned, shown.batch.inputs()):
                pass
        task.advance(2 * len(batch.row_ids))


@dataclass(frozen=True)
class _Shown:
    """One batch whose activations are handed to lenses; ``layout`` is None where it has padding."""

    batch: Batch | PackedBatch
    mask: torch.Tensor
    layout: Layout | None

    @classmethod
    def of(cls, batch: Batch | PackedBatch) -> _Shown:
        return cls(batch, *_mask(batch))

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


def _sites(model: Classifier, lenses: Sequence[ReadingLens]) -> list[Site]:
    return sorted({site for lens in lenses for site in lens.sites(model)}, key=str)


def _batches(model: Classifier, tokens: Tokens, sites: Sequence[Site]) -> Iterator[Batch | PackedBatch]:
    """Yield batches without padding where the model can; attention patterns need the padded, square form."""
    pattern = any(site.name == "attn_pattern" for site in sites)
    if pattern or packing_problem(model.model, model.family) is not None:
        return batches(tokens, window=WINDOW)
    if model.device.type == "cpu":
        return packed_batches(tokens, max_tokens=PROCESSOR_TOKENS, window=WINDOW)
    return packed_batches(tokens, window=WINDOW)


def _mask(batch: Batch | PackedBatch) -> tuple[torch.Tensor, Layout | None]:
    """Return the right-padded mask [B, T] of a batch, and the layout of its rows where it has no padding."""
    if isinstance(batch, Batch):
        return batch.attention_mask, None
    layout = Layout.of(batch.lengths)
    mask = padded_again(torch.ones_like(batch.input_ids), layout)
    return mask, layout
