"""CKA between many sites, streamed: HSIC_1 over fixed blocks of rows, with intervals and a control.

The pure functions are in :mod:`tunescope.stats.kernels` and are re-exported here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tunescope.errors import LensError
from tunescope.stats.arrays import as_floats, as_integers
from tunescope.stats.blocks import Block, OpenBlock, reduce_block
from tunescope.stats.cka import CKAMatrix, finalise
from tunescope.stats.kernels import MINIMUM_ROWS, cka, hsic_biased, hsic_unbiased

__all__ = ["BlockHSIC", "CKAMatrix", "cka", "hsic_biased", "hsic_unbiased"]

JACKKNIFE_GROUPS = (
    10  # what is left out in turn: at least so many groups of rows, or blocks where there are more
)


class BlockHSIC:
    """HSIC_1 between every pair of sites, streamed over fixed blocks of rows.

    A row is known by its rank, its position in the selected sample. Ranks `k * block` to
    `(k + 1) * block - 1` are one block: its rows are kept until it is whole, reduced to one number per pair
    of sites, and dropped. The memory is therefore bounded by the open blocks (those that have some of their
    rows), and every order of the rows and every sharding gives the same result. Few rows (up to
    ``full_below``) are one block, which is the full estimate. A last block of fewer than 4 rows joins the one
    before it.

    Ranks must be in random order with respect to what the rows say: a block of one class alone measures
    similarity within that class.

    Args:
        sites: The names of the sites; they may differ in width.
        rows: How many rows the sample has; ranks run from 0 to rows - 1.
        block: Rows per block.
        full_below: Up to so many rows are one block.
        permutation_seed: Seeds the shuffling of the control, and the groups of the jackknife.
    """

    def __init__(
        self,
        sites: Sequence[str],
        rows: int,
        block: int = 256,
        full_below: int = 1024,
        permutation_seed: int = 0,
    ) -> None:
        if len(set(sites)) != len(sites) or not sites:
            raise ValueError(f"expected one or more sites, each named once, found {list(sites)}")
        if rows < 0 or block < 2 * MINIMUM_ROWS:
            raise ValueError(f"expected rows >= 0 and block >= {2 * MINIMUM_ROWS}, found {rows} and {block}")
        self.sites = tuple(sites)
        self.rows = rows
        self.block = block
        self.full_below = full_below
        self.permutation_seed = permutation_seed
        self.starts = _starts(rows, block, full_below)
        self.groups = -(-JACKKNIFE_GROUPS // max(len(self.starts), 1))
        self.done: dict[int, Block] = {}
        self.open: dict[int, OpenBlock] = {}

    def update(self, ranks: Any, features: Mapping[str, Any]) -> Self:
        """Add a batch of rows and return the state itself.

        Args:
            ranks: `[B]` whole numbers, the position of each row in the selected sample.
            features: `[B, D]` per site, torch or numpy. A call may hold some of the sites (base first, tuned
                later); a block is whole when each of its rows has come for every site.

        Raises:
            LensError: A row came twice, or a number is NaN or infinite.
            ValueError: An unknown site, a rank outside the sample, or shapes that do not fit.
        """
        ranks = as_integers(ranks)
        if ranks.ndim != 1 or (len(ranks) and (ranks.min() < 0 or ranks.max() >= self.rows)):
            raise ValueError(f"expected ranks from 0 to {self.rows - 1}, found {ranks.tolist()[:8]} ...")
        arrays = {site: self._features(site, values, len(ranks)) for site, values in features.items()}
        blocks = np.searchsorted(self.starts, ranks, side="right") - 1
        for number in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == number)
            if number in self.done:
                raise LensError(f"Row {ranks[here[0]]} came twice: its block was already whole.")
            start, size = self._extent(number)
            opened = self.open.setdefault(number, OpenBlock(start, len(self.sites), size))
            for site, array in arrays.items():
                opened.put(self.sites.index(site), ranks[here] - start, array[here], site)
            self._close(number)
        return self

    def _features(self, site: str, values: Any, count: int) -> np.ndarray:
        if site not in self.sites:
            raise ValueError(f"unknown site {site!r}; this state has {', '.join(self.sites)}")
        array = as_floats(values)
        if array.ndim != 2 or len(array) != count:
            raise ValueError(f"{site}: expected [{count}, D], found {array.shape}")
        return array

    def _extent(self, number: int) -> tuple[int, int]:
        bounds = [*self.starts.tolist(), self.rows]
        return bounds[number], bounds[number + 1] - bounds[number]

    def _close(self, number: int) -> None:
        if not self.open[number].whole:
            return
        features = self.open[number].features
        streams = np.random.SeedSequence([self.permutation_seed, number])
        self.done[number] = reduce_block(features, self.sites, self.groups, np.random.default_rng(streams))
        del self.open[number]

    def __add__(self, other: Self) -> Self:
        """Merge two shards; blocks that become whole are reduced.

        Raises:
            ValueError: The states differ in sites, rows, block or seed.
            LensError: A row is in both.
        """
        if not isinstance(other, BlockHSIC) or self._settings() != other._settings():
            raise ValueError("cannot merge states of CKA that differ in sites, rows, block or seed")
        twice = (
            self.done.keys() & (other.done.keys() | other.open.keys()) | other.done.keys() & self.open.keys()
        )
        if twice:
            start, size = self._extent(min(twice))
            raise LensError(f"Rows {start} to {start + size - 1} came twice: both shards hold them.")
        merged = type(self)(**self._settings())
        merged.done = {**self.done, **other.done}
        merged.open = {number: opened.copy() for number, opened in self.open.items()}
        for number, opened in other.open.items():
            if number in merged.open:
                merged.open[number].merge(opened, self.sites)
                merged._close(number)
            else:
                merged.open[number] = opened.copy()
        return merged

    def _settings(self) -> dict[str, Any]:
        names = ("sites", "rows", "block", "full_below", "permutation_seed")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and arrays, the rows of open blocks among them."""
        return {
            **self._settings(),
            "done": {number: dataclasses.asdict(block) for number, block in self.done.items()},
            "open": {number: opened.state_dict() for number, opened in self.open.items()},
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Make the state that :meth:`state_dict` described."""
        made = cls(**{k: v for k, v in state.items() if k not in ("done", "open")})
        made.done = {int(number): Block(**block) for number, block in state["done"].items()}
        made.open = {int(k): OpenBlock.from_state_dict(v) for k, v in state["open"].items()}
        return made

    def matrix(self, level: float = 0.95) -> CKAMatrix:
        """Return CKA of every pair of sites, with intervals, control and reasons.

        Args:
            level: The coverage of the intervals.

        Raises:
            LensError: Rows of the sample have not come yet.
        """
        if len(self.done) < len(self.starts):
            missing = sum(self._extent(k)[1] for k in range(len(self.starts)) if k not in self.done)
            came = sum(opened.complete_rows for opened in self.open.values())
            raise LensError(
                f"CKA expected {self.rows} rows at each of {len(self.sites)} sites; "
                f"{missing - came} did not come.",
                hint="Give every row of the sample to update() once, for every site.",
            )
        return finalise([self.done[k] for k in sorted(self.done)], self.sites, self.rows, level)


def _starts(rows: int, block: int, full_below: int) -> np.ndarray:
    """Return the first rank of every block."""
    if rows == 0:
        return np.zeros(0, dtype=np.int64)
    if rows <= max(full_below, block):
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, rows, block)
    return starts[:-1] if rows - starts[-1] < MINIMUM_ROWS else starts
