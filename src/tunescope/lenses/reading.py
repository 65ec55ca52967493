"""One pass for many: lenses that only read declare their sites, and one forward pass a model serves them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import Batch, batches
from tunescope.data.tokens import Tokens
from tunescope.lenses.subject import Subject, Which
from tunescope.models.classifier import Classifier

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
            wanted = {lens: set(lens.sites(model)) for lens in lenses}
            sites = sorted(set().union(*wanted.values()), key=str)
            for batch in batches(tokens, window=WINDOW):
                moved = batch.to(model.device)

                def receive(site: Site, value: torch.Tensor, which: Which = which, model: Classifier = model,
                            wanted: dict[ReadingLens, set[Site]] = wanted, batch: Batch = moved) -> None:  # fmt: skip
                    view = View(
                        which,
                        model,
                        site,
                        value,
                        batch.attention_mask,
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
