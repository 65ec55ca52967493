"""Mergeable statistics: what a pass over the rows keeps instead of the rows.

Every state has an empty element (the freshly made one), ``update`` for a batch, ``+`` for two shards, and
``state_dict`` / ``from_state_dict``. Any order and any sharding gives the same result, up to the rounding of
float64. Means and second moments are kept centred: raw sums of squares in float32 are wrong by a factor of
eight on a dimension whose mean is large against its spread, which GPT-2's rogue dimensions are.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_float64, as_integers, select


def _require_finite(rows: np.ndarray, what: str) -> None:
    bad = int(rows.size - np.isfinite(rows).sum())
    if bad:
        raise LensError(
            f"{what}: {bad} of {rows.size} numbers are NaN or infinite.",
            hint="The model overflowed or diverged; load it in float32, or look at its training log.",
        )


class Mean:
    """The mean of vectors, per dimension.

    Attributes:
        width: The number of dimensions, D.
        count: How many vectors were seen.
        mean: `[D]`, float64; zeros while nothing was seen.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self.mean = np.zeros(width)

    def update(self, values: Any, mask: Any | None = None) -> Self:
        """Add a batch and return the state itself.

        Args:
            values: `[..., D]`, torch or numpy, any float type.
            mask: `[...]`, non-zero where a vector counts; None counts all.

        Raises:
            ValueError: The last axis is not the state's width, or the mask does not fit.
            LensError: A number that counts is NaN or infinite.
        """
        array = as_float64(values)
        if array.ndim == 0 or array.shape[-1] != self.width:
            raise ValueError(f"expected vectors of width {self.width}, found shape {array.shape}")
        rows = select(array, mask)
        _require_finite(rows, type(self).__name__)
        if len(rows):
            self._add_rows(rows)
        return self

    def _add_rows(self, rows: np.ndarray) -> None:
        self._merge_mean(len(rows), rows.mean(axis=0))

    def _merge_mean(self, count: int, mean: np.ndarray) -> np.ndarray:
        """Fold in another mean and return the difference of the two means (Chan, Golub and LeVeque 1979)."""
        difference = mean - self.mean if self.count else np.zeros(self.width)
        if self.count == 0:
            self.mean = mean.copy()
        elif count:
            self.mean = self.mean + difference * (count / (self.count + count))
        self.count += count
        return difference

    def __add__(self, other: Self) -> Self:
        _require_same(self, other, "width")
        merged = self.from_state_dict(self.state_dict())
        merged._merge_mean(other.count, other.mean)
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays, copied."""
        return {"width": self.width, "count": self.count, "mean": self.mean.copy()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make the state that :meth:`state_dict` described."""
        made = cls(int(state["width"]))
        made.count = int(state["count"])
        made.mean = np.array(state["mean"], dtype=np.float64)
        return made


class Moments(Mean):
    """The mean and the centred second moment of vectors, per dimension.

    Attributes:
        squares: `[D]`, float64, the sum of squared distances from the mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.squares = np.zeros(width)

    def _add_rows(self, rows: np.ndarray) -> None:
        mean = rows.mean(axis=0)
        self._merge(len(rows), mean, np.square(rows - mean).sum(axis=0))

    def _merge(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        before = self.count
        difference = self._merge_mean(count, mean)
        self.squares = self.squares + squares
        if before and count:
            self.squares = self.squares + difference**2 * (before * count / (before + count))

    def __add__(self, other: Self) -> Self:
        _require_same(self, other, "width")
        merged = self.from_state_dict(self.state_dict())
        merged._merge(other.count, other.mean, other.squares)
        return merged

    def variance(self, ddof: int = 1) -> np.ndarray:
        """Return the variance per dimension, `[D]`.

        Args:
            ddof: What is taken from the count: 1 for the unbiased estimate, 0 for the mean square.

        Raises:
            LensError: Too few vectors were seen for a variance.
        """
        if self.count <= ddof:
            raise LensError(f"A variance needs more than {ddof} vectors; {self.count} were seen.")
        return self.squares / (self.count - ddof)

    def standard_deviation(self, ddof: int = 1) -> np.ndarray:
        """Return the standard deviation per dimension, `[D]`; see :meth:`variance`."""
        return np.sqrt(self.variance(ddof))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays, copied."""
        return {**super().state_dict(), "squares": self.squares.copy()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make the state that :meth:`state_dict` described."""
        made = super().from_state_dict(state)
        made.squares = np.array(state["squares"], dtype=np.float64)
        return made


class Histogram:
    """Counts of numbers between fixed edges, and of those outside.

    Args:
        edges: `[K + 1]`, rising. A bin holds `edge[i] <= x < edge[i + 1]`; the last holds its right edge too.

    Attributes:
        counts: `[K]`, int64.
        below: How many numbers were smaller than the first edge.
        above: How many were larger than the last.
    """

    def __init__(self, edges: Any) -> None:
        self.edges = as_float64(edges).copy()
        if self.edges.ndim != 1 or len(self.edges) < 2 or not (np.diff(self.edges) > 0).all():
            raise ValueError("expected at least two rising edges")
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)
        self.below = 0
        self.above = 0

    @property
    def count(self) -> int:
        """How many numbers were seen, inside and outside."""
        return int(self.counts.sum()) + self.below + self.above

    def update(self, values: Any, mask: Any | None = None) -> Self:
        """Add numbers of any shape and return the state itself.

        Args:
            values: Any shape, torch or numpy.
            mask: The same shape, non-zero where a number counts; None counts all.

        Raises:
            LensError: A number that counts is NaN or infinite.
        """
        numbers = select(as_float64(values)[..., None], mask)[:, 0]
        _require_finite(numbers, "Histogram")
        self.below += int((numbers < self.edges[0]).sum())
        self.above += int((numbers > self.edges[-1]).sum())
        self.counts = self.counts + np.histogram(numbers, bins=self.edges)[0]
        return self

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, Histogram) or not np.array_equal(self.edges, other.edges):
            raise ValueError("histograms with different edges cannot be merged")
        merged = self.from_state_dict(self.state_dict())
        merged.counts = merged.counts + other.counts
        merged.below += other.below
        merged.above += other.above
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays, copied."""
        return {
            "edges": self.edges.copy(),
            "counts": self.counts.copy(),
            "below": self.below,
            "above": self.above,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make the state that :meth:`state_dict` described."""
        made = cls(state["edges"])
        made.counts = as_integers(state["counts"]).copy()
        made.below, made.above = int(state["below"]), int(state["above"])
        return made


def _require_same(first: Any, second: Any, name: str) -> None:
    if type(first) is not type(second) or getattr(first, name) != getattr(second, name):
        raise ValueError(
            f"cannot merge {type(first).__name__} of {name} {getattr(first, name)!r} "
            f"with {type(second).__name__} of {name} {getattr(second, name, None)!r}"
        )
