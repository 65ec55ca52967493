"""What a lens that only reads is: it names sites, and is shown one activation after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tunescope.capture.sites import Site
from tunescope.lenses.subject import Which
from tunescope.models.classifier import Classifier


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
