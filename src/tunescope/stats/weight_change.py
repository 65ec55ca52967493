"""How one matrix became another: size and rank of the update, turned subspaces, intruder dimensions.

Everything here is exact linear algebra of two matrices, in float64: no rows are drawn, so there is no sampling error.
What a number has to be held against is an update of the same size without any structure
(:func:`unstructured_update`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunescope.errors import LensError


@dataclass(frozen=True)
class Spectrum:
    """Singular values of an update, and what they say.

    Attributes:
        values: Singular values, falling, `[min(rows, columns)]`.
        frobenius: Frobenius norm.
        spectral: The greatest singular value.
        stable_rank: `frobenius^2 / spectral^2`, 1 to the rank: how many directions share the size of the update
            (Rudelson and Vershynin 2007). NaN for an update of zero.
        effective_rank: `exp(entropy of the values, scaled to sum to 1)`, 1 to the rank (Roy and Vetterli 2007). NaN
            for an update of zero.
    """

    values: np.ndarray
    frobenius: float
    spectral: float
    stable_rank: float
    effective_rank: float

    def rank(self, tolerance: float) -> int:
        """Return how many singular values lie above ``tolerance``."""
        return int((self.values > tolerance).sum())


def spectrum_of(values: np.ndarray) -> Spectrum:
    """Return what singular values say.

    Args:
        values: Singular values, in any order.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    spectral = float(ordered[0]) if len(ordered) else 0.0
    if spectral == 0.0:
        return Spectrum(ordered, 0.0, 0.0, float("nan"), float("nan"))
    squares = float((ordered**2).sum())
    shares = ordered[ordered > 0] / ordered.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    return Spectrum(ordered, squares**0.5, spectral, squares / spectral**2, float(np.exp(entropy)))


def spectrum(update: np.ndarray) -> Spectrum:
    """Return singular values, size and rank of an update.

    Args:
        update: `[rows, columns]`.

    Raises:
        LensError: A number is NaN or infinite.
    """
    return spectrum_of(np.linalg.svd(_finite(update), compute_uv=False))


def low_rank_spectrum(left: np.ndarray, right: np.ndarray) -> Spectrum:
    """Return the spectrum of `left @ right` from the two factors alone, without rounding by the product.

    Args:
        left: `[rows, r]`.
        right: `[r, columns]`.

    Raises:
        LensError: A number is NaN or infinite.
    """
    _, upper = np.linalg.qr(_finite(left))
    _, lower = np.linalg.qr(_finite(right).T)
    return spectrum_of(np.linalg.svd(upper @ lower.T, compute_uv=False))


@dataclass(frozen=True)
class Turn:
    """How the singular vectors of a matrix moved.

    Attributes:
        angles: Principal angles in radians between the spans of the `k` leading left singular vectors before and
            after, rising, `[k]`; 0: the same span, pi/2: at right angles (Björck and Golub 1973).
        best_cosine: For each of the `k` leading left singular vectors after: the greatest absolute cosine with any
            left singular vector before, `[k]`.
    """

    angles: np.ndarray
    best_cosine: np.ndarray

    def intruders(self, threshold: float) -> int:
        """Return how many leading vectors after are like none before: best cosine below the threshold.

        The name and the count are from Shuttleworth et al. 2024 (arXiv 2410.21228).
        """
        return int((self.best_cosine < threshold).sum())


def turn(before: np.ndarray, after: np.ndarray, k: int) -> Turn:
    """Return how the leading left singular vectors turned from one matrix to the other.

    Args:
        before: `[rows, columns]`.
        after: The same shape.
        k: How many leading vectors; at most the lesser side of the matrix.

    Raises:
        LensError: The shapes differ, or a number is NaN or infinite.
    """
    if before.shape != after.shape:
        raise LensError(f"Weights of shape {before.shape} and {after.shape} cannot be compared.")
    left, _, _ = np.linalg.svd(_finite(before), full_matrices=False)
    right, _, _ = np.linalg.svd(_finite(after), full_matrices=False)
    k = min(k, left.shape[1])
    overlap = np.abs(left.T @ right[:, :k])  # [all before, k after]
    # acos loses half of the digits near 1, so small angles are taken from their sines.
    residual = right[:, :k] - left[:, :k] @ (left[:, :k].T @ right[:, :k])
    sines = np.sort(np.linalg.svd(residual, compute_uv=False))
    return Turn(np.arcsin(np.clip(sines, 0.0, 1.0)), overlap.max(axis=0))


def intruder_curve(turned: Turn, thresholds: Sequence[float]) -> list[int]:
    """Return the number of intruders at each threshold; it never falls as the threshold rises."""
    return [turned.intruders(threshold) for threshold in thresholds]


def unstructured_update(update: np.ndarray, seed: int) -> np.ndarray:
    """Return independent Gaussian entries of the same shape and the same Frobenius norm: the control of an update."""
    noise = np.random.default_rng(seed).standard_normal(update.shape)
    return np.asarray(noise * (np.linalg.norm(update) / np.linalg.norm(noise)))


def rounding(matrix: np.ndarray) -> float:
    """Return the singular value below which an update of a float32 matrix is rounding.

    A matrix stored in float32 rounds each entry by up to half a unit in the last place; independent errors of that
    size in `m x n` entries have a spectral norm of about `(sqrt(m) + sqrt(n))` times their standard deviation
    (Davidson and Szarek 2001). Twice that bound leaves room for both sides having been rounded.
    """
    rows, columns = matrix.shape
    unit = float(np.finfo(np.float32).eps) * float(np.abs(matrix).max(initial=0.0)) / 12**0.5
    return 2.0 * unit * (rows**0.5 + columns**0.5)


def _finite(matrix: np.ndarray) -> np.ndarray:
    values = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(values).all():
        raise LensError("A weight matrix holds numbers that are NaN or infinite.")
    return values
