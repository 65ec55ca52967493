"""Linear CKA of pooled representations: layer by layer within each model, and base against tuned.

Kornblith et al. 2019 (arXiv 1905.00414); unbiased estimator HSIC_1 of Song et al. 2012; over fixed blocks of rows as
in Nguyen et al. 2021 (arXiv 2010.15327). 1 means equal up to rotation and scale, 0 unrelated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models.classifier import Classifier
from tunescope.stats.hsic import BlockHSIC
from tunescope.stats.results import Finding, result_table

WHAT = (
    "Unbiased linear CKA between the pooled states of all layers, within the base, within the tuned model and base "
    "against tuned; 1 is equal up to rotation and scale, 0 unrelated."
)


class CKAOptions(BaseModel):
    """Options of the lens ``cka``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=2000), description="which rows to look at")
    block: int = Field(256, ge=8, description="rows in a block of the streamed estimate: 8 or more")
    full_below: int = Field(1024, ge=0, description="up to this many rows, one block holds them all")


class CKALens(ReadingLens):
    """Streams pooled states of every layer of both models into one block-wise state."""

    def __init__(self, subject: Subject, options: CKAOptions, rows: int) -> None:
        self.subject = subject
        self.keys: list[tuple[str, Site]] = [
            (which, site)
            for which, model in (("base", subject.base), ("tuned", subject.tuned))
            for site in self.sites(model)
        ]
        names = [f"{which}:{site}" for which, site in self.keys]
        self.state = BlockHSIC(
            names,
            rows,
            block=options.block,
            full_below=options.full_below,
            permutation_seed=subject.sampling_seed,
        )

    def sites(self, model: Classifier) -> list[Site]:
        """Return embeddings, the residual stream after every block, and the final norm's output where there is one."""
        sites = [Site("embeddings"), *(Site("resid_post", layer) for layer in range(model.n_layers))]
        return sites if model.family.final_norm is None else [*sites, Site("final_norm_out")]

    def update(self, view: View) -> None:
        """Pool one site's states by the mask and add them to the block of their rows."""
        pooled = view.model.pool(view.activation, view.attention_mask)
        self.state.update(view.ranks, {f"{view.which}:{view.site}": pooled.float().cpu().numpy()})

    def table(self) -> pl.DataFrame:
        """Return one row per pair of sites with value, interval and the value for shuffled rows."""
        matrix = self.state.matrix()
        by_name = {f"{which}:{site}": (which, site) for which, site in self.keys}
        records: list[dict[str, Any]] = []
        for entry in matrix.records():
            first, second = by_name[entry["first"]], by_name[entry["second"]]
            if (first[0], second[0]) == ("tuned", "base"):
                continue  # the transpose of base against tuned
            pair = first[0] if first[0] == second[0] else "base_tuned"
            records.append({
                "arm": self.subject.arm, "seed": self.subject.seed, "model": pair, "metric": "cka",
                "site": first[1].name, "layer": depth(first[1], self.subject.base),
                "site_other": second[1].name, "layer_other": depth(second[1], self.subject.tuned),
                "value": entry["value"], "low": entry["low"], "high": entry["high"], "n": entry["n"],
                "control": entry["control"], "method": entry["method"], "note": entry["note"],
            })  # fmt: skip
        return result_table(records)


def depth(site: Site, model: Classifier) -> int:
    """Return a site's place on the depth axis: -1 for embeddings, the block's number, L for the final norm."""
    if site.layer is not None:
        return site.layer
    return -1 if site.name == "embeddings" else model.n_layers


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say where tuning changed representations most, unless it left the trunk alone."""
    if subject.same_trunk:
        return []
    same = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("model") == "base_tuned")
        & (pl.col("layer") == pl.col("layer_other"))
        & (pl.col("site") == pl.col("site_other"))
        & pl.col("value").is_not_null()
    )
    if same.is_empty():
        return []
    least = same.sort("value").row(0, named=True)
    first = same.sort("layer").row(0, named=True)
    interval = "" if least["low"] is None else f" [{least['low']:.2f}, {least['high']:.2f}]"
    changed = least["high"] is not None and least["high"] < 0.99
    most, shuffled = f"{least['value']:.2f}{interval}", least["control"] or 0.0
    sentence = (
        f"Tuning changed representations most at {_place(least)}: CKA base against tuned {most}; at {_place(first)} "
        f"it is {first['value']:.2f}, for unrelated rows {shuffled:.2f}."
    )
    return [
        Finding(
            lens="cka", arm=subject.arm, sentence=sentence, metric="cka", value=least["value"], low=least["low"],
            high=least["high"], n=least["n"], test="delete-a-group jackknife",
            control=f"rows shuffled: {least['control'] or 0:.3f}", rows=f"{least['n']} rows",
            verdict="task not learned" if subject.learned is False else ("found" if changed else "undecided"),
        )
    ]  # fmt: skip


def _place(row: dict[str, Any]) -> str:
    if row["layer"] < 0:
        return "the embeddings"
    return f"layer {row['layer']}" if row["site"] == "resid_post" else "the final norm's output"
