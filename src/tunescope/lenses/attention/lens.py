"""What tuning did to attention, head by head, on the same tokens.

Both models run side by side, block by block; each pattern is reduced to a number a text and head inside the hook, so
that two blocks' patterns are the most that is ever held. Attention that changed is not attention that matters:
read this beside the ablation of the same heads.

Formula:
    Entropy ``-sum_j a_j log a_j`` of a row of attention, over the logarithm of the tokens it may see;
    Jensen-Shannon divergence of base and tuned rows on the same tokens.

Range:
    Normalised entropy 0 (one token) to 1 (all alike); divergence 0 to 1 (in bits); sink and distance as shares.

How to read:
    A head that moved has a divergence above that of the same model's other seeds. High sink: attention rests on
    the first token and does little.

Cost:
    One pass of both models side by side; at most two blocks' patterns are held.

Limits:
    Attention that changed is not attention that matters: read it beside the ablation of the same head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.errors import LensError
from tunescope.lenses.attention.kept import KeptMaps
from tunescope.lenses.attention.regions import regions_of, shares
from tunescope.lenses.attention.statistics import Compared, Statistics, Visible, compared, means
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
    "are on the same tokens. By part of the input where it has parts (two texts; article, prompt and summary; special "
    "tokens), and whole maps of a few short texts."
)
OF_ONE = ("entropy", "entropy_without_sink", "sink_mass", "distance", "gini")
OF_BOTH = ("jensen_shannon", "kl")
CONTROL = "between_heads"
SHARE, IN_REGION = "region_share", "region_"
PERMUTATIONS = 1999


Key = tuple[str, str, str | None, str | None]  # model, metric, region of the queries, region of the keys


class AttentionOptions(BaseModel):
    """Options of the lens ``attention``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(default_factory=PromptedRows, description="which rows to look at")
    regions: bool = Field(True, description="also by part of the input, where it has more than one")
    divide_at: str | None = Field(
        None,
        min_length=1,
        description="what stands between two texts in one, such as '\\n': its first occurrence ends the first text; "
        "or null",
    )
    texts: int = Field(2, ge=0, description="texts whose maps are kept whole: 0 or more")
    longest: int = Field(32, ge=3, description="tokens of such a text at most: 3 or more")
    heads: int = Field(6, ge=1, description="heads whose maps are kept, those that changed most: 1 or more")
    of_heads: tuple[tuple[int, int], ...] = Field(
        (), description="a list of [layer, head] whose maps are kept instead, from 0"
    )


