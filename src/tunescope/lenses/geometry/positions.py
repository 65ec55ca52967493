"""Which position of a text stands for it: the classifier's own pooling, another one, or any position."""

from __future__ import annotations

import torch

from tunescope.errors import LensError
from tunescope.lenses.reading import View
from tunescope.models.heads import Pooling, pool

Position = Pooling | int | None
DESCRIPTION = (
    "null for the classifier's own pooling, or last, first, mean, or a position: from 0, or from -1 backwards, counted "
    "over real tokens"
)


def pooled_at(view: View, position: Position) -> torch.Tensor:
    """Return one vector a row, [B, D], of one site's activation.

    Args:
        view: The site, with its right-padded mask.
        position: As :data:`DESCRIPTION` says.

    Raises:
        LensError: A row has no such position; its id is named.
    """
    if position is None:
        return view.model.pool(view.activation, view.attention_mask)
    if isinstance(position, str):
        return pool(view.activation, view.attention_mask, position)
    lengths = view.attention_mask.sum(dim=1)
    places = torch.full_like(lengths, position) if position >= 0 else lengths + position
    short = torch.nonzero((places < 0) | (places >= lengths)).reshape(-1).tolist()
    if short:
        row = short[0]
        raise LensError(
            f"Row {view.row_ids[row]!r} has {int(lengths[row])} tokens, and so no position {position}; so have "
            f"{len(short)} rows of its batch.",
            hint="Choose a position that every row has, such as 0 or -1.",
        )
    rows = torch.arange(len(places), device=view.activation.device)
    return view.activation[rows, places.to(view.activation.device)]
