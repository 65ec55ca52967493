"""What the seeds of one arm agree on: the range of each suite's numbers over trainings that differ in the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.figures.select import only, seeds
from tunescope.report.text import finite, number, signed

METRICS = ("margin_change", "absolute_margin_change", "flip_share")


@dataclass(frozen=True)
class SeedLine:
    """One suite over the seeds of an arm; numbers are the smallest and the largest over seeds."""

    suite: str
    verdicts: str
    signed: str
    size: str
    flips: str
    widened: str


@dataclass(frozen=True)
class SeedPart:
    """The suites of one arm over its seeds."""

    arm: str
    seeds: int
    lines: tuple[SeedLine, ...]


def over_seeds(table: pl.DataFrame, arms: Sequence[str]) -> tuple[SeedPart, ...]:
    """Return for every arm of two seeds or more what its suites show from seed to seed."""
    found = []
    for arm in arms:
        own = only(table, arm=arm, part="all")
        own = own.filter(pl.col("class").is_null() & pl.col("control").is_null())
        if not own.height or len(seeds(own)) < 2:
            continue
        lines = tuple(_line(suite, only(own, suite=suite)) for suite in dict.fromkeys(own["suite"]))
        found.append(SeedPart(arm, len(seeds(own)), lines))
    return tuple(found)


def _line(suite: str, rows: pl.DataFrame) -> SeedLine:
    tuned = only(rows, model="tuned")
    judged = only(tuned, metric="failure_share")
    judged = judged if judged.height else only(tuned, metric="margin_change")
    signed_change, size, flips = (_range(only(tuned, metric=name)) for name in METRICS)
    widened = _range(only(rows, model="tuned_minus_base", metric="absolute_margin_change"))
    verdicts = [str(name) for name in judged.sort("seed")["verdict"].drop_nulls()]
    return SeedLine(suite, ", ".join(verdicts), signed_change, size, flips, widened)


def _range(rows: pl.DataFrame) -> str:
    """Return the smallest and the largest value over seeds, in words."""
    known: list[float] = [value for one in rows["value"] if (value := finite(one)) is not None]
    if not known:
        return "–"
    show: Any = signed if min(known) < 0 else number
    return f"{show(min(known))} to {show(max(known))}"
