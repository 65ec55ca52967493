"""How a cloud of vectors is spread over its dimensions: moments to the fourth, covariance, isotropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64


class HigherMoments:
    """Mean and centred moments of order two to four, per dimension (Pébay 2008, SAND2008-6212).

    Attributes:
        width: The number of dimensions, D.
        count: How many vectors were seen.
        mean: `[D]`.
        sums: `[3, D]`, sums of the second, third and fourth power of the distance from the mean.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self.mean = np.zeros(width)
        self.sums = np.zeros((3, width))

    def update(self, values: Any) -> Self:
        """Add vectors `[N, D]` and return the state itself.

        Raises:
            LensError: A number is NaN or infinite.
        """
        rows = _finite_rows(values, self.width)
        if len(rows):
            distance = rows - rows.mean(axis=0)
            sums = np.stack([(distance**power).sum(axis=0) for power in (2, 3, 4)])
            self._merge(len(rows), rows.mean(axis=0), sums)
        return self

    def _merge(self, count: int, mean: np.ndarray, sums: np.ndarray) -> None:
        if count == 0:
            return
        ours, total = self.count, self.count + count
        gap = mean - self.mean if ours else np.zeros(self.width)
        (two, three, four), (second, third, fourth) = self.sums, sums
        if ours:
            fourth = (
                fourth
                + gap**4 * ours * count * (ours**2 - ours * count + count**2) / total**3
                + 6 * gap**2 * (ours**2 * second + count**2 * two) / total**2
                + 4 * gap * (ours * third - count * three) / total
            )
            third = (
                third
                + gap**3 * ours * count * (ours - count) / total**2
                + 3 * gap * (ours * second - count * two) / total
            )
            second = second + gap**2 * ours * count / total
        self.mean = self.mean + gap * count / total if ours else mean.copy()
        self.sums = np.stack([two + second, three + third, four + fourth])
        self.count = total

    def __add__(self, other: Self) -> Self:
        if other.width != self.width:
            raise ValueError(f"cannot merge moments of width {self.width} and {other.width}")
        merged = type(self)(self.width)
        merged._merge(self.count, self.mean, self.sums)
        merged._merge(other.count, other.mean, other.sums)
        return merged

    def variance(self) -> np.ndarray:
        """Return the unbiased variance per dimension, `[D]`.

        Raises:
            LensError: Fewer than two vectors were seen.
        """
        if self.count < 2:
            raise LensError(f"A variance needs 2 vectors or more; {self.count} were seen.")
        return self.sums[0] / (self.count - 1)

    def kurtosis(self) -> np.ndarray:
        """Return the excess kurtosis per dimension, `[D]`: 0 for a normal, NaN where a dimension is constant."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.count * self.sums[2] / self.sums[0] ** 2 - 3
        return np.where(self.sums[0] > 0, ratio, np.nan)


class Covariance:
    """The covariance of vectors, and the sum of their unit vectors, streamed.

    Attributes:
        width: The number of dimensions, D.
        count: How many vectors were seen.
        mean: `[D]`.
        products: `[D, D]`, the sum of centred outer products.
        directions: `[D]`, the sum of the vectors over their norms.
        zeros: How many vectors were exactly zero, and have no direction.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self.zeros = 0
        self.mean = np.zeros(width)
        self.products = np.zeros((width, width))
        self.directions = np.zeros(width)

    def update(self, values: Any) -> Self:
        """Add vectors `[N, D]` and return the state itself.

        Raises:
            LensError: A number is NaN or infinite.
        """
        rows = _finite_rows(values, self.width)
        if len(rows):
            norms = np.linalg.norm(rows, axis=1)
            self.zeros += int((norms == 0).sum())
            self.directions += (rows[norms > 0] / norms[norms > 0, None]).sum(axis=0)
            self._take(rows)
        return self

    def _take(self, rows: np.ndarray) -> None:
        """Add rows in one product: what :meth:`_merge` adds for the means' gap is one more row of it."""
        mean, total = rows.mean(axis=0), self.count + len(rows)
        gap = mean - self.mean if self.count else np.zeros(self.width)
        apart = gap * (self.count * len(rows) / total) ** 0.5
        stacked = np.vstack([rows - mean, apart])
        self.products += stacked.T @ stacked
        self.mean = self.mean + gap * (len(rows) / total) if self.count else mean
        self.count = total

    def _merge(self, count: int, mean: np.ndarray, products: np.ndarray) -> None:
        if count == 0:
            return
        total = self.count + count
        gap = mean - self.mean if self.count else np.zeros(self.width)
        self.products = self.products + products + np.outer(gap, gap) * (self.count * count / total)
        self.mean = self.mean + gap * (count / total) if self.count else mean.copy()
        self.count = total

    def __add__(self, other: Self) -> Self:
        if other.width != self.width:
            raise ValueError(f"cannot merge covariances of width {self.width} and {other.width}")
        merged = type(self)(self.width)
        for part in (self, other):
            merged._merge(part.count, part.mean, part.products)
            merged.directions += part.directions
            merged.zeros += part.zeros
        return merged

    def matrix(self) -> np.ndarray:
        """Return the unbiased covariance, `[D, D]`.

        Raises:
            LensError: Fewer than two vectors were seen.
        """
        if self.count < 2:
            raise LensError(f"A covariance needs 2 vectors or more; {self.count} were seen.")
        return self.products / (self.count - 1)

    def mean_cosine(self) -> float:
        """Return the mean cosine over all pairs of different vectors, from -1/(n - 1) to 1 (Ethayarajh 2019)."""
        n = self.count - self.zeros
        if n < 2:
            raise LensError(f"A mean cosine needs 2 vectors that are not zero; {n} were seen.")
        return float((self.directions @ self.directions - n) / (n * (n - 1)))


@dataclass(frozen=True)
class Isotropy:
    """How evenly variance is spread over directions.

    Attributes:
        participation_ratio: ``(sum l)^2 / sum l^2`` of the covariance's eigenvalues: 1 where one direction holds
            all variance, D where all hold the same.
        iso_score: IsoScore of Rudman et al. 2022 (arXiv 2108.07344): 0 where one direction holds all variance,
            1 where all hold the same.
    """

    participation_ratio: float
    iso_score: float


def isotropy(covariance: np.ndarray) -> Isotropy:
    """Return both measures for a covariance matrix `[D, D]`; D is 2 or more.

    Raises:
        LensError: The covariance is zero, so that no direction has variance.
    """
    width = len(covariance)
    trace, norm = float(np.trace(covariance)), float(np.linalg.norm(covariance))
    if norm == 0:
        raise LensError("Every vector is the same, so isotropy is undefined.")
    # ||sqrt(D) l / ||l|| - 1||^2 = 2 D - 2 sqrt(D) sum(l) / ||l||, without any eigenvalue.
    distance = max(2 * width - 2 * np.sqrt(width) * trace / norm, 0.0)
    defect = distance / (2 * (width - np.sqrt(width)))
    share = ((width - defect * (width - np.sqrt(width))) ** 2) / width**2
    return Isotropy(trace**2 / norm**2, float((width * share - 1) / (width - 1)))


def _finite_rows(values: Any, width: int) -> np.ndarray:
    rows = as_float64(values)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"expected vectors [N, {width}], found shape {rows.shape}")
    if not np.isfinite(rows).all():
        row, dimension = np.argwhere(~np.isfinite(rows))[0]
        raise LensError(f"Dimension {dimension} of vector {row} is not finite.")
    return rows
