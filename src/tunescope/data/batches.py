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
    """Rows padded to the longest of them; S = B sequences, or more where windows slide.

    Attributes:
        input_ids: int64 [S, T].
        attention_mask: int64 [S, T], 1 for tokens and 0 for padding.
        token_type_ids: int64 [S, T], or None.
        labels: int64 [B], -1 = unlabelled.
        row_ids: Ids [B].
        index: Positions in the Tokens, int64 [B]; on the CPU.
        row_of: The row (0 to B - 1) that each sequence belongs to, int64 [S], in order; None where every row is
            one sequence.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None
    labels: torch.Tensor
    row_ids: list[str]
    index: np.ndarray
    row_of: torch.Tensor | None = None

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
            row_of=None if self.row_of is None else self.row_of.to(device),
        )

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the arguments of a classifier's ``forward``; segment ids and ``row_of`` where they exist."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = self.token_type_ids
        if self.row_of is not None:
            inputs["row_of"] = self.row_of
        return inputs


def collate(tokens: Tokens, index: np.ndarray | Sequence[int]) -> Batch:
    """Pad the rows at ``index``, with all their windows, on the right to the longest of them.

    Raises:
        DataError: ``index`` is empty.
    """
    import torch

    index = np.asarray(index, dtype=np.int64)
    if not len(index):
        raise DataError("A batch needs at least one row.", hint="Check that the split has rows.")
    rows, types, row_of = sequences(tokens, index)
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), tokens.pad_id, dtype=np.int64)  # [S, T]
    mask = np.zeros((len(rows), width), dtype=np.int64)
    segments = None if types is None else np.zeros((len(rows), width), dtype=np.int64)
    for s, row in enumerate(rows):
        ids[s, : len(row)] = row
        mask[s, : len(row)] = 1
        if segments is not None and types is not None:
            segments[s, : len(row)] = types[s]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        None if segments is None else torch.from_numpy(segments),
        torch.from_numpy(np.asarray(tokens.labels[index], dtype=np.int64)),
        [tokens.row_ids[i] for i in index],
        index,
        None if row_of is None else torch.from_numpy(row_of),
    )


def sequences(
    tokens: Tokens, index: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray] | None, np.ndarray | None]:
    """Return token ids and segment ids of every sequence of these rows, and whose they are."""
    windows, types = tokens.windows, tokens.token_type_ids
    if windows is None or all(len(windows[i]) == 1 for i in index):
        return (
            [tokens.input_ids[i] for i in index],
            None if types is None else [types[i] for i in index],
            None,
        )
    rows = [window for i in index for window in windows[i]]
    inner = tokens.window_types
    segments = None if inner is None else [window for i in index for window in inner[i]]
    return rows, segments, np.repeat(np.arange(len(index)), [len(windows[i]) for i in index])


def batches(
    tokens: Tokens, max_tokens: int = 8192, max_rows: int = 64, window: int | None = None
) -> Iterator[Batch]:
    """Yield every row exactly once, in batches of about equal length, the longest rows first.

    Args:
        tokens: The rows.
        max_tokens: The most tokens of a batch, padding included; a longer row makes a batch alone, with all its
            windows.
        max_rows: The most rows of a batch.
        window: Sort only within this many consecutive rows, and finish one window before the next, so that
            statistics over fixed blocks of rows need not hold more than one; None sorts all rows.
    """
    lengths, n_windows = tokens.kept, tokens.n_windows
    for start in range(0, len(tokens), window or max(len(tokens), 1)):
        stop = min(len(tokens), start + (window or len(tokens)))
        order = start + np.argsort(-lengths[start:stop], kind="stable")
        first = 0
        while first < len(order):
            longest = max(int(lengths[order[first]]), 1)
            places = np.cumsum(n_windows[order[first : first + max_rows]])
            size = max(1, int(np.searchsorted(places, max_tokens // longest, side="right")))
            yield collate(tokens, order[first : first + size])
            first += size
