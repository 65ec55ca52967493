"""Which tokens a patch replaces: all of them, those in which two texts differ, those before or after, or one."""

from __future__ import annotations

from collections.abc import Sequence

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


def require_equal_lengths(
    clean: torch.Tensor, corrupt: torch.Tensor, names: Sequence[str] | None = None
) -> None:
    """Refuse pairs of unequal length; masks are [B, T].

    Raises:
        SiteError: A pair differs in length; it is named.
    """
    ours, theirs = clean.sum(1), corrupt.sum(1)
    bad = (ours != theirs).nonzero().flatten().tolist() if len(ours) == len(theirs) else None
    if bad is None:
        raise SiteError(f"Patching needs pairs: came {len(ours)} clean and {len(theirs)} corrupted rows.")
    if bad:
        name = names[bad[0]] if names else bad[0]
        raise SiteError(
            f"Pair {name}: its texts have {int(ours[bad[0]])} and {int(theirs[bad[0]])} tokens; patching needs equal "
            f"lengths, so that every token has its counterpart ({len(bad)} of {len(ours)} pairs differ).",
            hint="Replace words by words of the same number of tokens, or leave these pairs out.",
        )
