"""Rows of a result table by their axes: every figure finds its numbers by name, never by order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from tunescope.report.text import Estimate, finite
from tunescope.stats.multiboot import metric_ends, of_trainings

EMBEDDINGS = -1


def only(table: pl.DataFrame, **wanted: Any) -> pl.DataFrame:
    """Return the rows where each named column has the value; ``None`` asks for empty cells.

    A column that the table does not have counts as empty everywhere.
    """
    for column, value in wanted.items():
        if column not in table.columns:
            if value is not None:
                return table.clear()
            continue
        table = table.filter(pl.col(column).is_null() if value is None else pl.col(column) == value)
    return table


def values(table: pl.DataFrame, column: str) -> list[Any]:
    """Return the sorted distinct values of a column, without empty cells."""
    return sorted(table[column].drop_nulls().unique().to_list()) if column in table.columns else []


def seeds(table: pl.DataFrame) -> list[int]:
    """Return the seeds of a table; a table without seeds is one seed called 0."""
    return [int(seed) for seed in values(table, "seed")] or [0]


def first_seed(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the smallest seed (all rows where no seed is given)."""
    known = values(table, "seed")
    return only(table, seed=known[0]) if known else table


def layer_name(layer: int) -> str:
    """Return how an axis names a layer: ``emb`` for the embeddings, else its number."""
    return "emb" if layer == EMBEDDINGS else str(layer)


def estimate(record: dict[str, Any]) -> Estimate:
    """Return a table row's value, interval and n."""
    n = finite(record.get("n"))
    return Estimate(
        finite(record.get("value")), finite(record.get("low")), finite(record.get("high")),
        None if n is None else int(n), record.get("note") or None,
    )  # fmt: skip


def pooled(records: Iterable[dict[str, Any]]) -> Estimate:
    """Return one estimate for several seeds: the mean, from the lowest low to the highest high."""
    known = [item for item in map(estimate, records) if item.value is not None]
    if not known:
        return Estimate(None)
    lows = [item.low for item in known if item.low is not None]
    highs = [item.high for item in known if item.high is not None]
    mean = sum(item.value for item in known if item.value is not None) / len(known)
    notes = list(dict.fromkeys(item.note for item in known if item.note))
    return Estimate(
        mean, min(lows, default=None), max(highs, default=None), known[0].n, "; ".join(notes) or None
    )


def over_seeds(records: Iterable[dict[str, Any]], metric: str | None = None) -> Estimate:
    """Return one estimate for several trainings: their mean, with an interval for other seeds and rows.

    Args:
        records: One a seed. Of a single one the interval stays its own; where one has none, all that is known is the
            span of the others' ends, as :func:`pooled` gives it.
        metric: Its name where it has ends, at which the interval is cut; None where it has none.
    """
    given = list(records)
    known = [item for item in map(estimate, given) if item.value is not None]
    ends = [
        (item.value, item.low, item.high) for item in known if item.low is not None and item.high is not None
    ]
    if len(known) < 2 or len(ends) < len(known):
        return pooled(given)
    found = of_trainings(ends)  # type: ignore[arg-type]
    least, most = metric_ends(metric) if metric is not None else (float("-inf"), float("inf"))
    low, high = (None if end is None else min(max(end, least), most) for end in (found.low, found.high))
    notes = list(dict.fromkeys(note for note in (*(item.note for item in known), found.note) if note))
    return Estimate(found.value, low, high, known[0].n, "; ".join(notes) or None)


def preferred_base_head(table: pl.DataFrame) -> pl.DataFrame:
    """Keep one base head for rows of the base model: ``probe`` before others, so that none are mixed."""
    if "base_head" not in table.columns:
        return table
    heads = values(table, "base_head")
    if len(heads) < 2:
        return table
    chosen = "probe" if "probe" in heads else heads[0]
    return table.filter(pl.col("base_head").is_null() | (pl.col("base_head") == chosen))