class AttentionLens(ReadingLens):
    """Reduces every block's pattern of base and tuned to statistics a text and head."""

    side_by_side = True

    def __init__(self, subject: Subject, options: AttentionOptions, rows: int) -> None:
        self.subject, self.options = subject, options
        tokens = subject.draw(options.rows, labelled=False)
        self.groups = clusters(tokens)
        self.regions = regions_of(subject, tokens, options.divide_at) if options.regions else None
        self.kept = KeptMaps(tokens, options.texts, options.longest)
        self._shape = (rows, subject.base.n_layers, subject.base.n_heads)
        self.values: dict[Key, np.ndarray] = {}
        # What even attention would give from region to region, by text: the control of the shares.
        names = self.regions.names if self.regions else ()
        self.even = np.full((rows, len(names), len(names)), np.nan, dtype=np.float32)
        self._held: dict[int, torch.Tensor] = {}
        for layer, head in options.of_heads:
            if not (0 <= layer < self._shape[1] and 0 <= head < self._shape[2]):
                raise LensError(
                    f"attention: of_heads names L{layer}H{head}; the model has {self._shape[1]} layers of "
                    f"{self._shape[2]} heads, both from 0."
                )

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
        before, after = self._held.pop(layer), view.activation
        found = compared(before, after, visible)
        for which, values in (("base", found.before), ("tuned", found.after), ("base_tuned", found.both)):
            self._store(which, values, view)
        if self.regions is not None:
            self._by_region(found, (before, after), visible, view)
        self.kept.update(replace(view, which="base"), before)
        self.kept.update(view, after)

    def _by_region(
        self, found: Compared, patterns: tuple[torch.Tensor, torch.Tensor], visible: Visible, view: View
    ) -> None:
        """Average over the queries of each region, and add up what each region gives to each."""
        assert self.regions is not None
        masks = self.regions.masks(view.ranks, visible.mask.shape[1]).to(visible.mask.device)
        for number, name in enumerate(self.regions.names):
            for which, each in found.each.items():
                self._store(which, means(each, masks[:, number]), view, name)
        for which, pattern in zip(("base", "tuned"), patterns, strict=True):
            given, even = shares(pattern, visible, masks)
            for start, name in enumerate(self.regions.names):
                for end, other in enumerate(self.regions.names):
                    self._store(which, {SHARE: given[:, :, start, end]}, view, name, other)
            self.even[view.ranks] = even.float().cpu().numpy()

    def _store(
        self, which: str, found: Statistics, view: View, region: str | None = None, to: str | None = None
    ) -> None:
        for metric, value in found.items():
            own = self.values.setdefault(
                (which, metric, region, to), np.full(self._shape, np.nan, dtype=np.float32)
            )
            own[view.ranks, view.site.layer] = value.float().cpu().numpy()

    def table(self) -> pl.DataFrame:
        """Return every statistic of every head, before and after, with the paired difference; texts are clusters."""
        records: list[dict[str, Any]] = []
        names = self.regions.names if self.regions else ()
        for region in (None, *names):
            for metric in OF_ONE:
                records += self._paired(metric, region, None, tested=region is None)
            for metric in OF_BOTH:
                records += self._records(
                    ("base_tuned", metric, region, None), self._of("base_tuned", metric, region)
                )
            for to in names if region is not None else ():
                records += self._paired(SHARE, region, to, tested=True)
        between = self._control()
        for record in records:
            if record["metric"] == "jensen_shannon":
                record["control"] = between[record["layer"]]
            if record["metric"] == SHARE and record["model"] != "tuned_minus_base":
                even = self.even[:, names.index(record["region"]), names.index(record["to_region"])]
                record["control"] = float(np.nanmean(even)) if np.isfinite(even).any() else None
        return result_table(records)

    def examples(self) -> pl.DataFrame | None:
        """Return whole maps of a few texts, of the heads that changed most on average."""
        if self.options.of_heads:
            return self.kept.table(self.subject, list(self.options.of_heads))
        apart = np.nanmean(self._of("base_tuned", "jensen_shannon", None), axis=0)  # [L, H]
        order = np.argsort(-np.nan_to_num(apart), axis=None, kind="stable")[: self.options.heads]
        heads = [(int(one) // apart.shape[1], int(one) % apart.shape[1]) for one in order]
        return self.kept.table(self.subject, heads)

    def _of(self, which: str, metric: str, region: str | None, to: str | None = None) -> np.ndarray:
        """Return a statistic, [rows, layers, heads]; NaN throughout where no text has it."""
        known = self.values.get((which, metric, region, to))
        return np.full(self._shape, np.nan, dtype=np.float32) if known is None else known

    def _paired(self, metric: str, region: str | None, to: str | None, tested: bool) -> list[dict[str, Any]]:
        before, after = (self._of(which, metric, region, to) for which in ("base", "tuned"))
        made = [
            ("base", before, False),
            ("tuned", after, False),
            ("tuned_minus_base", after - before, tested),
        ]
        return [
            record
            for which, values, test in made
            for record in self._records((which, metric, region, to), values, test)
        ]

    def _control(self) -> list[float | None]:
        """Return, for each layer, how far two different heads of the base are apart on average."""
        known = self._of("base", CONTROL, None)
        means = [known[:, layer][np.isfinite(known[:, layer])] for layer in range(known.shape[1])]
        return [float(one.mean()) if one.size else None for one in means]

    def _records(self, key: Key, values: np.ndarray, tested: bool = False) -> list[dict[str, Any]]:
        which, metric, region, to = key
        if region is not None and metric != SHARE:
            metric = f"{IN_REGION}{metric}"  # a name of its own: whoever asks for entropy means that of whole texts
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
        where = {} if region is None else {"region": region, "to_region": to}
        return [
            {
                "arm": subject.arm, "seed": subject.seed, "model": which, "site": "attn_pattern",
                "layer": index // heads, "head": index % heads, "metric": metric, "value": one.value, "low": one.low,
                "high": one.high, "n": one.n, "p": p[index], "q": q[index], "note": one.note or note, **where,
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
