"""Which rows of a batch hold a NaN or an infinity at a site: what must be said instead of a number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

SHOWN = 5


def not_finite_rows(
    value: torch.Tensor, attention_mask: torch.Tensor | None, row_ids: Sequence[str]
) -> str | None:
    """Say which rows of an activation are not finite, or return None.

    Args:
        value: [B, T, ...], or [B, ...] where there is no mask.
        attention_mask: Real tokens, [B, T]; what stands at padding does not count. None for one vector a row.
        row_ids: Ids of the B rows.
    """
    # A sum is finite only where all of it is, and takes a tenth of the time; where it is not, it may have overflowed.
    if bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all()):
        return None
    start = 1 if attention_mask is None else 2
    bad = ~torch.isfinite(value).flatten(start).all(-1) if value.dim() > start else ~torch.isfinite(value)
    if attention_mask is not None:
        bad = (bad & attention_mask.bool()).any(1)
    rows = [row_ids[index] for index in bad.nonzero()[:, 0].tolist()]
    if not rows:
        return None
    more = "" if len(rows) <= SHOWN else ", ..."
    return f"{len(rows)} of {len(row_ids)} rows of a batch: {', '.join(rows[:SHOWN])}{more}"
