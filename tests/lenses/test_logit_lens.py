"""The logit lens: the last layer is the model, a planted layer is where the answer appears, laws and bad input."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject, splits_of
from test_planted_head import planted_rows

from tiny import families, tiny_folder
from tunescope.errors import LensError
from tunescope.evaluation import logits_of
from tunescope.evaluation.margins import margin
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.logits.logit_lens import curve, settled_place
from tunescope.models import load
from tunescope.planted.decisive import planted_head_model

ROWS = {"rows": {"split": "validation", "n": 40}}


def lens_of(subject, **options):
    return look(subject, [("logit_lens", {**ROWS, **options})], LENSES)[0]


@pytest.mark.parametrize("kind", families("gpt2", "bert", "llama", "roberta"))
def test_the_last_layer_is_the_model_and_identical_models_do_not_differ(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    subject = make_subject(model, model)
    output = lens_of(subject)
    tokens = subject.draw(LensRows(n=40))
    expected = dict(zip(tokens.row_ids, margin(logits_of(model, tokens), tokens.labels), strict=True))
    last = output.examples.filter((pl.col("model") == "tuned") & (pl.col("layer") == 2))
    np.testing.assert_allclose(last["margin"], [expected[row] for row in last["row_id"]], atol=1e-5)
    change = output.table.filter(pl.col("model") == "tuned_minus_base")
    assert change.filter(pl.col("metric") != "settled_layer").height == 3 * 4
    for column in ("value", "low", "high"):
        assert set(change[column]) == {0.0}
    assert set(change["p"].drop_nulls()) == {1.0}


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_every_layer_is_what_its_own_norm_pooling_and_head_make_of_it(kind, tmp_path):
    """Against transformers' own hidden states, row by row without padding."""
    model = load(str(tiny_folder(kind, tmp_path)))
    subject = make_subject(model, model)
    output = lens_of(subject)
    tokens = subject.draw(LensRows(n=40))
    for index in (0, 7):
        ids = torch.tensor(np.asarray(tokens.input_ids[index], dtype=np.int64))[None]
        with torch.no_grad():
            states = model.trunk(input_ids=ids, output_hidden_states=True).hidden_states
            for layer, state in enumerate(
                states[:-1], start=-1
            ):  # the last is the final norm's output in GPT-2
                norm = model.family.final_norm
                pooled = state[:, 0] if norm is None else model.trunk.get_submodule(norm)(state)[:, -1]
                logits = model.head(pooled).double().numpy()
                found = output.examples.filter(
                    (pl.col("row_id") == tokens.row_ids[index]) & (pl.col("layer") == layer)
                    & (pl.col("model") == "tuned")
                )  # fmt: skip
                expected = margin(logits, tokens.labels[[index]])[0]
                assert found["margin"][0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 1), ("bert", 2)])
def test_the_answer_appears_in_the_layer_that_was_planted(family, layer, tmp_path):
    planted_head_model(family, layer, 2, tmp_path)
    model = load(str(tmp_path))
    subject = make_subject(model, model, planted_rows(), base_head="none")
    output = lens_of(subject)
    accuracy = output.table.filter(pl.col("metric") == "accuracy").sort("layer")
    negative = float((subject.draw(LensRows(n=40)).labels == 0).mean())  # before, the prior answers for all
    assert set(output.table["model"]) == {"tuned"}
    assert accuracy["layer"].to_list() == [-1, 0, 1, 2]
    for row in accuracy.iter_rows(named=True):
        assert row["value"] == pytest.approx(negative if row["layer"] < layer else 1.0)
    settled = output.table.filter(pl.col("metric") == "settled_layer").row(0, named=True)
    assert (settled["value"], settled["low"], settled["high"]) == (layer, layer, layer)
    assert f"From layer {layer} on" in output.findings[0].sentence
    assert output.findings[0].verdict == "found"


def test_chance_is_the_mean_over_all_permutations_of_the_labels():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(3, 300, 4)), generator.integers(0, 4, 300)
    found = curve(logits, labels)
    drawn = [curve(logits, generator.permutation(labels)) for _ in range(400)]
    for metric in ("accuracy", "margin"):
        means = np.array([one.values[metric].mean(axis=0) for one in drawn])
        error = means.std(axis=0) / 20
        assert (np.abs(means.mean(axis=0) - found.chance[metric]) < 4 * error).all()


def test_settled_means_near_the_end_from_there_on():
    assert settled_place(np.array([0.9, 0.2, 0.89, 0.9]), 0.02) == 2
    assert settled_place(np.array([0.9, 0.9, 0.9]), 0.0) == 0
    np.testing.assert_array_equal(settled_place(np.array([[0.1, 0.5], [0.5, 0.5]]), 0.1), [1, 0])


def test_a_tuned_last_block_changes_the_curve_from_there_on(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=0))) for s in (0, 1))
    with torch.no_grad():
        tuned.trunk.h[2].mlp.c_proj.weight.mul_(-3)
    output = lens_of(make_subject(base, tuned, make_rows(150)))
    margins = output.table.filter((pl.col("model") == "tuned_minus_base") & (pl.col("metric") == "margin"))
    changed = dict(margins.select("layer", "value").iter_rows())
    assert [changed[layer] for layer in (-1, 0, 1)] == [0.0, 0.0, 0.0]
    assert abs(changed[2]) > 0.05


def test_bad_input_is_refused(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    rows = make_rows(30)
    unlabelled = rows.frame.with_columns(label=pl.lit(None, dtype=pl.Int64))
    subject = make_subject(model, model, rows)
    subject.splits = splits_of(model, type(rows)(unlabelled, rows.labels, {}))
    with pytest.raises(LensError, match=r"No validation row has a label"):
        lens_of(subject)
    with torch.no_grad():
        model.trunk.h[1].mlp.c_proj.bias[3] = float("nan")
    with pytest.raises(
        LensError, match=r"resid_post\[1\] is NaN or infinite in \d+ of \d+ rows of a batch: row-\d+"
    ):
        lens_of(make_subject(model, model, rows, base_head="none"))
