"""Sentences made from a table of weight grafts: the curve of recovered accuracy says where tuning put the task."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.lenses.patching.construction import EVERYTHING, NOTHING
from tunescope.lenses.patching.findings import (
    KINDS,
    PICKED,
    beyond,
    carries_all,
    name_of,
    percent,
    picked,
    same_place,
)
from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

CERTAIN = "by_construction"
ALL = ", by construction: that is all that tuning changed"
CURVE_TEST = "bootstrap over texts of a ratio of sums"


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say where the curve passes half and 95 % of the gain, which part alone brings most, and the smallest set."""
    mine = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    gain = mine.filter(pl.col("metric") == "gain_accuracy")
    if subject.same_trunk or gain.is_empty() or (gain["low"][0] or 0.0) <= 0:
        return []
    singles = [one for of in KINDS.items() for one in _single(mine, of, subject)]
    return [*_curve(mine, subject), *singles, *_smallest(mine, subject)]


def _curve(mine: pl.DataFrame, subject: Subject) -> list[Finding]:
    own = mine.filter((pl.col("scope") == "up_to_here") & (pl.col("metric") == "recovered_accuracy"))
    own = own.filter(pl.col("value").is_not_null())
    points = sorted(own.filter(pl.col("control") == "none").to_dicts(), key=_order)
    if len(points) < 2:
        return []
    half, most = (next((row for row in points if row["value"] >= share), points[-1]) for share in (0.5, 0.95))
    control = same_place(own.filter(pl.col("control") == "random"), half)
    place = points.index(half)
    before = points[place - 1] if place else None
    if half.get(CERTAIN) == EVERYTHING and (before is None or before.get(CERTAIN) == NOTHING):
        return []  # what changed lies in one step of the curve: where it rises was known before
    earlier = "" if before is None else f" ({_depth(before)} alone recover {percent(before)})"
    sentence = (
        f"Tuning put the task as deep as {_end(half)}: the tuned weights of {_depth(half)} in the base recover "
        f"{percent(half)} of the accuracy that tuning gained{earlier}; 95 % is there with {_depth(most)} "
        f"({percent(most)}{ALL if most is points[-1] or most.get(CERTAIN) == EVERYTHING else ''})."
    )
    clear = half["low"] is not None and half["low"] > 0 and beyond(half, control)
    held = f"random changes of the same size: {percent(control)}; the base under the tuned head is 0 %, tuned 100 %"
    return [_finding(half, sentence, (CURVE_TEST, held), clear, subject)]


def _order(row: dict[str, Any]) -> tuple[bool, bool, int]:
    """Return where a point of the curve lies: the embeddings, then the encoder's blocks, then the decoder's."""
    return row["layer"] is not None, row.get("stack") == "decoder", row["layer"] or 0


def _depth(row: dict[str, Any]) -> str:
    if row["layer"] is None:
        return "the embeddings"
    stack = row.get("stack")
    blocks = "block 0" if row["layer"] == 0 else f"blocks 0 to {row['layer']}"
    if stack is None:
        return f"the embeddings and {blocks}"
    own = f"the {stack}'s {blocks}"
    return f"the embeddings, the encoder and {own}" if stack == "decoder" else f"the embeddings and {own}"


def _end(row: dict[str, Any]) -> str:
    if row["layer"] is None:
        return "the embeddings"
    return f"the {row['stack']}'s block {row['layer']}" if row.get("stack") else f"block {row['layer']}"


def _single(mine: pl.DataFrame, of: tuple[str, str], subject: Subject) -> list[Finding]:
    if "pick" not in mine.columns:
        return []
    row, control = picked(mine, of[1], "recovered_margin")
    if row is None:
        return []
    lost, _ = picked(mine, of[1], "lost_margin")
    without = "" if lost is None else f"; without them the tuned model loses {percent(lost)} of it"
    sentence = (
        f"Of all {of[0]}, the tuned weights of {name_of(row)} alone bring most into the base: {percent(row)} of the "
        f"gain in margin{without} ({PICKED}).{carries_all(mine, of[1])}"
    )
    clear = row["low"] is not None and row["low"] > 0 and beyond(row, control)
    held = f"a random change of its weights of the same size: {percent(control)}"
    return [_finding(row, sentence, (f"{CURVE_TEST}; {PICKED}", held), clear, subject)]


def _smallest(mine: pl.DataFrame, subject: Subject) -> list[Finding]:
    found = []
    shown = mine.filter((pl.col("metric") == "recovered_accuracy") & pl.col("value").is_not_null())
    for scope in ("greedy", "rows"):
        own = shown.filter((pl.col("scope") == scope) & (pl.col("control") == "none"))
        picked = own.filter(pl.col("picked")) if own.height else own
        if picked.is_empty() or picked["share"][0] == 1:  # all rows are no small set
            continue
        row = picked.row(0, named=True)
        if row.get(CERTAIN) == EVERYTHING:  # nor are all parts that tuning changed
            continue
        random = shown.filter((pl.col("scope") == scope) & (pl.col("control") == "random"))
        random = random.filter(pl.col("share").eq_missing(pl.lit(row["share"])))
        control = random.row(0, named=True) if random.height else None
        what = f"the {row['component']} that tuning moved furthest" if scope == "rows" else row["component"]
        share = "" if scope == "rows" else f" ({row['step']} {'part' if row['step'] == 1 else 'parts'})"
        sentence = (
            f"The tuned weights of {what}{share} suffice: the smallest set that reached the wanted share of tuning's "
            f"gain in accuracy on one half of the texts has {percent(row)} of it on the other."
        )
        held = (
            f"as many rows drawn at random: {percent(control)}" if scope == "rows" else
            "the base under the tuned head is 0 %, the tuned model 100 %"
        )  # fmt: skip
        clear = row["low"] is not None and row["low"] > 0 and (control is None or beyond(row, control))
        test = f"{CURVE_TEST}; picked on one half of the texts, shown on the other"
        found.append(_finding(row, sentence, (test, held), clear, subject))
    return found


def _finding(
    row: dict[str, Any], sentence: str, how: tuple[str, str], clear: bool, subject: Subject
) -> Finding:
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    return Finding(
        lens="grafting", arm=subject.arm, sentence=sentence, metric=row["metric"], value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=how[0], control=how[1], rows=f"{row['n']} rows", verdict=verdict,
    )  # fmt: skip
