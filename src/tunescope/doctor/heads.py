"""Checks of heads: one that decides, two that stand in for each other, two that changed places."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.doctor.check import Bench, Line, at_most, same, smallest_found
from tunescope.doctor.subjects import (
    a_model,
    keyword_rows,
    noisy_heads,
    perturbed,
    random_rows,
    seen,
    subject_of,
)
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models import Classifier, load
from tunescope.models.matrices import matrices
from tunescope.planted.circuits import planted_circuit_model
from tunescope.planted.decisive import planted_head_model

ROWS = {"split": "validation", "n": 40}
EXACT = 5e-4  # logits: rounding of float32 through three layers
BETWEEN = (pl.col("metric") == "jensen_shannon") & (pl.col("model") == "base_tuned")
OTHER_HEADS = 0.02  # standard deviation of the noise that every other head writes


def decisive_head(bench: Bench) -> Iterable[Line]:
    """Plant one head that decides and show that its ablation is its closed form, and every other head's is 0."""
    for family, layer, head in (("gpt2", 1, 2), ("bert", 2, 1)):
        folder = bench.folder / family
        truth = planted_head_model(family, layer, head, folder)  # type: ignore[arg-type]
        model, rows = load(str(folder)), keyword_rows()
        subject = subject_of(model, model, rows, "none")
        output = seen(subject, "ablation", rows=ROWS, reference_rows=40)
        assert output.examples is not None
        known = {
            row: (text, label) for row, text, label in rows.frame.select("row_id", "text", "label").rows()
        }
        train = subject.draw(LensRows(split="train", n=40), labelled=False)
        signals = {"zero": 0.0, "mean": truth.mean_signal([known[row][0] for row in train.row_ids])}
        own = (pl.col("layer") == layer) & (pl.col("head") == head)
        for edit, signal in signals.items():
            mine = output.examples.filter((pl.col("edit") == edit) & (pl.col("site") == "head_out") & own)
            wanted = np.array([truth.effect(*known[row], signal) for row in mine["row_id"]])
            yield at_most(
                f"{family}, {edit} ablation of L{layer}H{head}: distance from its closed form, logits",
                EXACT,
                _largest(mine["margin_change"].to_numpy() - wanted),
            )
        others = output.examples.filter((pl.col("site") == "head_out") & ~own)
        yield at_most(
            f"{family}: largest effect of the other {others.select('layer', 'head').n_unique()} heads, logits",
            EXACT,
            _largest(others["margin_change"].to_numpy()),
        )
        said = output.findings[0] if output.findings else None
        yield same(
            f"{family}: the finding",
            f"head L{layer}H{head}, found",
            "nothing" if said is None else f"{said.sentence[8:17].strip(',')}, {said.verdict}",
        )
    yield _smallest_decisive(bench)


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max()) if values.size else float("nan")


def _smallest_decisive(bench: Bench) -> Line:
    model = load(str(bench.folder / "gpt2"))

    def found(strength: float, trial: int) -> bool:
        noisy = noisy_heads(model, strength, OTHER_HEADS, trial, (1, 2))
        subject = subject_of(noisy, noisy, keyword_rows(120, seed=trial), "none", sampling_seed=trial)
        options = {
            "rows": {"n": 60},
            "components": ("heads",),
            "edits": ("zero",),
            "metrics": ("margin_change",),
        }
        first = seen(subject, "ablation", reference_rows=4, **options).findings[0]
        return "head L1H2 " in first.sentence and first.verdict == "found"

    return smallest_found(
        "a decisive head among 11 that write noise, picked and called",
        "of what it wrote (1 is 5 logits of margin; 60 rows)",
        (0.01, 0.02, 0.05, 0.1, 0.2),
        10,
        found,
    )


def redundant_heads(bench: Bench) -> Iterable[Line]:
    """Plant two heads that stand in for each other: alone nothing, as a pair everything."""
    layer = 1
    truth = planted_circuit_model("redundant", "gpt2", layer, bench.folder / "redundant")
    model, rows = load(str(bench.folder / "redundant")), keyword_rows()
    subject = subject_of(model, model, rows, "none")
    output = seen(
        subject, "ablation", rows=ROWS, reference_rows=20, components=("heads",), edits=("zero",), pairs="all",
        random_control=False,
    )  # fmt: skip
    assert output.examples is not None
    known = {row: (text, label) for row, text, label in rows.frame.select("row_id", "text", "label").rows()}
    one, other = (f"L{layer}H{head}" for head in truth.heads)
    singles = output.examples.filter(pl.col("site") == "head_out")
    yield at_most(
        "largest effect of any single head, logits", 0.01, _largest(singles["margin_change"].to_numpy())
    )
    pair = output.examples.filter(pl.col("component") == f"{one}+{other}")
    wanted = np.array([truth.effect(*known[row], heads=truth.heads) for row in pair["row_id"]])
    yield at_most(
        f"the pair {one}+{other}: distance from its closed form, logits",
        EXACT,
        _largest(pair["margin_change"].to_numpy() - wanted),
    )
    sets = output.examples.filter(pl.col("site") == "set").group_by("component")
    strong = sets.agg(pl.col("margin_change").abs().max().alias("most")).filter(pl.col("most") > 0.01)
    yield same("pairs of heads that matter, of 66", [f"{one}+{other}"], strong["component"].to_list())

    def found(strength: float, trial: int) -> bool:
        weak = _weak_decision(model, strength, trial)
        subject = subject_of(weak, weak, keyword_rows(80, seed=trial), "none", sampling_seed=trial)
        table = seen(
            subject, "ablation", rows={"n": 40}, reference_rows=4, components=("heads",), edits=("zero",), pairs="all",
            random_control=False, metrics=("margin_change",),
        ).table.filter((pl.col("metric") == "margin_change") & (pl.col("class") == "positive"))  # fmt: skip
        own = table.filter(pl.col("component") == f"{one}+{other}").row(0, named=True)
        largest = table.filter((pl.col("site") == "set") & (pl.col("component") != f"{one}+{other}"))[
            "value"
        ].min()
        return own["high"] is not None and own["high"] < 0 and own["value"] < largest

    yield smallest_found(
        "a redundant pair among 66, whose decision is weak beside the noise of other heads",
        "of its decision (40 rows)",
        (0.05, 0.1, 0.2, 0.4, 0.8),
        10,
        found,
    )


