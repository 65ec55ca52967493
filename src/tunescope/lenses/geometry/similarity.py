"""RSA and Procrustes: are layers alike by other measures than CKA, within each model and base against tuned?

RSA ranks the distances of all pairs of rows (Kriegeskorte et al. 2008); Procrustes fits the best rotation (Schönemann
1966). Both need all rows at once, so they see a stated number of rows, one of each text.

Formula:
    RSA: Spearman's correlation of the distances of all pairs of rows in X and in Y. Procrustes: ``max_Q
    tr(Q'X'Y) / (|X| |Y|)`` over rotations Q, of centred states.

Range:
    RSA -1 to 1, 0 for unrelated; Procrustes 0 to 1.

How to read:
    Beside CKA: where the measures agree, a change of geometry is no artefact of one of them. The null is the
    same with rows permuted.

Cost:
    One pass over the rows; then pairs of rows, so ``cap`` bounds time and memory (it grows with its square).

Limits:
    Sees the first ``cap`` keyed rows only, one of each text. Procrustes of few rows in many dimensions is high
    for unrelated states too: read it against its null.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.errors import LensError
from tunescope.lenses.geometry.pooled import (
    KeptRows,
    at_one_place,
    depth,
    site_name,
    stack_axes,
    stream_sites,
)
from tunescope.lenses.geometry.positions import DESCRIPTION, Position
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.stats.intervals import jackknife
from tunescope.stats.kernels import MINIMUM_ROWS, NOISE
from tunescope.stats.procrustes import fewest_dimensions, procrustes
from tunescope.stats.results import Finding, result_table
from tunescope.stats.rsa import Distance, RankedPairs, dissimilarity
from tunescope.stats.tests import benjamini_hochberg

Measure = Literal["rsa_cosine", "rsa_correlation", "rsa_whitened", "procrustes"]
GROUPS = 10  # what the jackknife of Procrustes leaves out in turn
WHAT = (
    "Representational similarity (Spearman's correlation of the distances between rows: cosine, correlation, whitened) "
    "and orthogonal Procrustes similarity of all layers, within base, within tuned, and base against tuned."
)
Record = dict[str, Any]


class SimilarityOptions(BaseModel):
    """Options of the lens ``similarity``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(
        default_factory=lambda: PromptedRows(n=2000), description="which rows are read"
    )
    position: Position = Field(None, description=DESCRIPTION)
    cap: int = Field(
        400, ge=MINIMUM_ROWS, description="how many of them, the first, are compared pair by pair: 4 or more"
    )
    measures: tuple[Measure, ...] = Field(
        ("rsa_cosine", "rsa_correlation", "rsa_whitened", "procrustes"),
        min_length=1,
        description="a list of rsa_cosine, rsa_correlation, rsa_whitened and procrustes",
    )
    resamples: int = Field(200, ge=20, description="bootstrap samples of rows: 20 or more")
    permutations: int = Field(199, ge=19, description="permutations of rows for the null: 19 or more")


class SimilarityLens(ReadingLens):
    """Keeps some rows of every site of both models, then compares all sites with all."""

    def __init__(self, subject: Subject, options: SimilarityOptions, rows: int) -> None:
        self.subject, self.options = subject, options
        self.kept = KeptRows(min(options.cap, rows), options.position)
        groups = clusters(subject.draw(options.rows, labelled=False))[: self.kept.rows]
        self.distinct = np.unique(groups, return_index=True)[1]
        if len(self.distinct) < MINIMUM_ROWS:
            raise LensError(
                f"Similarity needs at least {MINIMUM_ROWS} rows of different texts; there are {len(self.distinct)}."
            )
        self.places: list[tuple[str, Site, Classifier]] = [
            (which, site, model)
            for which, model in (("base", subject.base), ("tuned", subject.tuned))
            for site in stream_sites(model)
        ]

    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites of the stream."""
        return stream_sites(model)

    def update(self, view: View) -> None:
        """Keep the pooled states of the first rows."""
        self.kept.update(view)

    def table(self) -> pl.DataFrame:
        """Return one row per measure and pair of sites, with interval, null and p; q over a measure's pairs."""
        features = [self.kept.features(which, site)[self.distinct] for which, site, _ in self.places]
        records: list[Record] = []
        measures = self.options.measures
        with self.subject.progress.task(f"{self.subject.arm}: similarity", len(measures), "measures") as task:
            for measure in measures:
                cells = (
                    self._procrustes(features) if measure == "procrustes" else self._rsa(features, measure)
                )
                records += self._records(measure, cells)
                task.advance()
        return result_table(records)

    def _rsa(self, features: Sequence[np.ndarray], measure: str) -> Record:
        distance = cast(Distance, measure.removeprefix("rsa_"))
        pairs = RankedPairs([dissimilarity(values, distance) for values in features])
        options = self.options
        nulls = pairs.resampled(options.resamples, options.permutations, self.subject.sampling_seed)
        upper = np.triu_indices(len(features), 1)
        q = np.full_like(nulls.p, np.nan)
        q[upper] = benjamini_hochberg(nulls.p[upper])
        return {
            "value": pairs.correlations(), "low": nulls.low, "high": nulls.high, "control": nulls.control,
            "p": nulls.p, "q": np.where(np.isnan(q), q.T, q), "undefined": pairs.undefined,
            "method": f"Spearman of {distance} distances; bootstrap of rows, {options.resamples} resamples",
        }  # fmt: skip

    def _procrustes(self, features: Sequence[np.ndarray]) -> Record:
        """Compare all pairs; intervals where base and tuned meet at one place, for each costs ten times the value."""
        small = [fewest_dimensions(values - values.mean(axis=0, dtype=np.float64)) for values in features]
        generator = np.random.default_rng(self.subject.sampling_seed)
        order = generator.permutation(len(self.distinct))
        bounds = np.linspace(0, len(order), min(GROUPS, len(order) - MINIMUM_ROWS) + 1).round().astype(int)
        count = len(small)
        found: Record = {
            name: np.full((count, count), np.nan) for name in ("value", "low", "high", "control", "p", "q")
        }
        found["undefined"] = tuple(_why_constant(values) for values in features)
        shuffle = generator.permutation(len(order))
        for i in range(count):
            for j in range(i, count):
                if found["undefined"][i] or found["undefined"][j]:
                    continue
                value = procrustes(small[i], small[j]).similarity
                found["value"][i, j] = found["value"][j, i] = value
                control = procrustes(small[i], small[j][shuffle]).similarity
                found["control"][i, j] = found["control"][j, i] = control
                if self.places[i][0] != self.places[j][0] and self.places[i][1] == self.places[j][1]:
                    ends = _left_out(value, small[i], small[j], order, bounds)
                    found["low"][i, j], found["high"][i, j] = ends
        method = f"nuclear norm of the cross-covariance; jackknife over {len(bounds) - 1} groups of rows"
        return {**found, "method": method}

    def _records(self, measure: str, cells: Record) -> list[Record]:
        records = []
        for i, (which, site, model) in enumerate(self.places):
            for j, (other, site_other, model_other) in enumerate(self.places):
                if (which, other) == ("tuned", "base"):
                    continue  # the transpose of base against tuned
                reasons = [cells["undefined"][k] for k in dict.fromkeys((i, j))]
                note = "; ".join(
                    f"{self.places[k][0]}:{self.places[k][1]}: {reason}"
                    for k, reason in zip(dict.fromkeys((i, j)), reasons, strict=True) if reason
                )  # fmt: skip
                if not note and np.isnan(cells["low"][i, j]):
                    note = "no interval: it is made where base and tuned meet at one place"
                records.append({
                    "arm": self.subject.arm, "seed": self.subject.seed, "metric": measure,
                    "model": which if which == other else "base_tuned", "site": site.name, "layer": depth(site, model),
                    "site_other": site_other.name, "layer_other": depth(site_other, model_other),
                    **{name: float(cells[name][i, j]) for name in ("value", "low", "high", "p", "q", "control")},
                    "n": len(self.distinct), "method": cells["method"], "note": note or None,
                    **stack_axes(site, site_other),
                })  # fmt: skip
        return records


