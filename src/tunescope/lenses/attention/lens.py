"""What tuning did to attention, head by head, on the same tokens.

Both models run side by side, block by block; each pattern is reduced to a number a text and head inside the hook, so
that two blocks' patterns are the most that is ever held. Attention that changed is not attention that matters:
read this beside the ablation of the same heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.lenses.attention.statistics import Statistics, Visible, compared
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.results import Finding, result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "Where each head looks before and after tuning: entropy over the visible tokens (with and without the first token, "
    "on which many heads rest), distance, share on the first token, concentration; and how far apart the two patterns "
    "are on the same tokens."
)
OF_ONE = ("entropy", "entropy_without_sink", "sink_mass", "distance", "gini")
OF_BOTH = ("jensen_shannon", "kl")
CONTROL = "between_heads"
PERMUTATIONS = 1999


class AttentionOptions(BaseModel):
    """Options of the lens ``attention``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(default_factory=PromptedRows, description="which rows to look at")


class AttentionLens(ReadingLens):
    """Reduces every block's pattern of base and tuned to statistics a text and head."""

    side_by_side = True

    def __init__(self, subject: Subject, options: AttentionOptions, rows: int) -> None:
        base = subject.base
        self.subject = subject
        tokens = subject.draw(options.rows, labelled=False)
        self.groups = clusters(tokens)
        shape = (rows, base.n_layers, base.n_heads)
        self.values: dict[tuple[str, str], np.ndarray] = {
            (which, metric): np.full(shape, np.nan, dtype=np.float32)
            for which, metrics in (
                ("base", (*OF_ONE, CONTROL)), ("tuned", OF_ONE), ("base_tuned", OF_BOTH),
            )
            for metric in metrics
        }  # fmt: skip
        self._held: dict[int, torch.Tensor] = {}

    def sites(self, model: Classifier) -> list[Site]:
        """Return the attention pattern of every block."""
        return [Site("attn_pattern", layer) for layer in range(model.n_layers)]

    def update(self, view: View) -> None:
        """Hold the base's pattern of a block until the tuned model's has come, and reduce both."""
        layer = view.site.layer
        assert layer is not None
        if view.which == "base":
            self._held[layer] = view.activation
            return
        visible = Visible.of(view.attention_mask, view.model.family.language_kind == "causal")
        found = compared(self._held.pop(layer), view.activation, visible)
        self._store("base", found.before, view)
        self._store("tuned", found.after, view)
        self._store("base_tuned", found.both, view)

    def _store(self, which: str, found: Statistics, view: View) -> None:
        for metric, value in found.items():
            self.values[which, metric][view.ranks, view.site.layer] = value.float().cpu().numpy()

    def table(self) -> pl.DataFrame:
        """Return every statistic of every head, before and after, with the paired difference; texts are clusters."""
        records: list[dict[str, Any]] = []
        between = self._control()
        for metric in OF_ONE:
            before, after = self.values["base", metric], self.values["tuned", metric]
            records += self._records("base", metric, before)
            records += self._records("tuned", metric, after)
            records += self._records("tuned_minus_base", metric, after - before, tested=True)
        for metric in OF_BOTH:
            own = self._records("base_tuned", metric, self.values["base_tuned", metric])
            records += [
                {**record, "control": between[record["layer"]] if metric == "jensen_shannon" else None}
                for record in own
            ]
        return result_table(records)

    def _control(self) -> list[float | None]:
        """Return, for each layer, how far two different heads of the base are apart on average."""
        known = self.values["base", CONTROL]
        means = [known[:, layer][np.isfinite(known[:, layer])] for layer in range(known.shape[1])]
        return [float(one.mean()) if one.size else None for one in means]

    def _records(
        self, which: str, metric: str, values: np.ndarray, tested: bool = False
    ) -> list[dict[str, Any]]:
        subject, (_, layers, heads) = self.subject, values.shape
        # Which texts are too short for a statistic depends on the text alone, so whole rows drop out.
        kept = np.isfinite(values).all(axis=(1, 2))
        flat, groups = values[kept].reshape(int(kept.sum()), -1).astype(np.float64), self.groups[kept]
        intervals = bootstrap_means(flat, groups, seed=subject.sampling_seed)
        p = np.full(layers * heads, np.nan)
        if tested and len(flat):
            p = sign_flip_p(flat, groups, permutations=PERMUTATIONS, seed=subject.sampling_seed)
        q = benjamini_hochberg(p) if tested else p
        short = len(kept) - int(kept.sum())
        note = f"{short} texts with too few tokens left out" if short else None
        return [
            {
                "arm": subject.arm, "seed": subject.seed, "model": which, "site": "attn_pattern",
                "layer": index // heads, "head": index % heads, "metric": metric, "value": one.value, "low": one.low,
                "high": one.high, "n": one.n, "p": p[index], "q": q[index], "note": one.note or note,
            }
            for index, one in enumerate(intervals)
        ]  # fmt: skip


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say which head's attention changed most, and whether heads became more or less selective."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    apart = own.filter((pl.col("metric") == "jensen_shannon") & pl.col("value").is_not_null())
    if apart.is_empty() or not apart["value"].max():
        return []
    most = apart.sort("value", descending=True).row(0, named=True)
    change = own.filter(
        (pl.col("metric") == "entropy_without_sink") & (pl.col("model") == "tuned_minus_base")
    ).drop_nulls("value")
    fell = int(((change["value"] < 0) & (change["q"] <= 0.05)).sum())
    rose = int(((change["value"] > 0) & (change["q"] <= 0.05)).sum())
    against = most["control"]
    held = "" if against is None else f"; two heads of that layer of the base differ by {against:.3f}"
    sentence = (
        f"The attention of L{most['layer']}H{most['head']} changed most: {most['value']:.3f} bits "
        f"[{most['low']:.3f}, {most['high']:.3f}] of at most 1 (Jensen-Shannon, mean over queries and texts{held}). "
        f"Without the first token, {fell} of {change.height} heads became more selective and {rose} less (q ≤ 0.05)."
    )
    return [
        Finding(
            lens="attention", arm=subject.arm, sentence=sentence, metric="jensen_shannon", value=most["value"],
            low=most["low"], high=most["high"], n=most["n"],
            test="bootstrap over texts; heads picked and shown on the same rows",
            control="none" if against is None else f"different heads of one layer of the base: {against:.3f}",
            rows=f"{most['n']} rows", verdict="task not learned" if subject.learned is False else "found",
        )
    ]  # fmt: skip
