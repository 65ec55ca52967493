"""Checks of geometry: equal models, unrelated features, loud and deciding dimensions, rotated states, maps."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.doctor.check import Bench, Line, at_most, near, same, smallest_found
from tunescope.doctor.subjects import a_model, random_rows, seen, subject_of
from tunescope.lenses import LENSES, NOT_OF_TWO
from tunescope.lenses.dimensions.head_input import read_head_input
from tunescope.lenses.subject import Subject
from tunescope.models import Classifier
from tunescope.stats.hsic import BlockHSIC, cka
from tunescope.stats.procrustes import procrustes
from tunescope.stats.rsa import rsa
from tunescope.stats.spread import Covariance
from tunescope.stats.thresholds import best_thresholds

# What must be told to a lens beside the rows, so that it is quick or can look at all.
QUICK: dict[str, dict[str, Any]] = {
    "maps": {
        "methods": ("pca",), "axes": (2,), "rows": {"n": 30},
        "clusters": {"resamples": 20, "permutations": 19, "most": 3},
    },
    "ablation": {"random_control": False, "reference_rows": 10, "edits": ("zero",)},
    "patching": {"sites": ("head_out",), "unrelated_control": False, "pairs": {"kind": "rows"}, "floor": 0.01},
    "patching_cross": {"sites": ("head_out", "resid_pre")},
    "grafting": {"parts": ("block",), "smallest": (), "weight_rows": ()},
    "words": {"gradient_rows": 0, "rows": {"n": 8}},
    "similarity": {"resamples": 20, "permutations": 19},
    "dimensions": {"random": 3, "support_vectors": False},
    "probes": {"untrained": False},
}  # fmt: skip
SIMILARITIES = ("cka", "similarity", "other_models")
OF_CHANGE = ("tuned_minus_base", "base_tuned")
ALIKE = (
    "spearman",
    "rank_correlation",
    "agreement",
    "shared",
)  # measures of likeness: 1, or all, for one model


def identical_models(bench: Bench) -> Iterable[Line]:
    """Look at one model as base and as tuned through every lens: similarities are 1, changes 0, nothing is found."""
    model = a_model(bench.folder, "gpt2")
    twin = copy.deepcopy(model)
    for name in (name for name in LENSES if name not in NOT_OF_TWO):
        subject = subject_of(model, twin, random_rows(60), "probe")
        options = {"rows": {"split": "validation", "n": 24}, **QUICK.get(name, {})}
        if name == "other_models":
            options["models"] = {"itself": model.record["path"]}
        if "rows" not in LENSES[name].options.model_fields:
            del options["rows"]
        output = seen(subject, name, **options)
        table = output.table
        if name in SIMILARITIES:
            yield _all_one(name, table)
        else:
            yield _all_zero(name, table)
        if name != "other_models":  # whether base and tuned are like a third model is another question
            changed = [
                one.sentence
                for one in output.findings
                if one.verdict == "found" and _of_change(one.metric, one.sentence)
            ]
            yield same(f"{name}: findings of a change", [], changed)


def _of_change(metric: str, sentence: str) -> bool:
    return "difference" in metric or sentence.startswith("Tuning ")


def _all_one(name: str, table: pl.DataFrame) -> Line:
    here = (pl.col("site") == pl.col("site_other")) & (pl.col("layer") == pl.col("layer_other"))
    across = pl.col("model").is_in(["base_tuned", "tuned_other", "base_other"])
    likeness = pl.col("metric").str.contains("cka|rsa|procrustes")
    values = table.filter(here & across & likeness)["value"].drop_nulls()
    gap = float((values - 1).abs().max()) if values.len() else float("nan")  # type: ignore[arg-type]
    return at_most(f"{name}: largest distance from 1 at {values.len()} places", 1e-6, gap)


def _all_zero(name: str, table: pl.DataFrame) -> Line:
    changes = table.filter(pl.col("model").is_in(OF_CHANGE) & pl.col("value").is_not_null())
    changes = changes.filter(~pl.col("metric").str.contains("|".join(ALIKE)))
    only = {"maps": "movement", "patching_cross": "gain_margin", "grafting": "gain_margin"}.get(name)
    if only is not None:  # their other numbers are shares of the change, and agreements
        changes = table.filter((pl.col("metric") == only) & pl.col("value").is_not_null())
    if not changes.height:
        return Line(f"{name}: changes", "0, or none", "none", True)
    most = float(changes["value"].abs().max())  # type: ignore[arg-type]
    return at_most(f"{name}: largest of {changes.height} changes", 1e-5, most)


def independent_gaussians(bench: Bench) -> Iterable[Line]:
    """Compare features that have nothing to do with one another: unbiased CKA scatters around 0."""
    n, d, draws = 128, 256, 40
    values, streamed, inside = [], [], 0
    for trial in range(draws):
        x, y = _gaussians(n, d, trial)
        values.append(cka(x, y).value)
        state = BlockHSIC(["x", "y"], n, block=64, full_below=0)
        matrix = state.update(np.arange(n), {"x": x, "y": y}).matrix()
        streamed.append(matrix.value[0, 1])
        inside += bool(matrix.low[0, 1] <= 0 <= matrix.high[0, 1])
    for name, drawn in (("in one block", values), ("streamed in blocks of 64", streamed)):
        error = float(np.std(drawn, ddof=1) / np.sqrt(draws))
        mean = float(np.mean(drawn))
        yield Line(
            f"mean CKA {name}, {n} rows, {d} dimensions", f"0 (within 4 standard errors, {4 * error:.4f})",
            f"{mean:.4f} ({draws} draws)", abs(mean) <= 4 * error,
        )  # fmt: skip
    share = inside / draws
    yield Line("intervals of CKA that hold 0", "80 % or more", f"{share:.0%} of {draws}", share >= 0.8)
    biased = cka(*_gaussians(n, d, 0), unbiased=False).value
    wanted = 1 / (1 + (n - 1) / d)  # both kernels are close to d times the identity
    yield near("biased CKA, for comparison (its expectation is far from 0)", wanted, biased, 0.05)
    x, y = _gaussians(n, 64, 7)
    turned = 3 * x @ np.linalg.qr(np.random.default_rng(1).normal(size=(64, 64)))[0] + 5
    yield near("CKA of features turned, scaled and moved", 1.0, cka(x, turned).value, 1e-9)
    yield near("RSA of the same", 1.0, rsa(x, turned - 5, "cosine").value, 1e-9)
    yield near("Procrustes similarity of the same", 1.0, procrustes(x, turned).similarity, 1e-9)
    yield near("RSA of independent features", 0.0, rsa(x, y).value, 0.1)

    def found(share: float, trial: int) -> bool:
        first, second = _gaussians(256, 64, 1000 + trial)
        state = BlockHSIC(["x", "y"], 256)
        matrix = state.update(
            np.arange(256), {"x": first, "y": share * first + (1 - share) * second}
        ).matrix()
        return bool(matrix.low[0, 1] > 0)

    yield smallest_found(
        "features that share a part: the interval of CKA lies above 0",
        "of the amplitude shared (256 rows, 64 dimensions)",
        (0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
        30,
        found,
    )


def _gaussians(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)), generator.standard_normal((n, d))


def rogue_dimension(bench: Bench) -> Iterable[Line]:
    """Plant a dimension that decides and one that is by far the loudest and says nothing, and tell them apart."""
    deciding, loud = 3, 7
    base = a_model(bench.folder, "gpt2", labels=("bad", "good"))
    model = copy.deepcopy(base)
    trunk: Any = model.trunk
    head: Any = model.model
    with torch.no_grad():
        trunk.ln_f.weight[loud] *= 40
        head.score.weight.zero_()
        head.score.weight[1, deciding] = 1.0
    subject = _labelled_by(model, base, deciding)
    table = seen(
        subject, "dimensions", rows={"n": 120}, train_rows=120, random=5, support_vectors=False
    ).table
    own = table.filter(pl.col("model") == "tuned")
    one = own.filter(pl.col("metric") == "one_dimension_accuracy")
    by_variance, by_accuracy = (
        one.filter(pl.col("by") == by).row(0, named=True) for by in ("variance", "train accuracy")
    )
    yield same("dimension of greatest variance", loud, by_variance["dimension"])
    yield same("dimension that decides", deciding, by_accuracy["dimension"])
    met = by_variance["value"] < 0.75 < 0.97 < by_accuracy["value"]
    yield Line(
        "accuracy of each alone, by one threshold", "loud below 0.75, deciding above 0.97",
        f"{by_variance['value']:.3f} and {by_accuracy['value']:.3f}", met,
    )  # fmt: skip
    shares = own.filter((pl.col("metric") == "logit_share") & (pl.col("class") == "good")).sort("value")
    yield near("share of the logit that the deciding one carries", 1.0, shares["value"][-1], 1e-6)
    top = seen(subject, "spread", rows={"n": 120}).table.filter(
        (pl.col("metric") == "variance_over_mean") & (pl.col("rank") == 0) & (pl.col("model") == "tuned")
        & (pl.col("site") == "final_norm_out")
    )  # fmt: skip
    yield same("loudest dimension by the lens spread", [loud], top["dimension"].to_list())
    values = np.random.default_rng(0).normal(size=(500, 6)) * [1, 2, 3, 4, 5, 30]
    state = Covariance(6).update(values[:200]).update(values[200:])
    gap = float(np.abs(state.matrix() - np.cov(values.T)).max())
    yield at_most("covariance in two pieces minus numpy's", 1e-9, gap)
    yield _smallest_dimension()


def _labelled_by(model: Classifier, base: Classifier, dimension: int) -> Subject:
    """Return a subject whose labels are the sign of one dimension of the head's input."""
    subject = subject_of(base, model, random_rows(240, classes=2), "none")
    for tokens in subject.splits.values():
        values = read_head_input(model, tokens).values[:, dimension]
        object.__setattr__(tokens, "labels", (values > 0).astype(np.int64))
    return subject


