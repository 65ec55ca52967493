"""Which tokens a patch replaces: all of them, those in which two texts differ, those before or after, or one."""

from __future__ import annotations

import torch

from tunescope.capture.stored import pooled_place
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier

REGIONS = ("all", "before", "at", "after", "pooled")


def changed_tokens(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return where two texts of equal length differ, [B, T]: true from the first token that differs to the last."""
    differs = first != second
    begun = differs.cumsum(1) > 0
    return begun & (differs.flip(1).cumsum(1) > 0).flip(1)


def positions_mask(
    model: Classifier, positions: str | int, changed: torch.Tensor | None, shape: tuple[int, int]
) -> torch.Tensor:
    """Return which tokens a patch replaces, bool [B, T].

    Args:
        model: The classifier; its pooling says which token is ``pooled``.
        positions: As in :class:`~tunescope.capture.patch.PatchPlace`.
        changed: From :func:`changed_tokens`; needed by ``before``, ``at`` and ``after`` alone.
        shape: (B, T).

    Raises:
        SiteError: A number lies outside the rows, or nothing says which tokens differ.
    """
    rows, length = shape
    device = model.device
    everywhere = torch.ones(rows, length, dtype=torch.bool, device=device)
    if positions == "all":
        return everywhere
    if positions == "pooled" or isinstance(positions, int):
        place = pooled_place(model, length) if positions == "pooled" else int(positions)
        if place is None or not -length <= place < length:
            raise SiteError(
                f"Position {positions} is outside rows of {length} tokens; expected {-length} to {length - 1}."
            )
        chosen = torch.zeros_like(everywhere)
        chosen[:, place] = True
        return chosen
    if changed is None:
        raise SiteError(f"Positions {positions!r} need two texts that differ; it is not known where they do.")
    if positions == "at":
        return changed
    begun = changed.cumsum(1) > 0
    return ~begun if positions == "before" else begun & ~changed
