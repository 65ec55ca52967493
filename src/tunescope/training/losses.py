"""What a training minimises: weighted, smoothed, logit-adjusted cross entropy, and the variance term.

Every loss here is a sum over rows divided by one number for the whole step, so that a step may be cut into any
micro-batches and its gradient stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class ClassLoss:
    """Cross entropy over classes, with weights, label smoothing and logit adjustment.

    With class weights ``w`` and smoothing ``e`` a row of class ``y`` and log-probabilities ``l`` costs
    ``-(1 - e) w_y l_y - (e / C) sum_c w_c l_c``, and a step costs the sum over its rows by the sum of their
    ``w_y``: torch's own weighted mean. With logit adjustment (Menon et al. 2021, "Long-tail learning via logit
    adjustment", equation 10) the probabilities are those of ``logits + tau log(share)``, with the shares of the
    classes in the train rows; predictions use the plain logits.

    Attributes:
        weights: One number a class, [C], or None.
        adjustment: What is added to the logits while training, [C], or None.
        smoothing: Label smoothing, 0 to below 1.
    """

    weights: torch.Tensor | None = None
    adjustment: torch.Tensor | None = None
    smoothing: float = 0.0

    def mass(self, labels: torch.Tensor) -> torch.Tensor | int:
        """Return what the rows of these labels [B] weigh together: their number where there are no weights."""
        if self.weights is None:
            return len(labels)
        return self.weights.to(labels.device)[labels].sum()

    def total(self, logits: torch.Tensor, labels: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        """Return the loss of logits [B, C] under labels [B], summed, or a row each (``reduction="none"``)."""
        if self.adjustment is not None:
            logits = logits + self.adjustment.to(logits)
        weights = None if self.weights is None else self.weights.to(logits)
        return functional.cross_entropy(
            logits, labels, weights, reduction=reduction, label_smoothing=self.smoothing
        )


@dataclass(frozen=True)
class Moments:
    """Number, mean and variance of pooled vectors; two of them can be added.

    Attributes:
        n: Number of vectors.
        mean: float64 [D].
        variance: Divided by n, float64 [D].
    """

    n: int
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, pooled: torch.Tensor) -> Moments:
        """Return the moments of vectors [n, D]."""
        values = pooled.detach().double()
        return cls(len(values), values.mean(0), values.var(0, correction=0))

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        apart = other.mean - self.mean
        share = other.n / n
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * apart**2
        return Moments(n, self.mean + share * apart, variance)

    def share(self, dimensions: torch.Tensor) -> torch.Tensor:
        """Return the share of all variance that ``dimensions`` hold, 0 to 1; 0 where nothing varies."""
        total = self.variance.sum()
        return self.variance[dimensions].sum() / total if total > 0 else total


def variance_share(pooled: torch.Tensor, dimensions: torch.Tensor) -> torch.Tensor:
    """Return ``s = sum_{d in S} v_d / sum_d v_d``, the share of variance of chosen dimensions.

    ``v_d`` is the variance over rows of dimension d of the pooled vectors. A *rogue* dimension (Timkey and van
    Schijndel 2021; Rudman et al. 2023) holds a large share alone. The training loss gains
    ``-weight * s`` to encourage, ``+weight * s`` to discourage. The share does not change when all vectors are
    scaled, so the term cannot be met by growing or shrinking them.

    Args:
        pooled: Vectors, [n, D].
        dimensions: Chosen dimensions S, int64.

    Returns:
        A number from 0 to 1, with its gradient.
    """
    variance = pooled.var(0, correction=0)
    return variance[dimensions].sum() / variance.sum()


@dataclass(frozen=True)
class VarianceLoss:
    """The variance term of a step, from its moments and any part of its rows.

    Attributes:
        dimensions: Chosen dimensions, int64.
        weight: Signed: below 0 encourages variance there, above 0 discourages it.
    """

    dimensions: torch.Tensor
    weight: float

    def part(self, pooled: torch.Tensor, step: Moments) -> torch.Tensor:
        """Return what some rows of a step contribute to its term.

        The parts of a step sum to ``weight * s``, and their gradients are those of the whole:
        ``ds / dh_d = 2 (h_d - mean_d) ([d in S] - s) / (n V)`` with V the sum of all variances.

        Args:
            pooled: Vectors of these rows, [B, D], with their graph.
            step: Moments of all rows of the step.
        """
        total, share = step.variance.sum(), step.share(self.dimensions.to(step.mean.device))
        if total <= 0:
            return pooled.new_zeros((), dtype=torch.float32)
        chosen = torch.zeros_like(step.mean)
        chosen[self.dimensions.to(chosen.device)] = 1.0
        values = pooled.detach().double()
        gradient = 2 * (values - step.mean) * (chosen - share) / (step.n * total)
        carried = (gradient.to(pooled.dtype) * pooled).sum().float()
        return self.weight * (carried - carried.detach() + (share * len(pooled) / step.n).float())