def _why_constant(values: np.ndarray) -> str | None:
    """Return a reason where rows differ by no more than the rounding of the features as they were read."""
    spread = float(np.abs(values - values[0]).max())
    floor = NOISE * float(np.finfo(values.dtype).eps) * float(np.abs(values).max())
    return "every row has the same features" if spread <= floor else None


def _left_out(
    value: float, first: np.ndarray, second: np.ndarray, order: np.ndarray, bounds: np.ndarray
) -> tuple[float, float]:
    """Return the ends of the delete-a-group jackknife interval of Procrustes similarity."""
    if len(bounds) < 3:
        return float("nan"), float("nan")
    left = [np.delete(order, np.arange(a, b)) for a, b in itertools.pairwise(bounds)]
    replicates = np.array([procrustes(first[rows], second[rows]).similarity for rows in left])
    low, high = jackknife(np.asarray(value), replicates, np.diff(bounds))
    return max(float(low), 0.0), min(float(high), 1.0)


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say where base and tuned are least alike by RSA, and what the other measures say there."""
    if subject.same_trunk:
        return []
    same = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("model") == "base_tuned")
        & at_one_place(table)
        & pl.col("value").is_not_null()
    )
    if same.is_empty():
        return []
    metrics = same["metric"].unique(maintain_order=True).to_list()
    chosen = "rsa_correlation" if "rsa_correlation" in metrics else metrics[0]
    least = same.filter(pl.col("metric") == chosen).sort("value").row(0, named=True)
    there = same.filter((pl.col("site") == least["site"]) & (pl.col("layer") == least["layer"]))
    if least.get("stack") is not None:
        there = there.filter(pl.col("stack") == least["stack"])
    others = [
        f"{NAMES[row['metric']]} {row['value']:.2f} (shuffled {row['control']:.2f})"
        for row in there.filter(pl.col("metric") != chosen).iter_rows(named=True)
    ]
    interval = "" if least["low"] is None else f" [{least['low']:.2f}, {least['high']:.2f}]"
    place = site_name(least["site"], least["layer"], least.get("stack"))
    sentence = (
        f"By {NAMES[chosen]} base and tuned are least alike at {place}: {least['value']:.2f}{interval}, for shuffled "
        f"rows {least['control']:.2f}" + (f"; there {', '.join(others)}" if others else "") + "."
    )
    changed = least["high"] is not None and least["high"] < 0.99
    return [
        Finding(
            lens="similarity", arm=subject.arm, sentence=sentence, metric=chosen, value=least["value"],
            low=least["low"], high=least["high"], n=least["n"], test=least["method"],
            control=f"rows shuffled: {least['control']:.3f}", rows=f"{least['n']} rows of different texts",
            verdict="task not learned" if subject.learned is False else ("found" if changed else "undecided"),
        )
    ]  # fmt: skip


NAMES = {
    "rsa_cosine": "RSA (cosine)", "rsa_correlation": "RSA (correlation)", "rsa_whitened": "RSA (whitened)",
    "procrustes": "Procrustes",
}  # fmt: skip
