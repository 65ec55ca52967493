"""What the logit lens has to say in one sentence: from which layer on the answer is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

Record = dict[str, Any]


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say from which layer on the model's own head reads the final answer, and whether tuning moved that layer."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    settled = {
        row["model"]: row for row in own.filter(pl.col("metric") == "settled_layer").iter_rows(named=True)
    }
    tuned = settled["tuned"]
    levels = own.filter((pl.col("model") == "tuned") & (pl.col("metric") == "accuracy")).sort("layer")
    at = levels.filter(pl.col("layer") == int(tuned["value"])).row(0, named=True)
    sentence = (
        f"From {_layer(tuned)} on, the tuned model's own head is within {100 * tuned['within']:g} points of its final "
        f"accuracy of {levels['value'][-1]:.3f} (there {at['value']:.3f})"
    )
    control = f"labels dealt at random: accuracy {at['control']:.3f}"
    shown, clear = tuned, at["low"] is not None and at["low"] > at["control"]
    if "base" in settled and not subject.same_trunk:
        change = settled["tuned_minus_base"]
        sentence += f"; the base, under its {subject.base_head} head, from {_layer(settled['base'])} on"
        sentence += (
            f": a change of {change['value']:+.0f} layers [{change['low']:+.0f}, {change['high']:+.0f}]"
        )
        shown, clear = change, not change["low"] <= 0 <= change["high"]
        control += f"; the base under its {subject.base_head} head"
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    return [
        Finding(
            lens="logit_lens", arm=subject.arm, sentence=f"{sentence}.", metric="settled_layer", value=shown["value"],
            low=shown["low"], high=shown["high"], n=tuned["n"], test="bootstrap over rows, equal texts together",
            control=control, rows=f"{tuned['n']} rows", verdict=verdict,
        )
    ]  # fmt: skip


def _layer(row: Record) -> str:
    return "the embeddings" if row["value"] < 0 else f"layer {row['value']:.0f}"
