"""Linear CKA of pooled representations: layer by layer within each model, and base against tuned.

Kornblith et al. 2019 (arXiv 1905.00414); unbiased estimator HSIC_1 of Song et al. 2012; over fixed blocks of rows as
in Nguyen et al. 2021 (arXiv 2010.15327). 1 means equal up to rotation and scale, 0 unrelated.

Formula:
    ``CKA(X, Y) = HSIC(XX', YY') / sqrt(HSIC(XX', XX') HSIC(YY', YY'))`` of centred states X, Y (rows by
    dimensions), with HSIC_1, which is unbiased.

Range:
    About 0 (unrelated; the unbiased estimate may fall a little below) to 1 (equal up to rotation and scale).

How to read:
    A diagonal base against tuned that fades with depth says from where on tuning changed the states. Read the
    standardised variant beside it: where only the raw one is high, a few loud dimensions make the models look
    alike. The control is the same pair with rows shuffled.

Cost:
    One pass of both models over the rows; memory does not grow with the rows above ``full_below``.

Limits:
    CKA compares geometry, not what a layer computes; a high value does not mean the same function. With
    ``first`` pooling the embeddings are one constant vector and CKA is undefined there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.lenses.geometry import bow_tie
from tunescope.lenses.geometry.pair_plan import say_pairs
from tunescope.lenses.geometry.pooled import (
    KeptRows,
    at_one_place,
    depth,
    site_name,
    stack_axes,
    stream_sites,
)
from tunescope.lenses.geometry.positions import DESCRIPTION, Position, pooled_at
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.stats.biased_cka import BiasedCKA
from tunescope.stats.hsic import BlockHSIC
from tunescope.stats.results import Finding, result_table
from tunescope.stats.states import Moments

Variant = Literal["raw", "standardised", "without_outliers"]
# Pooled states of all rows up to this size are kept, so that what must know all rows first needs no pass of its own.
MOST_KEPT = 256 << 20
METRICS: dict[str, str] = {
    "raw": "cka", "standardised": "cka_standardised", "without_outliers": "cka_without_outliers",
    "biased": "cka_biased",
}  # fmt: skip
WHAT = (
    "Unbiased linear CKA between the pooled states of all layers, within the base, within the tuned model and base "
    "against tuned; 1 is equal up to rotation and scale, 0 unrelated."
)


class CKAOptions(BaseModel):
    """Options of the lens ``cka``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(
        default_factory=lambda: PromptedRows(n=2000), description="which rows to look at"
    )
    position: Position = Field(None, description=DESCRIPTION)
    block: int = Field(256, ge=8, description="rows in a block of the streamed estimate: 8 or more")
    full_below: int = Field(1024, ge=0, description="up to this many rows, one block holds them all")
    variants: tuple[Variant, ...] = Field(
        ("raw", "standardised", "without_outliers"),
        min_length=1,
        description="a list of raw, standardised and without_outliers",
    )
    outliers: int = Field(
        3, ge=1, description="dimensions of greatest variance that without_outliers takes out: 1 or more"
    )
    biased: bool = Field(
        False, description="the biased CKA of published studies as well; keeps the features of all rows"
    )


class DeviationLens(ReadingLens):
    """Keeps the moments of every site of both models, for what must be known before CKA is streamed."""

    def __init__(self, sites: Callable[[Classifier], list[Site]], position: Position = None) -> None:
        self._sites, self.position = sites, position
        self.moments: dict[str, Moments] = {}

    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites that CKA will read."""
        return self._sites(model)

    def update(self, view: View) -> None:
        """Fold one site's pooled states into its moments."""
        pooled = pooled_at(view, self.position).double().cpu().numpy()
        self.moments.setdefault(f"{view.which}:{view.site}", Moments(pooled.shape[1])).update(pooled)

    def table(self) -> pl.DataFrame:
        """Return nothing: this lens serves another one."""
        return result_table([])


