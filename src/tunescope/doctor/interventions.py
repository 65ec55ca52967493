"""Checks of patching and grafting: one planted head reads the word, or is all that tuning changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import torch

from tunescope.doctor.check import Bench, Line, near, same, smallest_found
from tunescope.doctor.subjects import keyword_rows, noisy_heads, perturbed, seen, subject_of
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models import Classifier, load
from tunescope.planted.changed import changed_head_models
from tunescope.planted.decisive import PlantedHead, planted_head_model

LAYER, HEAD = 1, 2
HERE = (pl.col("layer") == LAYER) & (pl.col("head") == HEAD)
EXACT = 1e-3
EVERYWHERE = 0.005  # how far all weights move beside the planted change, of each tensor's spread
CROSS = {"rows": {"n": 40}, "sites": ("head_out",), "directions": ("tuned_into_base",)}
GRAFT = {
    "rows": {"n": 40},
    "parts": ("head",),
    "curves": False,
    "both_ways": False,
    "smallest": (),
    "weight_rows": (),
}


def patching(bench: Bench) -> Iterable[Line]:
    """Plant the one head through which a changed word is read, and find it by patching between texts."""
    planted_head_model("gpt2", LAYER, HEAD, bench.folder / "model")
    model = load(str(bench.folder / "model"))
    subject = subject_of(model, model, keyword_rows(), "none")
    table = seen(subject, "patching", rows={"n": 40}, sites=("mlp_out", "head_out"), positions=("all",)).table
    for way, metric in (("denoising", "recovered"), ("noising", "lost")):
        own = table.filter(
            (pl.col("direction") == way)
            & (pl.col("metric") == metric)
            & (pl.col("estimator") == "ratio_of_sums")
        )
        plain = own.filter(pl.col("control") == "none")
        heads = plain.filter(pl.col("site") == "head_out")
        yield near(
            f"{way}: share of the gap {metric} by L{LAYER}H{HEAD}", 1.0, _one(heads.filter(HERE)), EXACT
        )
        yield near(f"{way}: largest share of another head", 0.0, _largest(heads.filter(~HERE)), EXACT)
        yield near(
            f"{way}: largest share of an MLP", 0.0, _largest(plain.filter(pl.col("site") == "mlp_out")), EXACT
        )
        for control, truth in (("no_op", 0.0), ("everything", 1.0)):
            yield near(
                f"{way}: control {control}", truth, _one(own.filter(pl.col("control") == control)), EXACT
            )

    def found(strength: float, trial: int) -> bool:
        noisy = noisy_heads(model, strength, 0.05, trial, (LAYER, HEAD))
        weak = subject_of(noisy, noisy, keyword_rows(120, seed=trial), "none", sampling_seed=trial)
        options = {"rows": {"n": 40}, "sites": ("head_out",), "directions": ("denoising",), "floor": 0.02}
        said = seen(weak, "patching", unrelated_control=False, **options).table
        picked = said.filter((pl.col("control") == "split_half") & (pl.col("estimator") == "ratio_of_sums"))
        row = picked.row(0, named=True) if picked.height else {}
        clear = row.get("low") is not None and row["low"] > 0
        return (row.get("layer"), row.get("head")) == (LAYER, HEAD) and clear

    yield smallest_found(
        "the head that reads the word, picked on one half of the texts and clear of 0 on the other, among 11 that "
        "write noise",
        "of what it wrote (40 pairs of texts)",
        (0.02, 0.05, 0.1, 0.2, 0.4),
        10,
        found,
    )


def patching_cross(bench: Bench) -> Iterable[Line]:
    """Plant a tuning that changed one head, and find it by putting tuned activations into the base."""
    base, tuned, truth = _changed(bench.folder)
    subject = subject_of(base, tuned, keyword_rows())
    table = seen(subject, "patching_cross", rows={"n": 40}).table
    yield _gain(table, subject, truth)
    for metric in ("recovered_margin", "lost_margin"):
        own = table.filter((pl.col("metric") == metric) & (pl.col("control") == "none"))
        heads = own.filter(pl.col("site") == "head_out")
        yield near(f"{metric} of L{LAYER}H{HEAD}", 1.0, _one(heads.filter(HERE)), EXACT)
        yield near(f"{metric}: largest of another head", 0.0, _largest(heads.filter(~HERE)), EXACT)
        stream = own.filter(pl.col("site") == "resid_pre").sort("layer")["value"].to_list()
        yield same(
            f"{metric} of the stream before layers 0, 1, 2",
            [0, 0, 1],
            [round(value, 3) + 0 for value in stream],
        )
    yield _smallest_change(base, tuned, "patching_cross", CROSS)


def grafting(bench: Bench) -> Iterable[Line]:
    """Plant a tuning that changed one head's weights, and find them by grafting."""
    base, tuned, truth = _changed(bench.folder)
    options = {**GRAFT, "parts": ("attention", "mlp", "head"), "both_ways": True}
    subject = subject_of(base, tuned, keyword_rows())
    table = seen(subject, "grafting", **options).table
    yield _gain(table, subject, truth)
    for metric in ("recovered_margin", "lost_margin"):
        own = table.filter(
            (pl.col("metric") == metric) & (pl.col("control") == "none") & (pl.col("scope") == "one")
        )
        heads = own.filter(pl.col("site") == "head_out")
        yield near(f"{metric} of L{LAYER}H{HEAD}'s weights", 1.0, _one(heads.filter(HERE)), EXACT)
        yield near(f"{metric}: largest of another head", 0.0, _largest(heads.filter(~HERE)), EXACT)
        attention = own.filter((pl.col("site") == "attn_out") & (pl.col("layer") == LAYER))
        yield near(f"{metric} of the attention of layer {LAYER}", 1.0, _one(attention), EXACT)
        mlp = own.filter(pl.col("site") == "mlp_out")
        yield near(f"{metric}: largest of an MLP", 0.0, _largest(mlp), EXACT)
    yield _smallest_change(base, tuned, "grafting", {**GRAFT, "random_control": False})


