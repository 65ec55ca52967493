"""The lens activations: against numbers made by hand, planted massive activations and neurons, halves that are fair."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import ttest_rel
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.capture import Site, read
from tunescope.data.batches import collate
from tunescope.lenses import LENSES, look
from tunescope.lenses.activations.neuron_shifts import NeuronShifts
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.models import load
from tunescope.stats.tests import benjamini_hochberg

ROWS = {"rows": {"split": "validation", "n": 24}}


def output_of(base, tuned, **options):
    return look(make_subject(base, tuned), [("activations", {**ROWS, **options})], LENSES)[0]


def pair(kind, tmp_path):
    return (load(str(tiny_folder(kind, tmp_path / str(seed), seed=seed))) for seed in (0, 1))


def one(table, **wanted):
    return table.filter(**wanted).row(0, named=True)


@pytest.mark.parametrize("kind", ["gpt2", "distilbert"])
def test_sizes_are_those_of_rows_run_alone(kind, tmp_path):
    base, tuned = pair(kind, tmp_path)
    subject = make_subject(base, tuned)
    tokens = subject.draw(PromptedRows(**ROWS["rows"]), labelled=False)
    table = look(subject, [("activations", ROWS)], LENSES)[0].table
    for site in (Site("resid_post", 1), Site("attn_out", 0), Site("mlp_neurons", 0)):
        norms, others, sizes, largest = [], [], [], []
        for index in range(len(tokens)):
            batch = collate(tokens, np.array([index]))
            values = read(tuned, [site], batch.inputs())[site][0].numpy()
            each = np.sqrt((values**2).sum(1))
            norms.append(each.mean())
            others.append(each[1:].mean())
            sizes.append(np.abs(values).mean())
            largest.append(np.abs(values).max() / np.sort(np.abs(values), axis=None)[(values.size - 1) // 2])
        here = {"model": "tuned", "site": site.name, "layer": site.layer}
        for metric, wanted in (("norm", norms), ("norm_without_first", others), ("magnitude", sizes)):
            assert one(table, metric=metric, **here)["value"] == pytest.approx(np.mean(wanted), rel=1e-4), (
                metric
            )
        if site.name == "resid_post":
            found = one(table, metric="largest_over_median", **here)
            assert found["value"] == pytest.approx(np.mean(largest), rel=1e-4)


def test_identical_models_show_no_change_anywhere(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    output = output_of(model, copy.deepcopy(model))
    changes = output.table.filter(model="tuned_minus_base")
    assert changes.height > 20
    assert changes["value"].abs().max() == 0
    assert changes.drop_nulls("p")["p"].min() == 1
    moved = output_of(*pair("gpt2", tmp_path / "two"))
    assert len(moved.findings) == 3
    assert moved.table.filter(metric="norm", model="tuned_minus_base")["value"].abs().max() > 0


def test_a_planted_massive_activation_is_found_where_it_is(tmp_path):
    base = load(str(tiny_folder("gpt2", tmp_path)))
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.trunk.wpe.weight[0, 5] = 5000.0
    output = output_of(base, tuned)
    rows = {"layer": 0, "site": "resid_post", "model": "tuned"}
    ratio = one(output.table, metric="largest_over_median", **rows)
    assert (ratio["dimension"], ratio["position"]) == (5, 0)
    assert ratio["share_dimension"] == ratio["share_position"] == 1
    assert one(output.table, metric="massive", **rows)["value"] == 1
    assert one(output.table, metric="massive", **{**rows, "model": "base"})["value"] == 0
    assert one(output.table, metric="largest", **rows)["value"] == pytest.approx(5000, rel=1e-2)
    assert "0% of texts before, 100% after" in output.findings[1].sentence


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_planted_neuron_is_ranked_first(kind, tmp_path):
    base = load(str(tiny_folder(kind, tmp_path)))
    tuned = copy.deepcopy(base)
    layer = base.n_layers - 1
    block = tuned.trunk.get_submodule(tuned.family.path("block", layer))
    into = block.mlp.c_fc if kind == "gpt2" else block.intermediate.dense
    with torch.no_grad():
        into.bias[7] += 3.0
    output = output_of(base, tuned)
    first = one(output.table, metric="neuron_shift", rank=0)
    assert (first["layer"], first["neuron"]) == (layer, 7)
    assert first["low"] < first["value"] < first["high"]
    assert 1.5 < first["value"] < 3.5
    assert first["q"] < 1e-6
    assert first["control"] == 0  # no other neuron of that block moved
    share = one(output.table, metric="neurons_shifted", layer=layer)
    assert share["value"] * share["n"] == pytest.approx(1)
    assert f"most is L{layer}N7" in output.findings[-1].sentence


def test_numbers_of_the_shown_half_are_scipys_and_cover_the_truth():
    generator = np.random.default_rng(0)
    covered, trials, n, width = 0, 120, 40, 50
    for trial in range(trials):
        shifts = NeuronShifts(np.arange(n), 1, seed=trial)
        base = generator.normal(size=(n, width))
        tuned = (
            base + 0.3 + generator.normal(size=(n, width))
        )  # every neuron moves by 0.3: the winner is luck
        for start in range(0, n, 16):
            ranks = np.arange(start, min(start + 16, n))
            shifts.before(0, ranks, base[ranks])
            shifts.after(0, ranks, tuned[ranks])
        best = shifts.strongest(1)[0]
        covered += best.low <= 0.3 <= best.high
        if trial == 0:
            show = shifts._half == 1
            wanted = ttest_rel(tuned[show], base[show])
            ends = wanted.confidence_interval()
            assert best.p == pytest.approx(wanted.pvalue[best.neuron], rel=1e-5)
            assert best.low == pytest.approx(ends.low[best.neuron], rel=1e-5)
            assert best.q == pytest.approx(benjamini_hochberg(wanted.pvalue)[best.neuron], rel=1e-5)
            moved = (tuned - base)[~show].mean(0)
            assert best.neuron == int(np.abs(moved).argmax())
            assert abs(best.picked) > best.value or best.picked == pytest.approx(moved[best.neuron], rel=1e-4)
    assert covered / trials == pytest.approx(0.95, abs=0.06)  # on the half that picked it, far below


def test_texts_that_repeat_count_once_and_memory_is_bounded(monkeypatch):
    groups = np.array([0, 1, 0, 2, 3, 4, 1, 5])
    shifts = NeuronShifts(groups, 1, seed=0)
    values = np.arange(8.0)[:, None] * np.ones((8, 3))
    shifts.before(0, np.arange(8), values)
    shifts.after(0, np.arange(8), 2 * values)
    assert shifts._counts[0].sum() == 6
    monkeypatch.setattr("tunescope.lenses.activations.neuron_shifts.MOST_HELD", 5 * 3 * 4)
    few = NeuronShifts(groups, 1, seed=0)
    few.before(0, np.arange(8), values)
    few.after(0, np.arange(8), 2 * values)
    assert few._counts[0].sum() == 5


def test_batches_are_not_seen_in_the_numbers(tmp_path, monkeypatch):
    base, tuned = pair("gpt2", tmp_path)
    subject = make_subject(base, tuned, make_rows(90))
    together = look(subject, [("activations", ROWS)], LENSES)[0].table
    beside = look(subject, [("activations", ROWS), ("attention", ROWS)], LENSES)[
        0
    ].table  # small padded batches
    kept = together["metric"].is_in(["norm", "magnitude", "largest", "neuron_mean"])
    np.testing.assert_allclose(
        together.filter(kept)["value"].to_numpy(),
        beside.filter(kept)["value"].to_numpy(),
        rtol=1e-3,
        atol=1e-5,
    )


def test_a_text_of_one_token_is_left_out_by_name_where_it_has_no_number(tmp_path):
    base, tuned = pair("gpt2", tmp_path)
    rows = make_rows(60)
    short = rows.frame.with_columns(
        text=pl.when(pl.col("row_id") == "row-1").then(pl.lit("the")).otherwise(pl.col("text"))
    )
    rows = dataclasses.replace(rows, frame=short)
    table = look(make_subject(base, tuned, rows), [("activations", {"rows": {"n": 60}})], LENSES)[0].table
    here = {"model": "base", "layer": 0, "site": "attn_out"}
    rest, whole = one(table, metric="norm_without_first", **here), one(table, metric="norm", **here)
    assert rest["n"] == whole["n"] - 1
    assert "1 texts of one token" in rest["note"]
    assert whole["note"] is None
