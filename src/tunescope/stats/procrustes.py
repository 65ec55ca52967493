"""Orthogonal Procrustes: how far one representation can be rotated onto another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64, as_floats
from tunescope.stats.kernels import MINIMUM_ROWS, NOISE, Estimate, near_one

METHOD = "orthogonal Procrustes"


class CrossCovariance:
    """The cross-covariance of two sites over the same rows, streamed; its size does not grow with the rows.

    Attributes:
        widths: D and E.
        count: How many rows were seen.
        means: `[D]` and `[E]`.
        products: `[D, E]`, the sum of centred outer products.
        squares: Sums of squared distances from the mean, of both sites.
        noise: What rounding alone could make of them.
    """

    def __init__(self, widths: tuple[int, int]) -> None:
        self.widths = widths
        self.count = 0
        self.means = [np.zeros(width) for width in widths]
        self.products = np.zeros(widths)
        self.squares = [0.0, 0.0]
        self.noise = [0.0, 0.0]

    def update(self, first: Any, second: Any) -> Self:
        """Add rows `[N, D]` and the same rows `[N, E]` of the other site, and return the state itself.

        Raises:
            LensError: A number is NaN or infinite.
            ValueError: The rows or widths do not fit.
        """
        given = [as_floats(values) for values in (first, second)]
        both = [as_float64(values) for values in given]
        expected = [(len(both[0]), width) for width in self.widths]
        if [values.shape for values in both] != expected:
            shapes = " and ".join(str(values.shape) for values in both)
            raise ValueError(f"expected the same rows of widths {self.widths}, found {shapes}")
        if not all(np.isfinite(values).all() for values in both):
            raise LensError("Procrustes: the features hold NaN or infinite numbers.")
        if len(both[0]):
            means = [values.mean(axis=0) for values in both]
            centred = [values - mean for values, mean in zip(both, means, strict=True)]
            noise = [
                (NOISE * float(np.finfo(raw.dtype).eps)) ** 2 * float((values**2).sum())
                for raw, values in zip(given, both, strict=True)
            ]
            squares = [float((values**2).sum()) for values in centred]
            self._merge(len(both[0]), means, centred[0].T @ centred[1], squares)
            self.noise = [a + b for a, b in zip(self.noise, noise, strict=True)]
        return self

    def _merge(self, count: int, means: list[np.ndarray], products: np.ndarray, squares: list[float]) -> None:
        if count == 0:
            return
        total = self.count + count
        share = self.count * count / total
        gaps = [theirs - ours for theirs, ours in zip(means, self.means, strict=True)]
        self.products = self.products + products + share * np.outer(*gaps)
        self.squares = [
            ours + theirs + share * float(gap @ gap)
            for ours, theirs, gap in zip(self.squares, squares, gaps, strict=True)
        ]
        self.means = [ours + gap * (count / total) for ours, gap in zip(self.means, gaps, strict=True)]
        self.count = total

    def __add__(self, other: Self) -> Self:
        if other.widths != self.widths:
            raise ValueError(f"cannot merge cross-covariances of widths {self.widths} and {other.widths}")
        merged = type(self)(self.widths)
        for part in (self, other):
            merged._merge(part.count, part.means, part.products, part.squares)
            merged.noise = [a + b for a, b in zip(merged.noise, part.noise, strict=True)]
        return merged

    def similarity(self) -> Estimate:
        """Return the nuclear norm of the cross-covariance over both norms, or why there is none.

        Raises:
            LensError: Fewer than 4 rows were seen.
        """
        if self.count < MINIMUM_ROWS:
            raise LensError(
                f"Procrustes similarity needs at least {MINIMUM_ROWS} rows; {self.count} were seen."
            )
        for squares, noise, name in zip(self.squares, self.noise, ("first", "second"), strict=True):
            if squares <= noise:
                return Estimate(float("nan"), f"the {name} features are constant")
        nuclear = np.linalg.svd(self.products, compute_uv=False).sum()
        return Estimate(float(near_one(nuclear / np.sqrt(self.squares[0] * self.squares[1]))))


@dataclass(frozen=True)
class Procrustes:
    """How well one representation can be rotated onto another.

    Attributes:
        similarity: From 0 to 1; 1 says equal up to rotation, shift and scale.
        residual: ``1 - similarity ** 2``: the share of the squared size that the best rotation, shift and scale leave
            (the disparity of ``scipy.spatial.procrustes``).
        undefined: None, or why both are NaN.
    """

    similarity: float
    residual: float
    undefined: str | None = None


def procrustes(first: Any, second: Any) -> Procrustes:
    """Return orthogonal Procrustes similarity of two representations of the same rows.

    ``|X'Y|_* / (|X| |Y|)`` of centred X and Y: the sum of the singular values of the cross-covariance (Schönemann
    1966), over the Frobenius norms. With fewer rows than dimensions a rotation always fits in part, so that unrelated
    inputs are well above 0; compare with what shuffled rows give.

    Args:
        first: `[n, D]` features, n at least 4.
        second: `[n, E]` features of the same rows in the same order; E need not be D.

    Raises:
        LensError: Fewer than 4 rows, or numbers that are not finite.
        ValueError: The row counts differ.
    """
    one, other = as_floats(first), as_floats(second)
    found = CrossCovariance((one.shape[1], other.shape[1])).update(one, other).similarity()
    return Procrustes(found.value, 1 - found.value**2, found.undefined)


def fewest_dimensions(features: np.ndarray) -> np.ndarray:
    """Return rows `[n, min(n, D)]` with the same inner products: what Procrustes and CKA need, and no more.

    Both depend on a representation only through the inner products of its rows, so with fewer rows than dimensions
    it can be rotated into n of them once, and every later product is smaller.
    """
    values = as_float64(features)
    if len(values) >= values.shape[1]:
        return values
    return np.asarray(np.linalg.qr(values.T, mode="r")).T
