"""Sentences from the maps: whether the classes lie in clusters after tuning, and whether they did before."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tunescope.lenses.geometry.pooled import site_name
from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say, at the last layer, how far k-means clusters agree with the labels, tuned against base."""
    if subject.same_trunk:
        return []
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    rand = own.filter(
        (pl.col("metric") == "adjusted_rand") & (pl.col("method") == "kmeans") & pl.col("value").is_not_null()
    )
    change = rand.filter(pl.col("model") == "tuned_minus_base")
    if change.is_empty():
        return []
    change = change.filter(pl.col("layer") == change["layer"].max())
    row = change.row(0, named=True)
    here = rand.filter((pl.col("layer") == row["layer"]) & (pl.col("site") == row["site"]))
    base, tuned = (here.filter(pl.col("model") == which).row(0, named=True) for which in ("base", "tuned"))
    trust = own.filter(
        (pl.col("metric") == "trustworthiness")
        & (pl.col("layer") == row["layer"])
        & (pl.col("axes") == 2)
        & pl.col("value").is_not_null()
    )["value"].to_list()
    beside = (
        f" Its two-axis maps have a trustworthiness of {min(trust):.2f} to {max(trust):.2f}." if trust else ""
    )
    sentence = (
        f"At {site_name(row['site'], row['layer'])}, k-means in the full space finds {tuned['clusters']} clusters "
        f"after tuning; their agreement with the labels (adjusted Rand index) is {tuned['value']:.2f} "
        f"[{tuned['low']:.2f}, {tuned['high']:.2f}], before tuning {base['value']:.2f}, with permuted labels "
        f"{tuned['control']:.2f}.{beside}"
    )
    apart = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
    verdict = "found" if apart and min(base["q"], tuned["q"]) <= 0.05 else "undecided"
    return [
        Finding(
            lens="maps", arm=subject.arm, sentence=sentence, metric="adjusted_rand", value=row["value"],
            low=row["low"], high=row["high"], n=row["n"], test=row["how"],
            control=f"labels permuted: {tuned['control']:.3f}", rows=f"{row['n']} rows",
            verdict="task not learned" if subject.learned is False else verdict,
        )
    ]  # fmt: skip
