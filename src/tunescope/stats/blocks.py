"""One block of rows for CKA: kept until it is whole, then reduced to HSIC_1 between its sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.kernels import MINIMUM_ROWS, linear_kernel, u_center

STRIP = 128  # rows of a kernel handled at once, so that no second copy of all kernels is made


@dataclass(frozen=True)
class Block:
    """What remains of a block of n rows at S sites.

    Attributes:
        rows: n.
        hsic: `[S, S]`, HSIC_1 between sites.
        shuffled: `[S, S]`, the same with the rows of the second site permuted.
        noise: `[S]`, what rounding alone could leave of a site's HSIC with itself.
        spread: `[S]`, how far features vary.
        floor: `[S]`, how far rounding alone could make them vary.
        group_rows: `[G]`, rows in each group of the jackknife.
        without: `[G, S, S]`, HSIC_1 without the rows of a group; zeros (and unused) for the only group.
    """

    rows: int
    hsic: np.ndarray
    shuffled: np.ndarray
    noise: np.ndarray
    spread: np.ndarray
    floor: np.ndarray
    group_rows: np.ndarray
    without: np.ndarray


@dataclass
class OpenBlock:
    """Rows that wait until their block is whole.

    Attributes:
        start: The rank of the block's first row.
        sites: How many sites there are.
        size: How many rows the block has.
        features: `[size, D]` per site index, in the order of ranks.
        filled: `[sites, size]`, true where a row has come.
    """

    start: int
    sites: int
    size: int
    features: dict[int, np.ndarray] = field(default_factory=dict)
    filled: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))

    def __post_init__(self) -> None:
        if self.filled.size == 0:
            self.filled = np.zeros((self.sites, self.size), dtype=bool)

    @property
    def whole(self) -> bool:
        """Whether every row has come for every site."""
        return bool(self.filled.all())

    @property
    def complete_rows(self) -> int:
        """How many rows have come for every site."""
        return int(self.filled.all(axis=0).sum())

    def put(self, site: int, places: np.ndarray, values: np.ndarray, name: str) -> None:
        """Store rows of one site at their places in the block.

        Raises:
            LensError: A row came twice.
            ValueError: The width differs from that of earlier rows.
        """
        taken = self.filled[site, places]
        if taken.any() or len(np.unique(places)) < len(places):
            again = places[taken][0] if taken.any() else _repeated(places)
            raise LensError(f"Row {self.start + again} came twice at {name}.")
        kept = self.features.get(site)
        if kept is None:
            kept = np.zeros((self.size, values.shape[1]), dtype=values.dtype)
        if kept.shape[1] != values.shape[1]:
            raise ValueError(f"{name}: expected width {kept.shape[1]}, found {values.shape[1]}")
        if values.dtype == np.float64 and kept.dtype != np.float64:
            kept = kept.astype(np.float64)
        kept[places] = values
        self.features[site] = kept
        self.filled[site, places] = True

    def merge(self, other: OpenBlock, names: Sequence[str]) -> None:
        """Take over the rows of the same block from another shard."""
        for site, values in other.features.items():
            places = np.flatnonzero(other.filled[site])
            self.put(site, places, values[places], names[site])

    def copy(self) -> Self:
        """Return a block that shares nothing with this one."""
        return self.from_state_dict(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the block as plain numbers and arrays, copied."""
        features = {site: values.copy() for site, values in self.features.items()}
        return {
            "start": self.start,
            "sites": self.sites,
            "size": self.size,
            "features": features,
            "filled": self.filled.copy(),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make the block that :meth:`state_dict` described."""
        return cls(**state)


def reduce_block(
    features: dict[int, np.ndarray], names: Sequence[str], groups: int, generator: np.random.Generator
) -> Block:
    """Reduce the rows of a whole block to HSIC_1 between its sites.

    Args:
        features: `[n, D]` per site index, the same rows in the same order.
        names: The names of the sites, in the order of their indices.
        groups: How many groups of rows the jackknife leaves out in turn.
        generator: Draws the groups and the shuffling, the same for all sites.
    """
    n, sites = len(features[0]), len(names)
    order = generator.permutation(
        n
    )  # rows of a group become neighbours; HSIC does not depend on a common order
    shuffle = generator.permutation(n)
    kernels = np.zeros((sites, n, n))
    scale, floor, noise = (np.zeros(sites) for _ in range(3))
    if n >= MINIMUM_ROWS:
        for site in range(sites):
            rows = features[site][order] if groups > 1 else features[site]
            kernel = linear_kernel(rows, names[site])
            scale[site], floor[site], noise[site] = kernel.scale, kernel.floor, kernel.noise
            kernels[site] = u_center(kernel.matrix)
    unit = np.outer(scale**2, scale**2)  # the kernels are of features scaled to 1
    bounds = _group_bounds(n, groups)
    count = max(n * (n - 3), 1)
    if len(bounds) > 2:
        hsic, without = _leave_groups_out(kernels, bounds)
    else:
        flat = kernels.reshape(sites, -1)
        hsic, without = flat @ flat.T / count, np.zeros((1, sites, sites))
    return Block(
        rows=n,
        hsic=hsic * unit,
        shuffled=_shuffled_products(kernels, shuffle) / count * unit,
        noise=noise / count * scale**4,
        spread=scale,
        floor=floor,
        group_rows=np.diff(bounds),
        without=without * unit,
    )


def _group_bounds(n: int, groups: int) -> np.ndarray:
    """Return where the groups of the jackknife begin, and n; one group where too few rows would be left."""
    groups = min(groups, max(n, 1))
    if n - -(-n // groups) < MINIMUM_ROWS:
        groups = 1
    return np.linspace(0, n, groups + 1).round().astype(np.int64)


def _shuffled_products(kernels: np.ndarray, shuffle: np.ndarray) -> np.ndarray:
    """Return the inner products of kernels with kernels whose rows and columns are permuted, `[S, S]`."""
    sites, n = len(kernels), len(shuffle)
    products = np.zeros((sites, sites))
    for start in range(0, n, STRIP):
        strip = kernels[:, start : start + STRIP].reshape(sites, -1)
        # Twice as fast as indexing with both: rows and columns are gathered one after the other.
        permuted = kernels.take(shuffle[start : start + STRIP], axis=1).take(shuffle, axis=2)
        products += strip @ permuted.reshape(sites, -1).T
    return products


def _leave_groups_out(kernels: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return HSIC_1 of all rows, and without each group of rows, in the cost of one pass.

    The inner products over pairs of groups are summed once. What is left without a group is a sub-kernel,
    whose HSIC_1 follows from its plain inner products and its row sums (Song et al. 2012, equation 5). A part
    of a U-centred kernel has the HSIC_1 of that part of the raw kernel: U-centring removes what the two
    differ by.

    Args:
        kernels: `[S, n, n]`, U-centred.
        bounds: `[G + 1]`, where groups begin.

    Returns:
        `[S, S]` and `[G, S, S]`.
    """
    sites, n = kernels.shape[:2]
    groups = len(bounds) - 1
    parts = [slice(bounds[g], bounds[g + 1]) for g in range(groups)]
    products = np.zeros((groups, groups, sites, sites))
    for g in range(groups):
        for h in range(g, groups):
            flat = np.ascontiguousarray(kernels[:, parts[g], parts[h]]).reshape(sites, -1)
            products[g, h] = products[h, g] = flat @ flat.T
    sums = np.add.reduceat(kernels, bounds[:-1], axis=2)  # [S, n, G], the sum of a row over a group's columns
    total = products.sum(axis=(0, 1))
    without = np.zeros((groups, sites, sites))
    for g in range(groups):
        m = n - (bounds[g + 1] - bounds[g])
        inner = total - 2 * products[g].sum(axis=0) + products[g, g]
        rows = np.delete(-sums[:, :, g], np.arange(bounds[g], bounds[g + 1]), axis=1)  # whole rows sum to 0
        sum_all = rows.sum(axis=1)
        inner += np.outer(sum_all, sum_all) / ((m - 1) * (m - 2)) - 2 / (m - 2) * (rows @ rows.T)
        without[g] = inner / (m * (m - 3))
    return total / (n * (n - 3)), without


def _repeated(places: np.ndarray) -> int:
    values, counts = np.unique(places, return_counts=True)
    return int(values[counts > 1][0])
