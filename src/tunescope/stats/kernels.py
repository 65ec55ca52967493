"""Linear kernels, the Hilbert-Schmidt independence criterion, and linear CKA, as pure functions.

HSIC_0 is the biased estimate of Gretton et al. (2005), HSIC_1 the unbiased one of Song et al., *Feature
Selection via Dependence Maximization*, JMLR 13 (2012), equation 5. CKA is Kornblith et al. (2019). With more
dimensions than rows the biased CKA of two unrelated representations is near 1 (0.92 at 64 rows of 768
dimensions), so the unbiased one is the default everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64, as_floats

MINIMUM_ROWS = 4  # HSIC_1 divides by n - 3
NOISE = 8.0  # features that vary by less than so many roundings of their size are constant
KERNEL_NOISE = 64.0  # the same for a centred kernel, whose entries are sums of many rounded products
CERTAIN = 1e-12  # an estimate is not known better than this, so what is so near to 1 is 1


class Estimate(NamedTuple):
    """A number, or the reason why there is none.

    Attributes:
        value: The number; NaN exactly where ``undefined`` says why.
        undefined: None, or the reason.
    """

    value: float
    undefined: str | None = None


@dataclass(frozen=True)
class Kernel:
    """The centred linear kernel of one site's rows, with what tells structure from rounding.

    Attributes:
        matrix: `[n, n]`, float64, in units of ``scale ** 2``.
        scale: The largest distance of a feature from that of the first row; 0 for constant features.
        floor: What ``scale`` must exceed to be more than rounding.
        epsilon: The relative rounding of the features.
    """

    matrix: np.ndarray
    scale: float
    floor: float
    epsilon: float

    @property
    def noise(self) -> float:
        """The squared Frobenius norm that rounding alone could leave, in units of ``scale ** 4``."""
        return (KERNEL_NOISE * self.epsilon) ** 2 * float(np.vdot(self.matrix, self.matrix))


def linear_kernel(features: np.ndarray, what: str = "features", epsilon: float | None = None) -> Kernel:
    """Return the linear kernel of centred, scaled rows.

    The products are taken in the precision of the features, after the rows were centred and scaled to 1, so
    that a large common offset costs no digits and nothing overflows; sums are taken later in float64.

    Args:
        features: `[n, D]`, float32 or float64.
        what: The name used in errors.
        epsilon: The relative rounding of the features, where it is coarser than their type's.

    Raises:
        LensError: A feature is NaN or infinite.
    """
    # Distances from the first row are exactly 0 for constant features; distances from a rounded mean are not.
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named below
        centred = features - features[0]
    scale, size = (max(float(x.max(initial=0.0)), -float(x.min(initial=0.0))) for x in (centred, features))
    if not np.isfinite(scale) or not np.isfinite(size):
        raise LensError(
            f"{what}: the activations hold NaN or infinite numbers.",
            hint="The model overflowed or diverged; load it in float32, or look at its training log.",
        )
    if scale > 0:
        centred /= scale
    # A product with ones is four times as fast as a mean; what it leaves is an offset that U-centring takes out.
    centred -= np.full(len(centred), 1 / len(centred), centred.dtype) @ centred
    epsilon = float(np.finfo(features.dtype).eps) if epsilon is None else epsilon
    return Kernel((centred @ centred.T).astype(np.float64), scale, NOISE * epsilon * size, epsilon)


def u_center(matrix: np.ndarray) -> np.ndarray:
    """U-centre a symmetric kernel in place and return it.

    The result has a zero diagonal and rows that sum to zero (Székely and Rizzo 2014); HSIC_1 of two kernels
    is the inner product of their U-centred forms over `n (n - 3)`.

    Args:
        matrix: `[n, n]`, float64, n at least 4.
    """
    n = len(matrix)
    np.fill_diagonal(matrix, 0.0)
    rows = matrix.sum(axis=1)
    shift = rows / (n - 2) - rows.sum() / (2 * (n - 1) * (n - 2))
    matrix -= shift[:, None]
    matrix -= shift[None, :]
    np.fill_diagonal(matrix, 0.0)
    return matrix


def hsic_biased(first: np.ndarray, second: np.ndarray) -> float:
    """Return HSIC_0 of two kernels, `tr(K H L H) / (n - 1)^2`.

    Args:
        first: `[n, n]` kernel of one representation.
        second: `[n, n]` kernel of the other, rows in the same order.

    Raises:
        LensError: Fewer than 2 rows.
    """
    first, second = _kernel_pair(first, second, 2)
    centred = [k - k.mean(axis=0) - k.mean(axis=1)[:, None] + k.mean() for k in (first, second)]
    return float(np.vdot(*centred)) / (len(first) - 1) ** 2


def hsic_unbiased(first: np.ndarray, second: np.ndarray) -> float:
    """Return HSIC_1 of two kernels, the unbiased estimate; negative values are possible and mean "none".

    Args:
        first: `[n, n]` symmetric kernel of one representation; its diagonal is not used.
        second: `[n, n]` symmetric kernel of the other, rows in the same order.

    Raises:
        LensError: Fewer than 4 rows.
    """
    first, second = _kernel_pair(first, second, MINIMUM_ROWS)
    n = len(first)
    return float(np.vdot(u_center(first.copy()), u_center(second.copy()))) / (n * (n - 3))


def cka(first: Any, second: Any, unbiased: bool = True) -> Estimate:
    """Return linear CKA of two representations of the same rows.

    Args:
        first: `[n, D]` features, torch or numpy.
        second: `[n, E]` features of the same rows in the same order; E need not be D.
        unbiased: Use HSIC_1; otherwise HSIC_0, which grows with D / n for unrelated inputs.

    Returns:
        A value from 0 to 1 (the unbiased one scatters around 0 for unrelated inputs, and can be negative), or
        NaN with the reason. 1 says equal up to rotation and scale.

    Raises:
        LensError: A feature is NaN or infinite.
        ValueError: The row counts differ.
    """
    given = [as_floats(first), as_floats(second)]
    features = [as_float64(x) for x in given]
    if any(x.ndim != 2 for x in features) or len(features[0]) != len(features[1]):
        raise ValueError(f"expected [n, D] and [n, E], found {features[0].shape} and {features[1].shape}")
    n = len(features[0])
    least = MINIMUM_ROWS if unbiased else 2
    if n < least:
        return Estimate(float("nan"), f"CKA needs at least {least} rows, there are {n}")
    names = ("the first features", "the second features")
    kernels = [
        linear_kernel(x, name, float(np.finfo(raw.dtype).eps))
        for x, raw, name in zip(features, given, names, strict=True)
    ]
    floors = [kernel.noise for kernel in kernels]
    for kernel in kernels:
        if unbiased:
            u_center(kernel.matrix)
    for kernel, floor, name in zip(kernels, floors, names, strict=True):
        reason = why_undefined(
            kernel.scale, kernel.floor, float(np.vdot(kernel.matrix, kernel.matrix)), floor
        )
        if reason:
            return Estimate(float("nan"), f"{name}: {reason}")
    a, b = (kernel.matrix for kernel in kernels)
    return Estimate(float(near_one(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))))


def near_one(values: Any) -> np.ndarray:
    """Return CKA values with those that differ from 1 by rounding alone set to 1, and none beyond ±1."""
    values = np.asarray(values, dtype=np.float64)
    return np.clip(np.where(np.abs(values - 1) < CERTAIN, 1.0, values), -1.0, 1.0)


def why_undefined(scale: float, floor: float, self_hsic: float, noise: float) -> str | None:
    """Return why a site has no CKA, or None where it has.

    Args:
        scale: How far its features vary.
        floor: How far rounding alone could make them vary.
        self_hsic: HSIC of the site with itself.
        noise: What rounding alone could leave of it.
    """
    if scale <= floor:
        return f"the features are constant (they vary by {scale:.1e}, within rounding of their size)"
    if not self_hsic > noise:
        return "its HSIC with itself is not positive (too few rows differ)"
    return None


def _kernel_pair(first: np.ndarray, second: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = as_float64(first), as_float64(second)
    if first.ndim != 2 or first.shape[0] != first.shape[1] or first.shape != second.shape:
        raise ValueError(f"expected two [n, n] kernels, found {first.shape} and {second.shape}")
    if len(first) < least:
        raise LensError(f"This estimate of HSIC needs at least {least} rows; there are {len(first)}.")
    return first, second
