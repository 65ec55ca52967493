"""What a lens looks at: one arm's model before and after tuning, on the same rows and the same tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.models.classifier import Classifier
from tunescope.models.store import ActivationStore
from tunescope.progress import SILENT, Progress

Which = Literal["base", "tuned"]
Split = Literal["train", "validation", "test"]


class LensRows(BaseModel):
    """Which rows a lens looks at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: Split = Field(default="validation", description="the split to look at: train, validation or test")
    n: int = Field(default=256, ge=4, description="how many rows at most, drawn evenly by class: 4 or more")

    def prepared(self, subject: Subject, tokens: Tokens) -> Tokens:
        """Return the drawn rows as they are looked at; a kind of rows that puts them differently says how."""
        return tokens


@dataclass
class Subject:
    """One arm and seed, before and after tuning.

    Attributes:
        arm: Name of the arm, or of the tuned checkpoint.
        seed: The training's seed; None for a checkpoint from elsewhere.
        base: The model before tuning, under its base head.
        tuned: The model after tuning.
        base_head: Where the base's logits come from: ``probe``, ``tuned``, or ``none`` (it has none).
        splits: Tokens of every split, with row ids and labels.
        learned: Whether the tuned model clears the majority baseline; None where that is not known.
        sampling_seed: Seeds which rows are drawn and every random control.
        progress: Where to report.
        notes: What the reader of every result must know.
        identical: Base and tuned are one checkpoint, head included: there is no change to find.
        planted: Folder of a generated corpus whose truth is known; None for real data.
        texts: ``row_id`` and ``text`` of the rows, for lenses that rewrite them; None where they are not known.
        unfinished: Folder in which long sweeps keep what is done, to go on after an interruption; None keeps nothing.
        store: What trainings stored of frozen blocks; lenses that look at nothing before start there. None for none.
    """

    arm: str
    seed: int | None
    base: Classifier
    tuned: Classifier
    base_head: str
    splits: dict[str, Tokens]
    learned: bool | None = None
    sampling_seed: int = 0
    progress: Progress = SILENT
    notes: list[str] = field(default_factory=list)
    identical: bool = False
    planted: Path | None = None
    texts: pl.DataFrame | None = None
    unfinished: Path | None = None
    store: ActivationStore | None = None

    def model(self, which: Which) -> Classifier:
        """Return the model before (``base``) or after (``tuned``) tuning."""
        return self.base if which == "base" else self.tuned

    def models_with_logits(self) -> list[tuple[Which, Classifier]]:
        """Return the models whose logits mean something; the base drops out where its head is ``none``."""
        models: list[tuple[Which, Classifier]] = [("tuned", self.tuned)]
        return models if self.base_head == "none" else [("base", self.base), *models]

    def tokens(self, split: str) -> Tokens:
        """Return the rows of a split; where windows slide, the first window of each.

        Raises:
            LensError: There is no such split.
        """
        if split not in self.splits or len(self.splits[split]) == 0:
            have = ", ".join(name for name, tokens in self.splits.items() if len(tokens)) or "none"
            raise LensError(f"There are no {split} rows to look at; the splits with rows are: {have}.")
        return self.splits[split].first_windows()

    def draw(self, rows: LensRows, *, labelled: bool = True) -> Tokens:
        """Draw at most ``rows.n`` rows of a split, every class in proportion, in random order.

        Draw and order depend on the sampling seed and the row ids alone, not on the order of the file; a file that
        is sorted by class therefore gives blocks of rows that are not.

        Raises:
            LensError: There are no rows, or labels are needed and no row has one.
        """
        tokens = self.tokens(rows.split)
        known = np.flatnonzero(tokens.labels >= 0) if labelled else np.arange(len(tokens))
        if len(known) == 0:
            raise LensError(
                f"No {rows.split} row has a label, so no effect on the true class can be measured."
            )
        order = np.array(sorted(known, key=lambda i: _hash(self.sampling_seed, tokens.row_ids[i])))
        if len(order) <= rows.n:
            return rows.prepared(self, tokens.take(order))
        labels = tokens.labels[order]
        quota = _quota(np.array([(labels == c).sum() for c in np.unique(labels)]), rows.n)
        picked = [order[labels == c][:k] for c, k in zip(np.unique(labels), quota, strict=True)]
        kept = set(np.concatenate(picked).tolist())
        return rows.prepared(self, tokens.take(np.array([index for index in order if index in kept])))

    @property
    def same_trunk(self) -> bool:
        """Whether tuning left every weight of the trunk as it was."""
        ours, theirs = self.base.trunk.state_dict(), self.tuned.trunk.state_dict()
        shared = [name for name in ours if not name.startswith("pooler.")]
        return all(name in theirs and torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in shared)


def _quota(counts: np.ndarray, n: int) -> np.ndarray:
    """Split ``n`` over classes in proportion by largest remainders; every class gets at least one row."""
    exact = counts * n / counts.sum()
    quota = np.maximum(np.floor(exact).astype(int), 1)
    for index in np.argsort(np.floor(exact) - exact)[: max(0, n - int(quota.sum()))]:
        quota[index] += 1
    return np.minimum(quota, counts)


def _hash(seed: int, row_id: str) -> bytes:
    return blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()


def clusters(tokens: Tokens) -> np.ndarray:
    """Return a group number a row: rows with equal tokens share one, so that intervals are clustered by text."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(np.asarray(ids).tobytes(), len(seen)) for ids in tokens.input_ids])
