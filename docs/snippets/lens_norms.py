"""How long the pooled states are, layer by layer: the smallest lens that does all that a lens must.

Formula:
    ``mean over rows of |h|``, h the pooled state of a row at a site.

Range:
    From 0; the unit is the model's own.

How to read:
    Look at the change from base to tuned; norms that grow with depth are common.

Cost:
    One pass of each model over the rows.

Limits:
    A longer state need not matter more: norms before a head do not change what comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.lenses import LensRows, ReadingLens, ReadLens, Subject, View
from tunescope.lenses.geometry.pooled import depth, stream_sites
from tunescope.lenses.geometry.positions import pooled_at
from tunescope.models.classifier import Classifier
from tunescope.stats.results import Finding, result_table

WHAT = "Mean Euclidean norm of the pooled states at every layer, base and tuned, with its 95 % interval over rows."


class NormOptions(BaseModel):
    """Options of the lens ``norms``: what a study may set, checked before anything runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")


class NormLens(ReadingLens):
    """Keeps one number a row, site and model, never the states."""

    def __init__(self, subject: Subject, options: NormOptions, rows: int) -> None:
        self.subject = subject
        self.norms: dict[tuple[str, Site], np.ndarray] = {}
        self.rows = rows

    def sites(self, model: Classifier) -> list[Site]:
        """Return the embeddings and the stream after every block."""
        return stream_sites(model)

    def update(self, view: View) -> None:
        """Reduce one activation to a number a row; ranks say which rows a batch holds."""
        kept = self.norms.setdefault((view.which, view.site), np.zeros(self.rows))
        kept[view.ranks] = pooled_at(view, None).double().norm(dim=1).cpu().numpy()

    def table(self) -> pl.DataFrame:
        """Return a row a model and site, with a normal interval over rows."""
        records = []
        for (which, site), norms in sorted(self.norms.items(), key=lambda one: one[0][0]):
            model = self.subject.base if which == "base" else self.subject.tuned
            half = 1.96 * norms.std(ddof=1) / np.sqrt(len(norms))
            records.append({
                "arm": self.subject.arm, "seed": self.subject.seed, "model": which, "site": site.name,
                "layer": depth(site, model), "metric": "mean_norm", "n": len(norms),
                "value": norms.mean(), "low": norms.mean() - half, "high": norms.mean() + half,
            })  # fmt: skip
        return result_table(records)


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Return sentences with number, interval, test and control; this lens only describes, so it has none."""
    return []


# In tunescope itself this is one line in LENSES (src/tunescope/lenses/__init__.py).
NORMS = ReadLens(NormOptions, WHAT, NormLens, findings)
