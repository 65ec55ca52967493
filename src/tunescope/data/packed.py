"""Batches without padding: the real tokens of all rows in one line, and how many belong to each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tunescope.data.batches import sequences
from tunescope.data.tokens import Tokens
from tunescope.errors import DataError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PackedBatch:
    """Rows one after another, longest first, with nothing between them; S = B sequences, or more with windows.

    Attributes:
        input_ids: int64 [1, T], T the tokens of all sequences together.
        lengths: Tokens of each sequence, int64 [S]; they sum to T. On the CPU.
        token_type_ids: int64 [1, T], or None.
        labels: int64 [B], -1 = unlabelled.
        row_ids: Ids [B].
        index: Positions in the Tokens, int64 [B]; on the CPU.
        row_of: The row (0 to B - 1) that each sequence belongs to, int64 [S]; None where every row is one.
    """

    input_ids: torch.Tensor
    lengths: torch.Tensor
    token_type_ids: torch.Tensor | None
    labels: torch.Tensor
    row_ids: list[str]
    index: np.ndarray
    row_of: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.row_ids)

    def to(self, device: torch.device | str) -> PackedBatch:
        """Return the batch with its tensors on ``device``; lengths stay on the CPU, where they are read."""
        types = self.token_type_ids
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            token_type_ids=None if types is None else types.to(device),
            labels=self.labels.to(device),
            row_of=None if self.row_of is None else self.row_of.to(device),
        )

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the arguments of a classifier's ``forward``; segment ids and ``row_of`` where they exist."""
        inputs = {"input_ids": self.input_ids, "lengths": self.lengths}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        if self.row_of is not None:
            inputs["row_of"] = self.row_of
        return inputs


def pack(tokens: Tokens, index: np.ndarray | Sequence[int]) -> PackedBatch:
    """Put the rows at ``index`` one after another, the longest first, so that equal lengths stand together.

    Raises:
        DataError: ``index`` is empty.
    """
    import torch

    index = longest_first(tokens, index)
    rows, types, row_of = sequences(tokens, index)
    joined = None if types is None else np.concatenate(types).astype(np.int64)
    return PackedBatch(
        torch.from_numpy(np.concatenate(rows).astype(np.int64))[None],
        torch.tensor([len(row) for row in rows]),
        None if joined is None else torch.from_numpy(joined)[None],
        torch.from_numpy(np.asarray(tokens.labels[index], dtype=np.int64)),
        [tokens.row_ids[i] for i in index],
        index,
        None if row_of is None else torch.from_numpy(row_of),
    )


def longest_first(tokens: Tokens, index: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return the positions ``index`` sorted by falling length, equal lengths in the order given, int64 [B].

    Raises:
        DataError: ``index`` is empty.
    """
    index = np.asarray(index, dtype=np.int64)
    if not len(index):
        raise DataError("A batch needs at least one row.", hint="Check that the split has rows.")
    lengths = np.array([len(tokens.input_ids[i]) for i in index])
    return index[np.argsort(-lengths, kind="stable")]


def packed_batches(
    tokens: Tokens, max_tokens: int = 8192, max_rows: int = 64, window: int | None = None
) -> Iterator[PackedBatch]:
    """Yield every row exactly once in batches without padding, the longest rows first.

    Args:
        tokens: The rows.
        max_tokens: The most tokens of a batch; a longer row makes a batch alone, with all its windows.
        max_rows: The most rows of a batch.
        window: Sort only within this many consecutive rows, and finish one window before the next; None sorts
            all rows.
    """
    lengths, seen = tokens.kept, tokens.seen
    for start in range(0, len(tokens), window or max(len(tokens), 1)):
        stop = min(len(tokens), start + (window or len(tokens)))
        order = start + np.argsort(-lengths[start:stop], kind="stable")
        first = 0
        while first < len(order):
            room = np.cumsum(seen[order[first : first + max_rows]]) <= max_tokens
            size = max(1, int(room.sum()))
            yield pack(tokens, order[first : first + size])
            first += size