def _smallest_dimension() -> Line:
    def found(distance: float, trial: int) -> bool:
        generator = np.random.default_rng(trial)
        labels = generator.integers(0, 2, 400)
        values = generator.normal(size=(400, 64))
        values[:, 7] *= 40
        values[:, 3] += distance * labels
        fitted = best_thresholds(values[:200], labels[:200], 2)
        chosen = int(fitted.accuracy.argmax())
        random = fitted.scores(values[200:], labels[200:])
        return chosen == 3 and random[3] > np.quantile(np.delete(random, 3), 0.95)

    return smallest_found(
        "the deciding one of 64 dimensions, chosen on 200 rows and above 95 % of the others on 200 more",
        "standard deviations between the classes",
        (0.3, 0.5, 0.7, 0.9, 1.2, 2.0),
        30,
        found,
    )


def maps(bench: Bench) -> Iterable[Line]:
    """Change the last block alone: earlier blocks do not move on the maps, the last one does."""
    base = a_model(bench.folder, "gpt2")
    tuned = copy.deepcopy(base)
    trunk: Any = tuned.trunk
    generator = torch.Generator().manual_seed(bench.seed)
    with torch.no_grad():
        weight = trunk.h[2].mlp.c_proj.weight
        weight.add_(torch.randn(weight.shape, generator=generator))
    options = {**QUICK["maps"], "layers": (0, 1, 2)}
    table = seen(subject_of(base, tuned, random_rows(80), "none"), "maps", **options).table
    moved = table.filter((pl.col("metric") == "movement") & (pl.col("method") == "full")).sort("layer")
    values = moved["value"].to_list()
    yield same(
        "blocks that moved, of 0, 1, 2", [2], [layer for layer, value in enumerate(values) if value > 1e-9]
    )
    yield Line("interval of the moved block", "above 0", f"from {moved['low'][2]:.3f}", moved["low"][2] > 0)
