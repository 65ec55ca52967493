"""From blocks to CKA: values, jackknife intervals, the shuffled control, and reasons where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.stats.blocks import Block
from tunescope.stats.intervals import jackknife
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

    def why(self, first: str, second: str) -> str | None:
        """Return why a pair of sites has no CKA, or None where it has."""
        reasons = []
        for site in dict.fromkeys((first, second)):
            reason = self.undefined[self.sites.index(site)]
            if reason:
                reasons.append(f"{site}: {reason}")
        return "; ".join(reasons) or None

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
    low, high, groups = _interval(value, blocks, total, bad, level)
    note = None if groups > 1 else f"undefined interval: {rows} rows are too few to leave some out"
    left_out = "blocks" if len(blocks) == groups else "groups of rows"
    estimate = "one block" if len(blocks) == 1 else f"{len(blocks)} blocks"
    method = f"unbiased HSIC over {estimate}" + (
        f"; jackknife over {groups} {left_out}" if groups > 1 else ""
    )
    control = _ratio(shuffled, total, bad, np.zeros(len(sites)))
    return CKAMatrix(tuple(sites), value, low, high, control, rows, method, undefined, note)


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


def _interval(
    value: np.ndarray, blocks: Sequence[Block], total: np.ndarray, bad: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the ends of the jackknife intervals and the number of groups left out in turn."""
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
        return np.full_like(value, np.nan), np.full_like(value, np.nan), len(replicates)
    low, high = jackknife(value, np.stack(replicates), np.array(sizes), level)
    return np.clip(low, -1.0, 1.0), np.clip(high, -1.0, 1.0), len(replicates)
