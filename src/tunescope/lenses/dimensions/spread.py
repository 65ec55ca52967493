"""Rogue dimensions: how the pooled states are spread over the dimensions, layer by layer, base and tuned.

A rogue (outlier) dimension holds a variance far above the others' (Timkey and van Schijndel 2021, arXiv 2109.04404;
Rudman et al. 2023, arXiv 2310.17715, take five times the mean). Participation ratio, IsoScore and mean cosine say in
one number how far the cloud is from filling its space.

Formula:
    Participation ratio ``(sum l)^2 / sum l^2`` of the covariance's eigenvalues l; a dimension is rogue where
    its variance is ``rogue`` times the mean.

Range:
    Participation ratio 1 (one direction) to the width; IsoScore 0 to 1 (all directions alike); mean cosine -1
    to 1.

How to read:
    Few rogue dimensions and a low participation ratio mean that distances and CKA are decided by few
    dimensions. Look which of them base and tuned share, against the number shared by chance.

Cost:
    One pass over the rows; statistics are updated batch by batch.

Limits:
    A loud dimension need not matter: the lens ``dimensions`` says which decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.errors import LensError
from tunescope.lenses.geometry.pooled import depth, stack_axes, stream_sites
from tunescope.lenses.geometry.positions import DESCRIPTION, Position, pooled_at
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.stats.results import Finding, result_table
from tunescope.stats.spread import Covariance, HigherMoments, isotropy

WHAT = (
    "Variance, mean and kurtosis of every dimension of the pooled states, the dimensions of greatest variance and how "
    "many of them base and tuned share, and how evenly the variance is spread (participation ratio, IsoScore, cosine)."
)


class SpreadOptions(BaseModel):
    """Options of the lens ``spread``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(
        default_factory=lambda: PromptedRows(n=2000), description="which rows to look at"
    )
    position: Position = Field(None, description=DESCRIPTION)
    top: int = Field(10, ge=1, description="how many dimensions of greatest variance are listed: 1 or more")
    rogue: float = Field(
        5.0, gt=1, description="a rogue dimension's variance over the mean variance: above 1"
    )


