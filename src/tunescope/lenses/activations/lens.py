"""How large activations are, layer by layer and site by site, and what tuning did to them.

Norms and mean magnitudes of the stream and of what attention and MLPs write into it; massive activations, single
numbers thousands of times larger than the median (Sun et al. 2024, arXiv 2402.17762); and the neurons that tuning
moved most. States are reduced in the hook: what is kept grows with rows times layers, not with tokens or width.

Formula:
    Mean and largest absolute value of a site's states; an activation is massive above 100 and 1,000 times the
    median. A neuron's shift: the mean paired difference, tuned minus base, of its mean activation a text.

Range:
    Sizes from 0; shifts in the neuron's own unit, any sign.

How to read:
    Norms that grow with depth are common; look at the change base to tuned. Shifted neurons are picked on one
    half of the texts and shown on the other.

Cost:
    One pass of each model; what is kept grows with rows times layers.

Limits:
    A large activation need not matter, and a mean that moved need not move any answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.lenses.activations.neuron_shifts import NeuronShifts
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.lenses.reading import ReadingLens, View
from tunescope.lenses.subject import Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.results import Finding, result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "Size of the activations by layer and site (norm and mean magnitude a token), massive activations (the largest "
    "number of the stream over the median), and the neurons whose mean moved most."
)
SITES = ("resid_post", "attn_out", "mlp_out", "mlp_neurons")
SIZES = ("norm", "norm_without_first", "magnitude")
MASSIVE = ("largest", "largest_over_median", "massive")
LEAST_SIZE, LEAST_RATIO = 100.0, 1000.0  # Sun et al. 2024, section 2
MEDIAN_EVERY, MEDIAN_WHOLE = 16, 32  # of texts of more than 32 tokens, every 16th gives the median
PERMUTATIONS = 1999
Record = dict[str, Any]


class ActivationOptions(BaseModel):
    """Options of the lens ``activations``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: PromptedRows = Field(
        default_factory=lambda: PromptedRows(n=512), description="which rows to look at"
    )
    top: int = Field(20, ge=1, description="how many of the neurons that moved most are listed: 1 or more")
    keep: int = Field(
        0, ge=0, description="neurons of every layer whose means are kept one by one: 0 or more"
    )


