"""The same-recipe band: how alike are models that differ in the seed of their training alone?

CKA of base against tuned says little unless one knows what another seed gives. Where tuned models of two seeds are as
unlike as base and tuned are, the difference is what any training does there, not what the task asks for.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tunescope.errors import LensError
from tunescope.lenses.geometry.cka import WHAT, CKALens, CKAOptions
from tunescope.lenses.geometry.pooled import at_one_place, site_name
from tunescope.lenses.look import LensOutput, ReadLens, look
from tunescope.lenses.several_seeds import SeveralSeeds
from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

MODEL = "tuned_seeds"
PLACE = ["metric", "site", "layer"]


def across_seeds(subjects: SeveralSeeds, options: CKAOptions) -> LensOutput | None:
    """Return the band of one arm and what it says of base against tuned; None where tuning left the trunk alone."""
    if subjects[0].same_trunk:
        return None
    band = seed_band(subjects, options.model_dump(mode="python"))
    findings = list(seed_band_findings(subjects.table, band, subjects.arm))
    return LensOutput("cka", band, None, findings, {"notes": []})


def seed_band(subjects: Sequence[Subject], options: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Return CKA of tuned models of neighbouring seeds at the same site, in the columns of the lens ``cka``.

    Seeds are sorted and each is compared with the next, so k seeds cost k - 1 comparisons and every tuned model is
    read at most four times (twice where only ``raw`` is asked for). Rows are named ``tuned_seeds``, with the other
    seed in the column ``seed_other``.

    Args:
        subjects: One arm, two seeds or more, made for the same rows.
        options: Options of the lens ``cka``; those of the study, so that both are on the same rows.

    Raises:
        LensError: Fewer than two seeds, several arms, or seeds that would see different rows.
    """
    if isinstance(subjects, SeveralSeeds):  # sorted, of one arm, and loaded one after another
        ordered: Sequence[Subject] = subjects
    else:
        ordered = sorted(subjects, key=lambda subject: subject.seed or 0)
        if len({subject.seed for subject in ordered}) < max(2, len(ordered)):
            seeds = [subject.seed for subject in ordered]
            raise LensError(f"A band over seeds needs two seeds or more, each once; there are {seeds}.")
        if len({subject.arm for subject in ordered}) > 1:
            raise LensError(f"A band over seeds is of one arm; came {', '.join(s.arm for s in ordered)}.")
    lens = {"cka": ReadLens(CKAOptions, WHAT, CKALens, lambda table, subject: [], two_stacks=True)}
    parts = []
    for first, second in itertools.pairwise(ordered):
        _require_same_rows(first, second)
        pair = dataclasses.replace(first, base=first.tuned, tuned=second.tuned, base_head="tuned")
        table = look(pair, [("cka", dict(options or {}))], lens)[0].table
        same = (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
        parts.append(
            table.filter((pl.col("model") == "base_tuned") & same).with_columns(
                model=pl.lit(MODEL), seed_other=pl.lit(second.seed, dtype=pl.Int64)
            )
        )
    return pl.concat(parts, how="diagonal_relaxed")


def seed_band_findings(table: pl.DataFrame, band: pl.DataFrame, arm: str) -> Sequence[Finding]:
    """Say at which places tuning moved the representation more, or less, than another seed of the recipe does.

    The intervals must be apart: base against tuned of every seed below (or above) the band of every pair of seeds.

    Args:
        table: The table of the lens ``cka``, with all seeds of the arm.
        band: What :func:`seed_band` gave for it.
        arm: The arm.
    """
    own = table.filter(
        (pl.col("arm") == arm)
        & (pl.col("model") == "base_tuned")
        & (pl.col("metric") == "cka")
        & at_one_place(table)
    )
    seeds = band.filter((pl.col("arm") == arm) & (pl.col("metric") == "cka"))
    both = _ends(own, "tuned").join(_ends(seeds, "seeds"), on=_place(seeds), nulls_equal=True)
    both = both.drop_nulls(["tuned_high", "seeds_low"]).sort("layer")
    if both.is_empty():
        return []
    beyond = both.filter(pl.col("tuned_high") < pl.col("seeds_low")).height
    within = both.filter(pl.col("tuned_low") > pl.col("seeds_high")).height
    widest = both.sort(pl.col("seeds") - pl.col("tuned"), descending=True).row(0, named=True)
    place = site_name(widest["site"], widest["layer"], widest.get("stack"))
    sentence = (
        f"Tuning moved the representation more than another seed of the same recipe does at {beyond} of {both.height} "
        f"places and less at {within}; most so at {place}: CKA {widest['tuned']:.2f} "
        f"[{widest['tuned_low']:.2f}, {widest['tuned_high']:.2f}] base against tuned, {widest['seeds']:.2f} "
        f"[{widest['seeds_low']:.2f}, {widest['seeds_high']:.2f}] between tuned models of different seeds."
    )
    return [
        Finding(
            lens="cka", arm=arm, sentence=sentence, metric="cka", value=widest["tuned"], low=widest["tuned_low"],
            high=widest["tuned_high"], n=widest["n"], test="jackknife intervals that do not overlap",
            control=f"tuned models of two seeds: {widest['seeds']:.3f}", rows=f"{widest['n']} rows",
            verdict="found" if beyond or within else "undecided",
        )
    ]  # fmt: skip


def _place(rows: pl.DataFrame) -> list[str]:
    """Return the columns that say where a row is; two stacks have one more."""
    return [*PLACE, *(["stack"] if "stack" in rows.columns else [])]


def _ends(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.group_by(_place(rows)).agg(
        pl.col("value").mean().alias(name),
        pl.col("low").min().alias(f"{name}_low"),
        pl.col("high").max().alias(f"{name}_high"),
        *([pl.col("n").first()] if name == "tuned" else []),
    )


def _require_same_rows(first: Subject, second: Subject) -> None:
    if first.sampling_seed != second.sampling_seed:
        raise LensError(f"Seeds {first.seed} and {second.seed} of {first.arm} would draw different rows.")
    for split, tokens in first.splits.items():
        other = second.splits.get(split)
        if other is None or other.row_ids != tokens.row_ids:
            raise LensError(
                f"Seeds {first.seed} and {second.seed} of {first.arm} have different {split} rows."
            )