class SpreadLens(ReadingLens):
    """Keeps moments and covariance of every site of both models; their size does not grow with the rows."""

    def __init__(self, subject: Subject, options: SpreadOptions, rows: int) -> None:
        self.subject, self.options = subject, options
        self.moments: dict[tuple[str, Site], HigherMoments] = {}
        self.covariances: dict[tuple[str, Site], Covariance] = {}

    def sites(self, model: Classifier) -> list[Site]:
        """Return embeddings, the residual stream after every block, and the final norm's output where there is one."""
        return stream_sites(model)

    def update(self, view: View) -> None:
        """Pool one site's states by the mask and fold them into its state."""
        pooled = pooled_at(view, self.options.position).double().cpu().numpy()
        key = (view.which, view.site)
        self.moments.setdefault(key, HigherMoments(pooled.shape[1])).update(pooled)
        self.covariances.setdefault(key, Covariance(pooled.shape[1])).update(pooled)

    def table(self) -> pl.DataFrame:
        """Return per model and site four numbers a dimension and five for the cloud, then base against tuned."""
        records: list[dict[str, Any]] = []
        for (which, site), moments in sorted(self.moments.items(), key=lambda one: one[0][0]):
            model = self.subject.base if which == "base" else self.subject.tuned
            about = {
                "arm": self.subject.arm, "seed": self.subject.seed, "model": which, "site": site.name,
                "layer": depth(site, model), "n": moments.count, **stack_axes(site),
            }  # fmt: skip
            records += self._dimensions(moments, about)
            records += self._cloud(moments, self.covariances[which, site], about)
        return result_table([*records, *self._shared()])

    def _dimensions(self, moments: HigherMoments, about: dict[str, Any]) -> list[dict[str, Any]]:
        """Describe every dimension; a variance's interval is normal, ``v sqrt((excess kurtosis + 2) / n)`` wide."""
        variance = moments.variance()
        mean = variance.mean()
        columns = {
            "variance": variance, "mean": moments.mean, "excess_kurtosis": moments.kurtosis(),
            "variance_over_mean": variance / mean if mean > 0 else np.full(len(variance), np.nan),
        }  # fmt: skip
        rank = np.empty(len(variance), dtype=np.int64)
        rank[np.argsort(-variance, kind="stable")] = np.arange(len(variance))
        half = 1.96 * np.sqrt(np.maximum(columns["excess_kurtosis"] + 2, 0) / moments.count)
        records = []
        for metric, values in columns.items():
            wide = np.abs(values) * half if metric.startswith("variance") else np.full(len(values), np.nan)
            records += [
                {**about, "metric": metric, "dimension": index, "rank": int(rank[index]), "value": float(value),
                 "low": float(max(value - wide[index], 0.0)) if np.isfinite(wide[index]) else None,
                 "high": float(value + wide[index]) if np.isfinite(wide[index]) else None}
                for index, value in enumerate(values)
            ]  # fmt: skip
        return records

    def _cloud(
        self, moments: HigherMoments, covariance: Covariance, about: dict[str, Any]
    ) -> list[dict[str, Any]]:
        variance = moments.variance()
        values: dict[str, tuple[float | None, str | None]] = {}
        try:
            even = isotropy(covariance.matrix())
            values["participation_ratio"] = (even.participation_ratio, None)
            values["iso_score"] = (even.iso_score, None)
            ratio = variance / variance.mean()
            values["rogue_dimensions"] = (float((ratio > self.options.rogue).sum()), None)
            values["greatest_variance_over_mean"] = (float(ratio.max()), None)
        except LensError as error:
            for metric in ("participation_ratio", "iso_score", "rogue_dimensions"):
                values[metric] = (None, str(error))
        values["mean_cosine"] = (covariance.mean_cosine(), None)
        return [
            {**about, "metric": metric, "value": value, "note": note}
            for metric, (value, note) in values.items()
        ]

    def _shared(self) -> list[dict[str, Any]]:
        """Say how many of the top dimensions base and tuned have in common, beside what chance gives."""
        records = []
        for which, site in self.moments:
            if which != "base" or ("tuned", site) not in self.moments:
                continue
            ours, theirs = self.moments["base", site].variance(), self.moments["tuned", site].variance()
            top = min(self.options.top, len(ours))
            first, second = (
                set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (ours, theirs)
            )
            constant = not (ours.max() > 0 and theirs.max() > 0)
            records.append({
                "arm": self.subject.arm, "seed": self.subject.seed, "model": "base_tuned", "site": site.name,
                "layer": depth(site, self.subject.base), "n": self.moments["base", site].count,
                "metric": "shared_top_dimensions", "value": None if constant else float(len(first & second)),
                "control": top * top / len(ours), "top": top,
                "note": "every state is the same vector" if constant else None, **stack_axes(site),
            })  # fmt: skip
        return records


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say which dimension is the most rogue after tuning, and whether it was so before."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    if "stack" in own.columns:  # the stack that the head reads
        own = own.filter(pl.col("stack").is_null() | (pl.col("stack") == "decoder"))
    ratios = own.filter((pl.col("metric") == "variance_over_mean") & pl.col("value").is_not_null())
    last = ratios.filter(pl.col("model") == "tuned")
    if last.is_empty() or subject.same_trunk:
        return []
    last = last.filter(pl.col("layer") == last["layer"].max())
    row = last.sort("value", descending=True).row(0, named=True)
    before = ratios.filter(
        (pl.col("model") == "base")
        & (pl.col("dimension") == row["dimension"])
        & (pl.col("layer") == row["layer"])
        & (pl.col("site") == row["site"])
    ).row(0, named=True)
    shared = own.filter((pl.col("metric") == "shared_top_dimensions") & (pl.col("layer") == row["layer"]))
    common = shared.row(0, named=True)
    # The change is found where the two intervals of one dimension are apart.
    apart = None not in (row["low"], before["high"], row["high"], before["low"]) and (
        row["low"] > before["high"] or row["high"] < before["low"]
    )
    sentence = (
        f"At {_site(row)}, dimension {row['dimension']} holds {row['value']:.1f} times the mean variance after tuning "
        f"and held {before['value']:.1f} times (rank {before['rank'] + 1}) before; of the {common['top']} dimensions "
        f"of greatest variance {common['value']:.0f} are the same, by chance {common['control']:.1f}."
    )
    return [
        Finding(
            lens="spread", arm=subject.arm, sentence=sentence, metric="variance_over_mean", value=row["value"],
            low=row["low"], high=row["high"], n=row["n"], test="normal interval of a variance, by its kurtosis",
            control=f"the base's: {before['value']:.1f}", rows=f"{row['n']} rows",
            verdict="task not learned" if subject.learned is False else ("found" if apart else "undecided"),
        )
    ]  # fmt: skip


def _site(row: dict[str, Any]) -> str:
    name = (
        "the final norm's output"
        if row["site"] == "final_norm_out"
        else f"the output of block {row['layer']}"
    )
    return f"{name} of the {row['stack']}" if row.get("stack") else name