class ActivationLens(ReadingLens):
    """Keeps a few numbers a row, layer and site of both models, and sums over rows for every neuron."""

    def __init__(self, subject: Subject, options: ActivationOptions, rows: int) -> None:
        self.subject, self.options = subject, options
        self.groups = clusters(subject.draw(options.rows, labelled=False))
        self.places = {site: index for index, site in enumerate(self.sites(subject.tuned))}
        layers = subject.tuned.n_layers
        self.sizes = {
            (which, metric): np.full((rows, len(self.places)), np.nan, dtype=np.float32)
            for which in ("base", "tuned")
            for metric in SIZES
        }
        self.massive = {
            (which, metric): np.full((rows, layers), np.nan, dtype=np.float32)
            for which in ("base", "tuned")
            for metric in (*MASSIVE, "position", "dimension")
        }
        self.neurons = NeuronShifts(self.groups, layers, derive_seed(subject.sampling_seed, "neurons"))

    def sites(self, model: Classifier) -> list[Site]:
        """Return the stream after every block, what attention and MLP add to it, and the MLP's neurons."""
        return [Site(name, layer) for name in SITES for layer in range(model.n_layers)]

    def update(self, view: View) -> None:
        """Reduce one activation to a few numbers a row."""
        values = view.activation.float()
        mask = view.attention_mask.to(values.device)
        lengths = mask.sum(1)
        norms = torch.linalg.vector_norm(values, dim=-1) * mask
        sums = torch.linalg.vector_norm(values, 1, dim=-1) * mask  # no second tensor of the activation's size
        total = norms.sum(1)
        self._keep(view, "norm", total / lengths)
        # A text of one token has no other: 0 / 0 is the NaN that says so.
        self._keep(view, "norm_without_first", (total - norms[:, 0]) / (lengths - 1))
        self._keep(view, "magnitude", sums.sum(1) / lengths / values.shape[-1])
        if view.site.name == "resid_post":
            self._largest(view, values, lengths.tolist())
        if view.site.name == "mlp_neurons":
            # A product of matrices; einsum would write the masked neurons out first, which costs 15 times as much.
            means = torch.bmm(mask.to(values.dtype)[:, None], values)[:, 0] / lengths[:, None]
            take = self.neurons.before if view.which == "base" else self.neurons.after
            take(_layer(view.site), view.ranks, means.cpu().numpy())

    def _keep(self, view: View, metric: str, value: torch.Tensor) -> None:
        self.sizes[view.which, metric][view.ranks, self.places[view.site]] = value.cpu().numpy()

    def _largest(self, view: View, values: torch.Tensor, lengths: Sequence[int]) -> None:
        """Keep the largest number of each row's states, the median, and where the largest stands."""
        layer = _layer(view.site)
        for rank, row, length in zip(view.ranks.tolist(), values, lengths, strict=True):
            sizes = row[:length].abs()
            few = sizes if length <= MEDIAN_WHOLE else sizes[MEDIAN_EVERY // 2 - 1 :: MEDIAN_EVERY]
            place = int(sizes.argmax())
            largest, median = float(sizes.view(-1)[place]), float(few.median())
            ratio = largest / median if median else np.nan
            found = {
                "largest": largest, "largest_over_median": ratio,
                "massive": float(largest > LEAST_SIZE and ratio >= LEAST_RATIO),
                "position": place // sizes.shape[1], "dimension": place % sizes.shape[1],
            }  # fmt: skip
            for name, value in found.items():
                self.massive[view.which, name][rank, layer] = value

    def examples(self) -> pl.DataFrame | None:
        """Return the mean activation of the first neurons of every layer, before and after; None where none is kept."""
        if not self.options.keep:
            return None
        parts = []
        for layer in range(self.subject.tuned.n_layers):
            means = self.neurons.means(layer)[:, : self.options.keep]
            for which, values in zip(("base", "tuned"), means, strict=True):
                parts.append(pl.DataFrame({"neuron": np.arange(len(values)), "value": values}).with_columns(
                    arm=pl.lit(self.subject.arm), seed=pl.lit(self.subject.seed, dtype=pl.Int64), model=pl.lit(which),
                    layer=pl.lit(layer, dtype=pl.Int64),
                ))  # fmt: skip
        return pl.concat(parts)

    def table(self) -> pl.DataFrame:
        """Return sizes and massive activations before, after and paired; then the neurons that moved most."""
        records = [*self._size_records(), *self._massive_records(), *self._neuron_records()]
        about = {"arm": self.subject.arm, "seed": self.subject.seed}
        return result_table([{**about, **record} for record in records])

    def _size_records(self) -> Iterator[Record]:
        places = [{"site": site.name, "layer": site.layer} for site in self.places]
        for metric in SIZES:
            pair = (self.sizes["base", metric], self.sizes["tuned", metric])
            yield from self._paired(metric, pair, places)

    def _massive_records(self) -> Iterator[Record]:
        layers = range(self.subject.tuned.n_layers)
        for metric in MASSIVE:
            places = [{"site": "resid_post", "layer": layer} for layer in layers]
            pair = (self.massive["base", metric], self.massive["tuned", metric])
            for record in self._paired(metric, pair, places):
                if record["model"] in ("base", "tuned"):
                    record |= self._where(record["model"], record["layer"])
                yield record

    def _where(self, which: str, layer: int) -> Record:
        """Return the dimension and position of most rows' largest number, and the share of rows that agree."""
        found: Record = {}
        for axis in ("dimension", "position"):
            seen = self.massive[which, axis][:, layer].astype(np.int64)
            kinds, counts = np.unique(seen, return_counts=True)
            found[axis] = int(kinds[counts.argmax()])
            found[f"share_{axis}"] = float(counts.max() / counts.sum())
        return found

    def _paired(
        self, metric: str, pair: tuple[np.ndarray, np.ndarray], places: Sequence[Record]
    ) -> Iterator[Record]:
        """Yield mean and interval before, after and of the paired difference at every place; texts are clusters."""
        kept = np.isfinite(pair[0]).all(axis=1) & np.isfinite(pair[1]).all(axis=1)
        before, after = (one[kept].astype(np.float64) for one in pair)
        groups, seed = self.groups[kept], self.subject.sampling_seed
        left = len(kept) - int(kept.sum())
        note = f"{left} texts of one token, or of nothing but zeros, left out" if left else None
        for model, values in (("base", before), ("tuned", after), ("tuned_minus_base", after - before)):
            tested = model == "tuned_minus_base" and len(values) > 0
            p = (
                sign_flip_p(values, groups, permutations=PERMUTATIONS, seed=seed)
                if tested
                else np.full(len(places), np.nan)
            )
            q = benjamini_hochberg(p) if tested else p
            for index, one in enumerate(bootstrap_means(values, groups, seed=seed)):
                yield {
                    **places[index], "model": model, "metric": metric, "value": one.value, "low": one.low,
                    "high": one.high, "n": one.n, "p": p[index], "q": q[index], "note": one.note or note,
                }  # fmt: skip

    def _neuron_records(self) -> Iterator[Record]:
        for rank, shift in enumerate(self.neurons.strongest(self.options.top)):
            about = {
                "site": "mlp_neurons", "layer": shift.layer, "neuron": shift.neuron, "rank": rank, "n": shift.n,
            }  # fmt: skip
            yield {**about, "metric": "neuron_mean", "model": "base", "value": shift.base}
            yield {**about, "metric": "neuron_mean", "model": "tuned", "value": shift.tuned}
            yield {
                **about, "metric": "neuron_shift", "model": "tuned_minus_base", "value": shift.value,
                "low": shift.low, "high": shift.high, "p": shift.p, "q": shift.q, "control": shift.control,
                "picked": shift.picked,
            }  # fmt: skip
        for layer, share, count in self.neurons.shifted():
            yield {
                "site": "mlp_neurons", "layer": layer, "metric": "neurons_shifted", "model": "tuned_minus_base",
                "value": share, "n": count,
            }  # fmt: skip


def _layer(site: Site) -> int:
    assert site.layer is not None
    return site.layer


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say where the stream's norm changed most, whether massive activations stayed, and which neuron moved most."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    made = (_of_norms(own), _of_massive(own), _of_neurons(own))
    return [
        Finding(
            lens="activations", arm=subject.arm, rows=f"{one['n']} rows",
            **{key: one[key] for key in ("sentence", "metric", "value", "low", "high", "n", "test", "control")},
            verdict="task not learned" if subject.learned is False else "found" if one["sure"] else "undecided",
        )
        for one in made if one is not None
    ]  # fmt: skip


def _of_norms(own: pl.DataFrame) -> Record | None:
    norms = own.filter((pl.col("metric") == "norm") & (pl.col("site") == "resid_post")).drop_nulls("value")
    change = norms.filter(pl.col("model") == "tuned_minus_base")
    base = norms.filter(pl.col("model") == "base").select("layer", before="value")
    change = change.join(base, on="layer").with_columns(share=pl.col("value") / pl.col("before"))
    if change.is_empty() or not change["value"].abs().max():
        return None
    most = change.sort(pl.col("share").abs(), descending=True).row(0, named=True)
    sentence = (
        f"The stream's norm changed most after block {most['layer']}: by {most['share']:+.1%} of "
        f"{most['before']:.3g} ({most['value']:+.3g} [{most['low']:.3g}, {most['high']:.3g}], mean over tokens and "
        f"texts, q = {most['q']:.2g} over all layers and sites)."
    )
    return {
        **most, "sentence": sentence, "sure": most["q"] <= 0.05, "control": f"the base's: {most['before']:.3g}",
        "test": "bootstrap and sign flips over texts; the layer picked and shown on the same rows",
    }  # fmt: skip


def _of_massive(own: pl.DataFrame) -> Record | None:
    ratios = own.filter(pl.col("metric") == "largest_over_median").drop_nulls("value")
    base, tuned = (ratios.filter(pl.col("model") == model) for model in ("base", "tuned"))
    if base.is_empty():
        return None
    most = base.sort("value", descending=True).row(0, named=True)
    after = tuned.filter(pl.col("layer") == most["layer"]).row(0, named=True)
    change = ratios.filter((pl.col("model") == "tuned_minus_base") & (pl.col("layer") == most["layer"]))
    massive = own.filter((pl.col("metric") == "massive") & (pl.col("layer") == most["layer"]))
    share = {row["model"]: row["value"] for row in massive.iter_rows(named=True)}
    same = after["dimension"] == most["dimension"] and after["position"] == most["position"]
    stays = "the same place" if same else f"dimension {after['dimension']}, position {after['position']}"
    sentence = (
        f"After block {most['layer']} the base's largest number is {most['value']:.0f} times the median (dimension "
        f"{most['dimension']} in {most['share_dimension']:.0%} of texts, position {most['position']}); tuned, "
        f"{after['value']:.0f} times ({stays}). Massive (above 100 and 1,000 times the median): "
        f"{share['base']:.0%} of texts before, {share['tuned']:.0%} after."
    )
    test = change.row(0, named=True)
    return {
        **test, "sentence": sentence, "sure": (test["q"] or 0.0) <= 0.05,
        "control": f"the base's: {most['value']:.0f}", "test": "bootstrap and sign flips over texts",
    }  # fmt: skip


def _of_neurons(own: pl.DataFrame) -> Record | None:
    rows = own.filter((pl.col("metric") == "neuron_shift") & (pl.col("rank") == 0)).drop_nulls("value")
    if rows.is_empty() or not rows["value"][0]:
        return None
    one = rows.row(0, named=True)
    share = own.filter(pl.col("metric") == "neurons_shifted")
    moved = float(np.average(share["value"].to_numpy(), weights=share["n"].to_numpy()))
    sentence = (
        f"The neuron that tuning moved most is L{one['layer']}N{one['neuron']}: {one['value']:+.3g} "
        f"[{one['low']:.3g}, {one['high']:.3g}] in its mean activation, picked on one half of the texts and shown on "
        f"the other (a typical neuron of that block: {one['control']:.2g}); {moved:.0%} of all neurons moved "
        "(q ≤ 0.05)."
    )
    return {
        **one, "sentence": sentence, "sure": one["q"] <= 0.05, "test": "paired t test, corrected over all neurons",
        "control": f"median shift of the block's neurons: {one['control']:.2g}",
    }  # fmt: skip
