"""Right-padded batches of rows of about equal length; ids travel with every batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tunescope.data.tokens import Tokens
from tunescope.errors import DataError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T], 1 for tokens and 0 for padding.
        token_type_ids: int64 [B, T], or None.
        labels: int64 [B], -1 = unlabelled.
        row_ids: Ids [B].
        index: Positions in the Tokens, int64 [B]; on the CPU.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None
    labels: torch.Tensor
    row_ids: list[str]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.row_ids)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        types = self.token_type_ids
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            token_type_ids=None if types is None else types.to(device),
            labels=self.labels.to(device),
        )

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the arguments of a classifier's ``forward``; ``token_type_ids`` only where they exist."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        return inputs


def collate(tokens: Tokens, index: np.ndarray | Sequence[int]) -> Batch:
    """Pad the rows at ``index`` on the right to the longest of them.

    Raises:
        DataError: ``index`` is empty.
    """
    import torch

    index = np.asarray(index, dtype=np.int64)
    if not len(index):
        raise DataError("A batch needs at least one row.", hint="Check that the split has rows.")
    rows = [tokens.input_ids[i] for i in index]
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), tokens.pad_id, dtype=np.int64)  # [B, T]
    mask = np.zeros((len(rows), width), dtype=np.int64)
    types = None if tokens.token_type_ids is None else np.zeros((len(rows), width), dtype=np.int64)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = row
        mask[b, : len(row)] = 1
        if types is not None and tokens.token_type_ids is not None:
            types[b, : len(row)] = tokens.token_type_ids[index[b]]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        None if types is None else torch.from_numpy(types),
        torch.from_numpy(np.asarray(tokens.labels[index], dtype=np.int64)),
        [tokens.row_ids[i] for i in index],
        index,
    )


def batches(
    tokens: Tokens, max_tokens: int = 8192, max_rows: int = 64, window: int | None = None
) -> Iterator[Batch]:
    """Yield every row exactly once, in batches of about equal length, the longest rows first.

    Args:
        tokens: The rows.
        max_tokens: The most tokens of a batch, padding included; a longer row makes a batch alone.
        max_rows: The most rows of a batch.
        window: Sort only within this many consecutive rows, and finish one window before the next, so that
            statistics over fixed blocks of rows need not hold more than one; None sorts all rows.
    """
    lengths = tokens.kept
    for start in range(0, len(tokens), window or max(len(tokens), 1)):
        stop = min(len(tokens), start + (window or len(tokens)))
        order = start + np.argsort(-lengths[start:stop], kind="stable")
        first = 0
        while first < len(order):
            longest = max(int(lengths[order[first]]), 1)
            size = max(1, min(max_rows, max_tokens // longest))
            yield collate(tokens, order[first : first + size])
            first += size
