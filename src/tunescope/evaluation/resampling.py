"""Weights of resampled rows: one set serves every metric, as each is a function of weighted counts.

Three schemes. **rows**: rows are drawn from all rows, so that the number of rows per class varies as it would
in another sample. **classes**: rows are drawn within their class (the stratified bootstrap), which takes the
number per class as given by the design. **groups**: whole groups are drawn, for rows that are not independent
of one another (texts that repeat, versions of one sentence).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

CHUNK = 1 << 22  # numbers of resampling weights held at once (16 MB)


def resample_rows(
    n: int,
    resamples: int,
    generator: np.random.Generator,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Yield `[n, R]` counts of how often each row is drawn, R resamples at a time.

    The counts are float32, in which whole numbers up to 16 million are exact.

    Args:
        n: How many rows there are, and are drawn.
        resamples: How many resamples are drawn altogether.
        generator: What draws them.
        strata: `[n]` stratum of each row; each stratum keeps its number of rows.
        groups: `[n]` group of each row; whole groups are drawn, as many as there are. A resample then has
            more or fewer rows than n.

    Raises:
        ValueError: Both strata and groups are given, or not one for each row.
    """
    if strata is not None and groups is not None:
        raise ValueError("expected strata or groups, found both: a group may cross strata")
    for name, given in (("stratum", strata), ("group", groups)):
        if given is not None and np.shape(given) != (n,):
            raise ValueError(f"expected one {name} for each of {n} rows, found {np.shape(given)}")
    if n == 0:
        return
    units, index = n, None
    if groups is not None:
        names, index = np.unique(groups, return_inverse=True)
        units = len(names)
    step = max(1, min(resamples, CHUNK // n))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        counts = _counts(units, size, generator, strata)
        yield counts if index is None else counts[index]


def _counts(units: int, size: int, generator: np.random.Generator, strata: np.ndarray | None) -> np.ndarray:
    """Return `[units, size]` counts of draws with replacement."""
    if strata is None:
        drawn = generator.integers(0, units, (units, size))
    else:
        order = np.argsort(strata, kind="stable")
        _, first, sizes = np.unique(strata[order], return_index=True, return_counts=True)
        within = generator.random((units, size)) * np.repeat(sizes, sizes)[:, None]
        drawn = order[np.repeat(first, sizes)[:, None] + within.astype(np.int64)]
    drawn = drawn * size + np.arange(size)
    return np.bincount(drawn.ravel(), minlength=units * size).reshape(units, size).astype(np.float32)


def group_index(groups: Any, known: np.ndarray) -> np.ndarray | None:
    """Return whole numbers that name the groups of the known rows, or None where no groups are given.

    Args:
        groups: `[n]` group of each row, of any type with an order, or None.
        known: `[n]` mask of the rows that count.

    Raises:
        ValueError: There is not one group for each row.
    """
    if groups is None:
        return None
    names = groups.detach().cpu().numpy() if hasattr(groups, "detach") else np.asarray(groups)
    if names.shape != known.shape:
        raise ValueError(f"expected one group for each of {len(known)} rows, found {names.shape}")
    index: np.ndarray = np.unique(names[known], return_inverse=True)[1]
    return index