def _weak_decision(model: Classifier, strength: float, seed: int) -> Classifier:
    """Return a copy whose circuit decides weakly, and whose last layer's heads write noise."""
    noisy = noisy_heads(model, 1.0, OTHER_HEADS, seed, (1, 1), layers=(2,))
    with torch.no_grad():
        trunk: Any = noisy.trunk
        trunk.h[1].mlp.c_proj.weight.mul_(strength)
    return noisy


def head_swap(bench: Bench) -> Iterable[Line]:
    """Let two heads of one layer change places: attention ranks these two first, and no logit changes."""
    for kind in ("gpt2", "bert"):
        model = a_model(bench.folder, kind)
        layer = model.n_layers - 1
        tuned = swapped_heads(model, layer)
        table = seen(subject_of(model, tuned, random_rows(60)), "attention", rows={"n": 24}).table
        apart = table.filter(BETWEEN).sort("value", descending=True)
        first = sorted((row["layer"], row["head"]) for row in apart.head(2).iter_rows(named=True))
        yield same(f"{kind}: the two heads whose attention changed most", [(layer, 0), (layer, 1)], first)
        yield at_most(
            f"{kind}: largest change of any other head, bits", 1e-6, _largest(apart["value"][2:].to_numpy())
        )
        yield Line(
            f"{kind}: change of the swapped heads, bits", "above 0.001", f"{apart['value'][1]:.4g}",
            apart["value"][1] > 1e-3,
        )  # fmt: skip
    yield _smallest_swap(a_model(bench.folder, "gpt2"))


def swapped_heads(model: Classifier, layer: int) -> Classifier:
    """Return a copy in which heads 0 and 1 of a layer have changed places: queries, keys, values and outputs."""
    changed = copy.deepcopy(model)
    width, size = changed.head_width, changed.width
    trunk: Any = changed.trunk
    with torch.no_grad():
        if changed.family.fuses_attention_inputs:
            fused = trunk.get_submodule(changed.family.path("query", layer))
            for part in range(3):
                for tensor in (fused.weight, fused.bias):  # Conv1D keeps [in, out]
                    own = tensor[..., part * size : part * size + 2 * width]
                    own.copy_(own.unflatten(-1, (2, width)).flip(-2).flatten(-2).clone())
        else:
            for name in ("query", "key", "value"):
                projection = trunk.get_submodule(changed.family.path(name, layer))  # type: ignore[arg-type]
                for tensor in (projection.weight, projection.bias):
                    tensor[: 2 * width] = (
                        tensor[: 2 * width].unflatten(0, (2, width)).flip(0).flatten(0, 1).clone()
                    )
        for one in matrices(changed):
            if one.layer == layer and one.part == "attn_projection":
                first, second = (one.weight[:, one.heads[head]].clone() for head in (0, 1))
                one.weight[:, one.heads[0]], one.weight[:, one.heads[1]] = second, first
    return changed


def _smallest_swap(model: Classifier) -> Line:
    layer = model.n_layers - 1

    def found(share: float, trial: int) -> bool:
        tuned = perturbed(model, 0.02, trial)  # everything moves a little, as in any training
        with torch.no_grad():
            query: Any = tuned.trunk.get_submodule(model.family.path("query", layer))
            own = query.weight[:, : model.head_width]
            generator = torch.Generator().manual_seed(trial + 1000)
            own.add_(torch.randn(own.shape, generator=generator) * share * own.std())
        subject: Subject = subject_of(model, tuned, random_rows(120, seed=trial), sampling_seed=trial)
        table = seen(subject, "attention", rows={"n": 40}).table.filter(BETWEEN)
        first = table.sort("value", descending=True).row(0, named=True)
        return (first["layer"], first["head"]) == (layer, 0)

    return smallest_found(
        "a head whose queries moved, ranked first of 12 while all weights move by 2 % of their spread",
        "of its queries' spread (40 rows)",
        (0.05, 0.1, 0.2, 0.4, 0.8),
        10,
        found,
    )
