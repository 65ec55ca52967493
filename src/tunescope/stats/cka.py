"""From blocks to CKA: values, jackknife intervals, the shuffled control, and reasons where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunescope.stats.blocks import Block
from tunescope.stats.intervals import Interval, jackknife
from tunescope.stats.kernels import CERTAIN, MINIMUM_ROWS, near_one, why_undefined


@dataclass(frozen=True)
class CKAMatrix:
    """Unbiased linear CKA of every pair of S sites.

    Attributes:
        sites: The names of the sites.
        value: `[S, S]`, at most 1, which says equal up to rotation and scale; scatters around 0 for unrelated
            sites. NaN exactly where :meth:`why` says why.
        low: `[S, S]`, the lower ends of the jackknife intervals; NaN where :attr:`interval_note` or
            :meth:`why` says why.
        high: `[S, S]`, the upper ends.
        control: `[S, S]`, CKA with the rows of the second site shuffled within blocks: what
            "unrelated" gives here.
        n: How many rows were used.
        method: How value and interval were made, in words.
        undefined: One entry per site: None, or the reason why the site has no CKA.
        interval_note: None, or the reason why there are no intervals.
        replicates: `[G, S, S]`, the values without each group of rows; empty where there are no intervals.
        group_rows: `[G]`, the rows of each group.
    """

    sites: tuple[str, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    control: np.ndarray
    n: int
    method: str
    undefined: tuple[str | None, ...]
    interval_note: str | None
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0))
    group_rows: np.ndarray = field(default_factory=lambda: np.empty(0))

    def why(self, first: str, second: str) -> str | None:
        """Return why a pair of sites has no CKA, or None where it has."""
        reasons = []
        for site in dict.fromkeys((first, second)):
            reason = self.undefined[self.sites.index(site)]
            if reason:
                reasons.append(f"{site}: {reason}")
        return "; ".join(reasons) or None

    def contrast(self, weights: np.ndarray, level: float = 0.95) -> Interval:
        """Return a weighted sum of values with its jackknife interval; cells of weight 0 do not count.

        All cells lose the same rows at a time, so that the interval knows how they hang together.

        Args:
            weights: `[S, S]`.
            level: The coverage of the interval.
        """
        cells = weights != 0
        used = cells.any(axis=0) | cells.any(axis=1)
        reason = next((why for why, asked in zip(self.undefined, used, strict=True) if why and asked), None)
        if reason:
            return Interval(None, None, None, self.n, self.method, f"undefined: {reason}")
        value = np.sum(self.value[cells] * weights[cells])
        if len(self.group_rows) < 2:
            return Interval(float(value), None, None, self.n, self.method, self.interval_note)
        without = self.replicates[:, cells] @ weights[cells]
        low, high = jackknife(value, without, self.group_rows, level)
        if not np.isfinite([low, high]).all():
            note = "undefined interval: a site is constant without some rows"
            return Interval(float(value), None, None, self.n, self.method, note)
        return Interval(float(value), float(low), float(high), self.n, self.method)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one mapping per ordered pair: first, second, value, low, high, n, control, method, note.

        What is undefined is None, and the note says why.
        """
        for i, first in enumerate(self.sites):
            for j, second in enumerate(self.sites):
                numbers = {name: getattr(self, name)[i, j] for name in ("value", "low", "high", "control")}
                known = {name: float(x) if np.isfinite(x) else None for name, x in numbers.items()}
                note = self.why(first, second)
                if note is None and known["low"] is None:
                    note = self.interval_note or "undefined interval: a site is constant without some rows"
                yield {
                    "first": first,
                    "second": second,
                    **known,
                    "n": self.n,
                    "method": self.method,
                    "note": note,
                }


def finalise(blocks: Sequence[Block], sites: Sequence[str], rows: int, level: float) -> CKAMatrix:
    """Return CKA from whole blocks.

    HSIC_1 is averaged over blocks with the blocks' rows as weights, then divided: the ratio of two unbiased
    means. The interval is that of the delete-a-group jackknife.

    Args:
        blocks: The blocks in the order of their numbers.
        sites: The names of the sites.
        rows: How many rows all blocks have together.
        level: The coverage of the intervals.
    """
    shape = (len(sites), len(sites))
    blank = np.full(shape, np.nan)
    if rows < MINIMUM_ROWS:
        reason = f"CKA needs at least {MINIMUM_ROWS} rows, there are {rows}"
        nothing = (reason,) * len(sites)
        return CKAMatrix(tuple(sites), blank, blank, blank, blank, rows, "none", nothing, reason)
    total = sum((block.rows * block.hsic for block in blocks), np.zeros(shape)) / rows
    shuffled = sum((block.rows * block.shuffled for block in blocks), np.zeros(shape)) / rows
    undefined = _undefined(blocks, total, rows)
    bad = np.array([reason is not None for reason in undefined])
    value = _ratio(total, total, bad, np.zeros(len(sites)))
    replicates, sizes = _replicates(blocks, total, bad)
    groups = len(sizes)
    low = high = blank
    if groups > 1:
        low, high = (np.clip(end, -1.0, 1.0) for end in jackknife(value, replicates, sizes, level))
    note = None if groups > 1 else f"undefined interval: {rows} rows are too few to leave some out"
    left_out = "blocks" if len(blocks) == groups else "groups of rows"
    estimate = "one block" if len(blocks) == 1 else f"{len(blocks)} blocks"
    method = f"unbiased HSIC over {estimate}" + (
        f"; jackknife over {groups} {left_out}" if groups > 1 else ""
    )
    control = _ratio(shuffled, total, bad, np.zeros(len(sites)))
    return CKAMatrix(
        tuple(sites), value, low, high, control, rows, method, undefined, note, replicates, sizes
    )


def _undefined(blocks: Sequence[Block], total: np.ndarray, rows: int) -> tuple[str | None, ...]:
    spread = np.max([block.spread for block in blocks], axis=0)
    floor = np.max([block.floor for block in blocks], axis=0)
    noise = np.sum([block.rows * block.noise for block in blocks], axis=0) / rows
    facts = zip(spread.tolist(), floor.tolist(), np.diagonal(total).tolist(), noise.tolist(), strict=True)
    return tuple(why_undefined(*each) for each in facts)


def _ratio(cross: np.ndarray, own: np.ndarray, bad: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return CKA from HSIC between sites and of sites with themselves.

    NaN for sites that are ``bad``, or whose HSIC with themselves does not exceed ``floor``.
    """
    diagonal = np.diagonal(own)
    bad = bad | ~(diagonal > floor)
    size = np.sqrt(np.where(bad, 1.0, diagonal))
    return np.where(bad[:, None] | bad[None, :], np.nan, near_one(cross / np.outer(size, size)))


def _replicates(blocks: Sequence[Block], total: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return CKA without each group of rows, `[G, S, S]`, and the rows of each; empty where nothing can be left out."""
    rows = sum(block.rows for block in blocks)
    floor = CERTAIN * np.abs(np.diagonal(total))  # what a difference of sums leaves where nothing is left
    replicates, sizes = [], []
    for block in blocks:
        whole = len(block.group_rows) == 1
        if whole and len(blocks) == 1:
            break
        for size, without in zip(block.group_rows.tolist(), block.without, strict=True):
            rest = 0.0 if whole else (block.rows - size) * without
            left = (rows * total - block.rows * block.hsic + rest) / (rows - size)
            replicates.append(_ratio(left, left, bad, floor))
            sizes.append(size)
    if len(replicates) < 2:
        return np.empty((0, *bad.shape, *bad.shape)), np.empty(0)
    return np.stack(replicates), np.array(sizes)
