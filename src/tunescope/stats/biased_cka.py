"""The biased CKA of published studies, exact over the rows that are kept: for comparison, not for belief.

HSIC_0 (Gretton et al. 2005) keeps the diagonal of the kernels, so that CKA of unrelated sites grows with D / n; see
:mod:`tunescope.stats.kernels`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_floats, as_integers
from tunescope.stats.blocks import Block, OpenBlock
from tunescope.stats.cka import CKAMatrix, finalise
from tunescope.stats.kernels import KERNEL_NOISE, MINIMUM_ROWS, NOISE

GROUPS = 10  # what the jackknife leaves out in turn


class BiasedCKA:
    """Biased linear CKA of every pair of sites over all rows at once.

    The kernels of all n rows are compared, as published studies do, but are never held: the features are kept
    (memory grows with n times D) and the products of the kernels are summed over pairs of groups of rows.

    Args:
        sites: The names of the sites; they may differ in width.
        rows: How many rows the sample has; ranks run from 0 to rows - 1.
        permutation_seed: Seeds the shuffling of the control, and the groups of the jackknife.
    """

    def __init__(self, sites: Sequence[str], rows: int, permutation_seed: int = 0) -> None:
        self.sites = tuple(sites)
        self.rows = rows
        self.permutation_seed = permutation_seed
        self.kept = OpenBlock(0, len(self.sites), rows)

    def update(self, ranks: Any, features: Mapping[str, Any]) -> Self:
        """Add a batch of rows and return the state itself; as :meth:`tunescope.stats.hsic.BlockHSIC.update`.

        Raises:
            LensError: A row came twice.
        """
        for site, values in features.items():
            self.kept.put(self.sites.index(site), as_integers(ranks), as_floats(values), site)
        return self

    def matrix(self, level: float = 0.95) -> CKAMatrix:
        """Return CKA of every pair of sites, with jackknife intervals over groups of rows, and a control.

        Args:
            level: The coverage of the intervals.

        Raises:
            LensError: Rows of the sample have not come yet, or a number is NaN or infinite.
        """
        if self.rows < MINIMUM_ROWS:
            return finalise([], self.sites, self.rows, level)
        if not self.kept.whole:
            missing = self.rows - self.kept.complete_rows
            raise LensError(f"CKA expected {self.rows} rows at each site; {missing} did not come.")
        generator = np.random.default_rng(self.permutation_seed)
        order, shuffle = generator.permutation(self.rows), generator.permutation(self.rows)
        facts = [_prepared(self.kept.features[site][order], name) for site, name in enumerate(self.sites)]
        features = [features for features, *_ in facts]
        scale, floor, epsilon = (np.array([fact[k] for fact in facts]) for k in (1, 2, 3))
        bounds = np.linspace(0, self.rows, min(GROUPS, self.rows // 2) + 1).round().astype(np.int64)
        hsic, without = _products(features, bounds)
        shuffled = _shuffled(features, shuffle, bounds)
        noise = (KERNEL_NOISE * epsilon) ** 2 * np.diagonal(hsic)
        if self.rows - int(np.diff(bounds).max()) < MINIMUM_ROWS:
            bounds, without = np.array([0, self.rows]), without[:1]
        block = Block(self.rows, hsic, shuffled, noise, scale, floor, np.diff(bounds), without)
        made = finalise([block], self.sites, self.rows, level)
        return dataclasses.replace(
            made, method=made.method.replace("unbiased HSIC over one block", "biased HSIC over all rows")
        )


def _prepared(features: np.ndarray, name: str) -> tuple[np.ndarray, float, float, float]:
    """Return centred features of size 1, their size, and what of both is rounding; see ``linear_kernel``."""
    if not np.isfinite(features).all():
        raise LensError(f"{name}: the activations hold NaN or infinite numbers.")
    epsilon = float(np.finfo(features.dtype).eps)
    size = float(np.abs(features).max(initial=0.0))
    centred = (features - features[0]).astype(np.float64)
    scale = float(np.abs(centred).max(initial=0.0))
    if scale > 0:
        centred /= scale
    centred -= centred.mean(axis=0)
    return centred.astype(features.dtype), scale, NOISE * epsilon * size, epsilon


def _kernels(
    features: Sequence[np.ndarray], rows: slice | np.ndarray, columns: slice | np.ndarray
) -> np.ndarray:
    """Return a part of every site's kernel, flat, `[S, rows * columns]`."""
    return np.stack([(x[rows] @ x[columns].T).astype(np.float64).ravel() for x in features])


def _products(features: Sequence[np.ndarray], bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return HSIC_0 of every pair of sites up to a common factor: over all rows, and without each group.

    Centred features give centred kernels over all rows; without a group they are centred again, which costs no more
    than their row sums: ``<HKH, HLH> = <K, L> - 2 / m k'l + (sum k) (sum l) / m^2``.
    """
    sites, rows, groups = len(features), int(bounds[-1]), len(bounds) - 1
    parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
    products = np.zeros((groups, groups, sites, sites))
    sums = np.zeros((sites, rows, groups))  # the sum of a row of the kernel over a group's columns
    for g in range(groups):
        for h in range(g, groups):
            flat = _kernels(features, parts[g], parts[h])
            products[g, h] = products[h, g] = flat @ flat.T
            square = flat.reshape(sites, parts[g].stop - parts[g].start, -1)
            sums[:, parts[g], h] = square.sum(axis=2)
            sums[:, parts[h], g] = square.sum(axis=1)
    total = products.sum(axis=(0, 1))
    without = np.zeros((groups, sites, sites))
    for g in range(groups):
        left = rows - (parts[g].stop - parts[g].start)
        inner = total - 2 * products[g].sum(axis=0) + products[g, g]
        row_sums = np.delete(sums.sum(axis=2) - sums[:, :, g], np.arange(rows)[parts[g]], axis=1)
        whole = row_sums.sum(axis=1)
        without[g] = (inner - 2 / left * (row_sums @ row_sums.T) + np.outer(whole, whole) / left**2) / left**2
    return total / rows**2, without


def _shuffled(features: Sequence[np.ndarray], shuffle: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    total = np.zeros((len(features), len(features)))
    for start, stop in itertools.pairwise(bounds.tolist()):
        ours = _kernels(features, slice(start, stop), slice(None))
        theirs = _kernels(features, shuffle[start:stop], shuffle)
        total += ours @ theirs.T
    return total / int(bounds[-1]) ** 2