class CKALens(ReadingLens):
    """Streams pooled states of every layer of both models into one block-wise state a variant.

    Variants that need every dimension's deviation first keep the pooled states of all rows, up to 256 MiB of them;
    where that is too little, both models run twice.
    """

    def __init__(self, subject: Subject, options: CKAOptions, rows: int) -> None:
        self.subject = subject
        self.options = options
        self.deviations = DeviationLens(self.sites, options.position)
        self.keys: list[tuple[str, Site]] = [
            (which, site)
            for which, model in (("base", subject.base), ("tuned", subject.tuned))
            for site in self.sites(model)
        ]
        names = [f"{which}:{site}" for which, site in self.keys]
        self.kept = self._keeper(rows)
        say_pairs(subject, "cka", len(names), rows)
        self.states: dict[str, BlockHSIC | BiasedCKA] = {
            variant: BlockHSIC(
                names,
                rows,
                block=options.block,
                full_below=options.full_below,
                permutation_seed=subject.sampling_seed,
            )
            for variant in options.variants
        }
        if options.biased:
            self.states["biased"] = BiasedCKA(names, rows, subject.sampling_seed)

    def _keeper(self, rows: int) -> KeptRows | None:
        """Return what keeps all rows' pooled states, where a variant needs their deviations and they are small."""
        widths = {"base": self.subject.base.width, "tuned": self.subject.tuned.width}
        values = rows * sum(widths[which] for which, _ in self.keys)
        small = values * np.dtype(np.float32).itemsize <= MOST_KEPT
        return KeptRows(rows, self.options.position) if small and self._needs_deviations else None

    @property
    def _needs_deviations(self) -> bool:
        return set(self.options.variants) != {"raw"}

    def before(self) -> ReadingLens | None:
        """Ask for the deviations of all rows in a pass of its own, where they are needed and rows are not kept."""
        return self.deviations if self._needs_deviations and self.kept is None else None

    def sites(self, model: Classifier) -> list[Site]:
        """Return embeddings, the residual stream after every block, and the final norm's output where there is one."""
        return stream_sites(model)

    def update(self, view: View) -> None:
        """Pool one site's states by the mask and add them to the block of their rows, once a variant."""
        if self.kept is not None:
            self.kept.update(view)
            return
        pooled = pooled_at(view, self.options.position).float().cpu().numpy()
        name = f"{view.which}:{view.site}"
        for variant, state in self.states.items():
            state.update(view.ranks, {name: self._varied(pooled, name, variant)})

    def _varied(self, pooled: np.ndarray, name: str, variant: str) -> np.ndarray:
        if variant in ("raw", "biased"):
            return pooled
        moments = self.deviations.moments[name]
        deviation = moments.standard_deviation(ddof=0)
        if variant == "standardised":
            return (pooled - moments.mean) / np.where(deviation > 0, deviation, 1.0)
        order = np.argsort(-deviation, kind="stable")
        return pooled[:, np.sort(order[min(self.options.outliers, len(order) - 1) :])]

    def table(self) -> pl.DataFrame:
        """Return one row per variant and pair of sites with value, interval and the value for shuffled rows.

        After each variant's cells come its bow-ties; see :mod:`tunescope.stats.halves`.
        """
        if self.kept is not None:
            self._reduce(self.kept)
        records = [record for variant in self.states for record in self._records(variant)]
        return result_table(records)

    def _reduce(self, kept: KeptRows) -> None:
        """Reduce the kept rows block by block, as if they came in a second pass; then let go of them."""
        features = {f"{which}:{site}": kept.features(which, site) for which, site in self.keys}
        for name, values in features.items():
            self.deviations.moments[name] = Moments(values.shape[1]).update(values.astype(np.float64))
        for variant, state in self.states.items():
            for start in range(0, kept.rows, self.options.block):
                ranks = np.arange(start, min(start + self.options.block, kept.rows))
                state.update(
                    ranks,
                    {name: self._varied(values[ranks], name, variant) for name, values in features.items()},
                )
        self.kept = None

    def _records(self, variant: str) -> list[dict[str, Any]]:
        matrix = self.states[variant].matrix()
        by_name = {f"{which}:{site}": (which, site) for which, site in self.keys}
        records: list[dict[str, Any]] = []
        for entry in matrix.records():
            first, second = by_name[entry["first"]], by_name[entry["second"]]
            if (first[0], second[0]) == ("tuned", "base"):
                continue  # the transpose of base against tuned
            pair = first[0] if first[0] == second[0] else "base_tuned"
            records.append({
                "arm": self.subject.arm, "seed": self.subject.seed, "model": pair, "metric": METRICS[variant],
                "site": first[1].name, "layer": depth(first[1], self.subject.base),
                "site_other": second[1].name, "layer_other": depth(second[1], self.subject.tuned),
                "value": entry["value"], "low": entry["low"], "high": entry["high"], "n": entry["n"],
                "control": entry["control"], "method": entry["method"], "note": entry["note"],
                **stack_axes(first[1], second[1]),
            })  # fmt: skip
        about = {"arm": self.subject.arm, "seed": self.subject.seed, "similarity": METRICS[variant]}
        layers = min(self.subject.base.n_layers, self.subject.tuned.n_layers)
        if self.subject.tuned.is_encoder_decoder:
            return records  # a bow-tie is of one stack's halves
        return [*records, *bow_tie.bow_tie_records(matrix, layers, about)]


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say where tuning changed representations most, and what it did to the bow-tie; nothing for an equal trunk."""
    if subject.same_trunk:
        return []
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    same = own.filter(
        (pl.col("model") == "base_tuned")
        & (pl.col("metric") == "cka")
        & at_one_place(own)
        & pl.col("value").is_not_null()
    )
    if same.is_empty():
        return []
    least = same.sort("value").row(0, named=True)
    first = same.sort("layer").row(0, named=True)
    interval = "" if least["low"] is None else f" [{least['low']:.2f}, {least['high']:.2f}]"
    changed = least["high"] is not None and least["high"] < 0.99
    most, shuffled = f"{least['value']:.2f}{interval}", least["control"] or 0.0
    where, start = (site_name(row["site"], row["layer"], row.get("stack")) for row in (least, first))
    sentence = (
        f"Tuning changed representations most at {where}: CKA base against tuned {most}; at {start} it is "
        f"{first['value']:.2f}, for unrelated rows {round(shuffled, 2) + 0.0:.2f}."
    )
    return [
        Finding(
            lens="cka", arm=subject.arm, sentence=sentence, metric="cka", value=least["value"], low=least["low"],
            high=least["high"], n=least["n"], test="delete-a-group jackknife",
            control=f"rows shuffled: {least['control'] or 0:.3f}", rows=f"{least['n']} rows",
            verdict="task not learned" if subject.learned is False else ("found" if changed else "undecided"),
        ),
        *bow_tie.findings(own, subject),
    ]  # fmt: skip
