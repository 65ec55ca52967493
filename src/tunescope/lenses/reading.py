"""One pass for many: lenses that only read declare their sites, and one forward pass a model serves them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import Batch, batches
from tunescope.data.packed import PackedBatch, packed_batches
from tunescope.data.tokens import Tokens
from tunescope.lenses.subject import Subject, Which
from tunescope.models.classifier import Classifier
from tunescope.models.packed import Layout, packing_problem, padded_again

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
    """A lens that reads activations and keeps a mergeable state."""

    @abstractmethod
    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites it needs of a model."""

    @abstractmethod
    def update(self, view: View) -> None:
        """Reduce one activation; nothing of its size may be kept."""

    @abstractmethod
    def table(self) -> pl.DataFrame:
        """Return the tidy table of the result."""

    def before(self) -> ReadingLens | None:
        """Return a lens that must have seen all rows before this one sees the first, or None."""
        return None


def read_pass(subject: Subject, tokens: Tokens, lenses: Sequence[ReadingLens]) -> None:
    """Show every lens the base and then the tuned model on the same batches."""
    models: list[tuple[Which, Classifier]] = [("base", subject.base), ("tuned", subject.tuned)]
    total = len(tokens) * len(models)
    with subject.progress.task(f"{subject.arm}: reading activations", total, "rows") as task:
        for which, model in models:
            read_model(which, model, tokens, lenses, task)


def read_model(
    which: Which, model: Classifier, tokens: Tokens, lenses: Sequence[ReadingLens], task: Task
) -> None:
    """Show every lens one model, batch by batch, and report each batch to ``task``."""
    wanted = {lens: set(lens.sites(model)) for lens in lenses}
    sites = sorted(set().union(*wanted.values()), key=str)
    for batch in _batches(model, tokens, sites):
        moved = batch.to(model.device)
        mask, layout = _mask(moved)

        def receive(site: Site, value: torch.Tensor, batch: Batch | PackedBatch = moved,
                    mask: torch.Tensor = mask, layout: Layout | None = layout) -> None:  # fmt: skip
            if layout is not None and site.name not in ("pooled", "logits"):
                value = padded_again(value, layout)
            view = View(
                which,
                model,
                site,
                value,
                mask,
                batch.index,
                batch.row_ids,
                batch.labels,
            )
            for lens in lenses:
                if site in wanted[lens]:
                    lens.update(view)

        with torch.inference_mode(), reading(model, sites, receive):
            model(**moved.inputs())
        task.advance(len(batch.row_ids))


def _batches(model: Classifier, tokens: Tokens, sites: Sequence[Site]) -> Iterator[Batch | PackedBatch]:
    """Yield batches without padding where the model can; attention patterns need the padded, square form."""
    pattern = any(site.name == "attn_pattern" for site in sites)
    if pattern or packing_problem(model.model, model.family) is not None:
        return batches(tokens, window=WINDOW)
    return packed_batches(tokens, window=WINDOW)


def _mask(batch: Batch | PackedBatch) -> tuple[torch.Tensor, Layout | None]:
    """Return the right-padded mask [B, T] of a batch, and the layout of its rows where it has no padding."""
    if isinstance(batch, Batch):
        return batch.attention_mask, None
    layout = Layout.of(batch.lengths)
    mask = padded_again(torch.ones_like(batch.input_ids), layout)
    return mask, layout
