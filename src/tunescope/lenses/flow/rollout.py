"""Attention rollout: how far each input token can reach a place through all layers' attention.

Abnar and Zuidema 2020 (arXiv 2005.00928): with `A_l` the mean over heads of layer l's pattern and the residual stream
weighted as much as attention,

    R_l = (r I + (1 - r) A_l) R_{l-1},    R_{-1} = I,    r = 0.5,

so that rows of `R_l` sum to 1 and `R_l[q, k]` is the share of token k at place q behind layer l. It knows attention and
the residual stream alone: neither what values hold, nor what MLPs and norms do.
"""

from __future__ import annotations

import torch

from tunescope.errors import LensError

RESIDUAL = 0.5


class Rollout:
    """Rolls attention out block by block; holds one product, [B, T, T].

    Args:
        residual: Weight r of the residual stream, 0 to 1; 0.5 in the paper.
    """

    def __init__(self, residual: float = RESIDUAL) -> None:
        if not 0 <= residual <= 1:
            raise LensError(f"The residual stream's weight is 0 to 1, got {residual}.")
        self.residual = residual
        self.product: torch.Tensor | None = None

    def add(self, pattern: torch.Tensor) -> torch.Tensor:
        """Take the next layer's pattern and return the rollout behind it.

        Args:
            pattern: [B, H, T, T]; rows sum to 1 over visible keys.

        Returns:
            [B, T, T]; rows of real tokens sum to 1.
        """
        mean = pattern.mean(1)
        kind = mean.dtype if mean.dtype in (torch.float32, torch.float64) else torch.float32
        mixed = mean.to(kind) * (1 - self.residual)
        mixed.diagonal(dim1=-2, dim2=-1).add_(self.residual)
        self.product = mixed if self.product is None else mixed @ self.product
        return self.product


def rollout(patterns: list[torch.Tensor], residual: float = RESIDUAL) -> torch.Tensor:
    """Return the rollout behind the last of the layers' patterns, [B, T, T].

    Raises:
        LensError: There are no patterns, or the weight is outside 0 to 1.
    """
    rolled = Rollout(residual)
    for pattern in patterns:
        rolled.add(pattern)
    if rolled.product is None:
        raise LensError("A rollout needs the attention pattern of one layer or more.")
    return rolled.product