def _changed(folder: Path) -> tuple[Classifier, Classifier, PlantedHead]:
    truth = changed_head_models("gpt2", LAYER, HEAD, folder)
    return load(str(folder / "base")), load(str(folder / "tuned")), truth


def _gain(table: pl.DataFrame, subject: Subject, truth: PlantedHead) -> Line:
    """Return whether the gain in margin is its closed form: in the base the head writes nothing."""
    assert subject.texts is not None
    texts = dict(subject.texts.iter_rows())
    tokens = subject.draw(LensRows(n=40))
    pairs = zip(tokens.row_ids, tokens.labels.tolist(), strict=True)
    wanted = sum(-truth.effect(texts[row], label) for row, label in pairs) / len(tokens)
    gain = table.filter(pl.col("metric") == "gain_margin")
    return near("gain in margin from base to tuned, logits", wanted, _one(gain), EXACT)


def _smallest_change(base: Classifier, tuned: Classifier, lens: str, options: dict[str, Any]) -> Line:
    def found(share: float, trial: int) -> bool:
        between = copy.deepcopy(base)
        moved = perturbed(base, EVERYWHERE, trial)
        with torch.no_grad():
            for name, parameter in between.named_parameters():
                start, end = base.get_parameter(name), tuned.get_parameter(name)
                noise = moved.get_parameter(name) - start
                parameter.copy_(start + share * (end - start) + noise)
        subject = subject_of(base, between, keyword_rows(120, seed=trial), sampling_seed=trial)
        table = seen(subject, lens, **options).table
        own = table.filter(
            (pl.col("metric") == "recovered_margin") & (pl.col("control") == "split_half")
            & (pl.col("pick") == "strongest head")
        )  # fmt: skip
        row = own.row(0, named=True) if own.height else {}
        clear = row.get("low") is not None and row["low"] > 0
        return (row.get("layer"), row.get("head")) == (LAYER, HEAD) and clear

    return smallest_found(
        f"the head that tuning changed, picked on one half of the rows and clear of 0 on the other, while all weights "
        f"move by {EVERYWHERE:.1%} of their spread",
        "of the planted change (40 rows)",
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
        10,
        found,
    )


def _one(table: pl.DataFrame) -> float | None:
    return table["value"][0] if table.height == 1 else None


def _largest(table: pl.DataFrame) -> float | None:
    values = table["value"].drop_nulls().abs()
    most: Any = values.max()
    return most
