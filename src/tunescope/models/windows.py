"""From the logits of a row's windows to the logits of the row."""

from __future__ import annotations

import torch


def mean_by_row(values: torch.Tensor, row_of: torch.Tensor | None) -> torch.Tensor:
    """Average what was computed for each sequence over the sequences of a row.

    The mean of logits is the logit of a geometric mean of the windows' probabilities, normalised anew. A row of
    one sequence keeps its value exactly.

    Args:
        values: One vector a sequence, [S, C].
        row_of: The row of each sequence, int64 [S], ascending from 0 without gaps; None means that every
            sequence is a row.

    Returns:
        One vector a row, [B, C].
    """
    if row_of is None:
        return values
    counts = torch.bincount(row_of)  # [B]
    sums = values.new_zeros(len(counts), *values.shape[1:]).index_add(0, row_of, values)
    return sums / counts.unsqueeze(-1).to(values.dtype)
