"""Tokenised rows as the Trainer wants them: items by position, batches by our own collation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from tunescope.data.batches import collate
from tunescope.data.tokens import Tokens


class TokenRows(Dataset[int]):
    """Rows of :class:`Tokens`; an item is its position, and :meth:`collate` makes the batch.

    Args:
        tokens: The rows.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.lengths = tokens.kept

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, position: int) -> int:
        return int(position)

    def collate(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the model's inputs, padded to the longest row of the batch, with labels and positions."""
        batch = collate(self.tokens, np.asarray(positions, dtype=np.int64))
        return {**batch.inputs(), "labels": batch.labels, "positions": torch.as_tensor(batch.index)}


class FeatureRows(TokenRows):
    """The same rows with their pooled features instead of token ids.

    Args:
        tokens: The rows, for their labels and lengths (which give the same order of batches).
        features: Pooled vectors, [N, D].
    """

    def __init__(self, tokens: Tokens, features: np.ndarray) -> None:
        super().__init__(tokens)
        self.features = torch.as_tensor(features)
        self.labels = torch.as_tensor(tokens.labels)

    def collate(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return features, labels and positions of a batch."""
        index = torch.as_tensor(list(positions), dtype=torch.long)
        return {"features": self.features[index], "labels": self.labels[index], "positions": index}


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
