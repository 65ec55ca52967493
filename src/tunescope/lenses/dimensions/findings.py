"""Sentences of the lens ``dimensions``: does one dimension do what the whole model does?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say how the dimension of greatest variance does against the full model, beside its controls."""
    own = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("model") == "tuned")
    )
    one = own.filter(pl.col("metric") == "one_dimension_accuracy")
    full = own.filter(pl.col("metric") == "model_accuracy").row(0, named=True)
    theirs = one.filter(pl.col("by") == "variance").row(0, named=True)
    control = one.filter(pl.col("by") == "train accuracy").row(0, named=True)
    random = one.filter(pl.col("by") == "random direction")["value"].to_numpy()
    permuted = one.filter(pl.col("by") == "labels permuted")["value"].to_numpy()
    sentence = (
        f"The dimension of greatest variance ({theirs['dimension']}) alone reaches {_number(theirs)} where the tuned "
        f"model reaches {_number(full)}; the best dimension by train rows ({control['dimension']}) reaches "
        f"{_number(control)}, random directions {np.median(random):.3f} (best {random.max():.3f}), and choosing with "
        f"permuted labels {np.median(permuted):.3f}."
    )
    beats_random = theirs["low"] is not None and theirs["low"] > float(random.max())
    verdict = "found" if beats_random else "undecided"
    return [
        Finding(
            lens="dimensions", arm=subject.arm, sentence=sentence, metric="one_dimension_accuracy",
            value=theirs["value"], low=theirs["low"], high=theirs["high"], n=theirs["n"],
            test=f"exact McNemar against the full model: p = {theirs['p']:.2g}",
            control=f"best of {len(random)} random directions: {random.max():.3f}", rows=f"{theirs['n']} rows",
            verdict="task not learned" if subject.learned is False else verdict,
        )
    ]  # fmt: skip


def _number(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
