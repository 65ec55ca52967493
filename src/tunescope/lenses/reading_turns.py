"""Whose turn a batch of a reading pass is, where several processes share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from tunescope import processes
from tunescope.capture.sites import Site
from tunescope.data.batches import Batch
from tunescope.data.packed import PackedBatch
from tunescope.lenses.reading_lens import ReadingLens, View
from tunescope.lenses.subject import Subject, Which
from tunescope.models.classifier import Classifier
from tunescope.models.packed import Layout, padded_again
from tunescope.progress import Task


@dataclass(frozen=True)
class Turns:
    """The lenses of a pass, and whose turn a batch is."""

    lenses: Sequence[ReadingLens]
    task: Task
    team: processes.Team | None = None

    def own(
        self, source: Iterator[Batch | PackedBatch], models: Mapping[Which, Classifier]
    ) -> Iterator[Batch | PackedBatch]:
        """Yield the batches that this process computes; in the leader, show lenses those of the others in their turn.

        The lenses therefore see all batches in the order of a single process, and what they add up is the same to the
        bit.
        """
        team = self.team
        for number, batch in enumerate(source):
            owner = 0 if team is None else number % team.size
            if team is None or owner == team.rank:
                yield batch
            if team is None or owner == 0:
                continue
            if team.rank == 0:
                _show(team.hear(owner), batch, models, self.lenses)
                self.task.advance(len(models) * len(batch.row_ids))
            elif owner == team.rank:
                for lens in self.lenses:
                    assert isinstance(lens, Recorder)
                    team.answer(lens.sent())


def _show(
    seen: Sequence[tuple[Which, Site, torch.Tensor]],
    batch: Batch | PackedBatch,
    models: Mapping[Which, Classifier],
    lenses: Sequence[ReadingLens],
) -> None:
    """Show the lenses what another process computed of one batch."""
    mask, _ = mask_of(batch)
    wanted = {which: [(lens, set(lens.sites(model))) for lens in lenses] for which, model in models.items()}
    for which, site, value in seen:
        view = View(which, models[which], site, value, mask, batch.index, batch.row_ids, batch.labels)
        for lens, own in wanted[which]:
            if site in own:
                lens.update(view)


def sites_of(model: Classifier, lenses: Sequence[ReadingLens]) -> list[Site]:
    """Return every site that some lens needs of a model, in one order."""
    return sorted({site for lens in lenses for site in lens.sites(model)}, key=str)


class Recorder(ReadingLens):
    """Stands for the leader's lenses in another process: keeps what they would be shown of one batch."""

    def __init__(self, sites: dict[Which, list[Site]], side_by_side: bool, store: Path | None) -> None:
        self.wanted, self.side_by_side, self.store = sites, side_by_side, store
        self.tuned: Classifier | None = None
        self.seen: list[tuple[Which, Site, torch.Tensor]] = []

    @classmethod
    def of(cls, subject: Subject, lenses: Sequence[ReadingLens]) -> Recorder:
        """Return what asks of other processes for what the lenses need."""
        sites: dict[Which, list[Site]] = {
            "base": sites_of(subject.base, lenses),
            "tuned": sites_of(subject.tuned, lenses),
        }
        folder = None if subject.store is None else subject.store.folder
        return cls(sites, any(lens.side_by_side for lens in lenses), folder)

    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites that the leader's lenses need of a model."""
        return self.wanted["tuned" if model is self.tuned else "base"]

    def update(self, view: View) -> None:
        """Keep one activation until its batch is sent."""
        self.seen.append((view.which, view.site, view.activation.detach().cpu().clone()))

    def sent(self) -> list[tuple[Which, Site, torch.Tensor]]:
        """Return what was kept of a batch, and forget it."""
        kept, self.seen = self.seen, []
        return kept

    def table(self) -> pl.DataFrame:
        """Return nothing: the leader's lenses make the tables."""
        return pl.DataFrame()


def mask_of(batch: Batch | PackedBatch) -> tuple[torch.Tensor, Layout | None]:
    """Return the right-padded mask [B, T] of a batch, and the layout of its rows where it has no padding."""
    if isinstance(batch, Batch):
        return batch.attention_mask, None
    layout = Layout.of(batch.lengths)
    mask = padded_again(torch.ones_like(batch.input_ids), layout)
    return mask, layout
