"""Tokenised rows as the Trainer wants them: items by position, batches by our own collation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from tunescope.data.batches import collate
from tunescope.data.packed import longest_first, pack
from tunescope.data.tokens import Tokens
from tunescope.models.stored import StoredStates


class TokenRows(Dataset[int]):
    """Rows of :class:`Tokens`; an item is its position, and :meth:`collate` makes the batch.

    Args:
        tokens: The rows.

    Attributes:
        lengths: What the order of batches groups rows by, int64 [N].
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.lengths = tokens.kept

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, position: int) -> int:
        return int(position)

    def collate(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the model's inputs, padded to the longest row of the batch, with labels and positions."""
        batch = collate(self.tokens, np.asarray(positions, dtype=np.int64))
        return {**batch.inputs(), "labels": batch.labels, "positions": torch.as_tensor(batch.index)}


class PackedRows(TokenRows):
    """The same rows in batches without padding; nothing is gained by grouping lengths, so the order is random.

    Args:
        tokens: The rows.
    """

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens)
        self.lengths = np.ones(len(tokens), dtype=np.int64)

    def collate(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the model's inputs without padding, the longest row first, with labels and positions."""
        batch = pack(self.tokens, np.asarray(positions, dtype=np.int64))
        return {"labels": batch.labels, **batch.inputs(), "positions": torch.as_tensor(batch.index)}


class StoredRows(PackedRows):
    """The same rows as stored states before a block, in the same batches as :class:`PackedRows`.

    Args:
        tokens: The rows, for their labels and lengths.
        states: Their stored states, in the order of ``tokens``.
    """

    def __init__(self, tokens: Tokens, states: StoredStates) -> None:
        super().__init__(tokens)
        self.states = states

    def collate(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return states, lengths and depth for :class:`tunescope.models.prefix.FromStored`, labels, positions."""
        index = longest_first(self.tokens, positions)
        hidden, lengths = self.states.read(index)
        labels = torch.from_numpy(np.asarray(self.tokens.labels[index], dtype=np.int64))
        return {
            "labels": labels, "hidden": hidden, "lengths": lengths, "depth": self.states.depth,
            "positions": torch.as_tensor(index),
        }  # fmt: skip


class FeatureRows(TokenRows):
    """The same rows with their pooled features instead of token ids.

    Args:
        tokens: The rows, for their labels and lengths (which give the same order of batches).
        features: Pooled vectors, [N, D]; where windows slide, of every window, [W, D] in order of rows.
        grouped: Whether batches group rows of about equal length, as training on tokens would.
    """

    def __init__(self, tokens: Tokens, features: np.ndarray, grouped: bool = True) -> None:
        super().__init__(tokens)
        if not grouped:
            self.lengths = np.ones(len(tokens), dtype=np.int64)
        self.features = torch.as_tensor(features)
        self.labels = torch.as_tensor(tokens.labels)
        self.n_windows = tokens.n_windows
        self.ends = np.cumsum(self.n_windows)

    def collate(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return features, labels and positions of a batch."""
        index = torch.as_tensor(list(positions), dtype=torch.long)
        batch = {"labels": self.labels[index], "positions": index}
        if len(self.features) == len(self):
            return {"features": self.features[index], **batch}
        windows = [np.arange(self.ends[p] - self.n_windows[p], self.ends[p]) for p in positions]
        row_of = torch.as_tensor(np.repeat(np.arange(len(index)), self.n_windows[index.numpy()]))
        return {
            "features": self.features[torch.as_tensor(np.concatenate(windows))],
            "row_of": row_of,
            **batch,
        }


def token_counts(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many real tokens a batch of any kind holds, and how many places went through the model.

    Features that were computed before training count as no token and no place.
    """
    if "lengths" in inputs:
        real = int(inputs["lengths"].sum())
        return real, real
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum()), int(inputs["attention_mask"].numel())
    return 0, 0


class LongestFirst(Sampler[int]):
    """Every position once, longest row first, so that evaluation batches hold rows of about equal length."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.order = np.argsort(-lengths, kind="stable")

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order.tolist())


def label_problem(tokens: Tokens, what: str) -> str | None:
    """Say in words why rows cannot be trained on, or None."""
    if len(tokens) == 0:
        return f"There are no {what} rows."
    missing = int((tokens.labels < 0).sum())
    return f"{missing} of {len(tokens)} {what} rows have no label." if missing else None
