"""Hand-set circuits: their closed forms against the models, and what the ablation lens makes of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import ConfigError
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation.lens import AblationOptions
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models import load
from tunescope.planted.circuits import load_planted_circuit, planted_circuit_model
from tunescope.planted.decisive import planted_head_rows

N_ROWS = 40
CASES = [("redundant", "gpt2", 1), ("redundant", "bert", 0), ("neuron", "gpt2", 2), ("neuron", "bert", 1)]


def subject_of(model) -> tuple[Subject, Rows]:
    drawn = planted_head_rows(2 * N_ROWS, seed=3)
    frame = pl.DataFrame({
        "row_id": [f"row-{i}" for i in range(len(drawn))],
        "position": pl.Series(range(len(drawn)), dtype=pl.Int64),
        "split": ["train" if i % 4 < 2 else "validation" for i in range(len(drawn))],
        "text": [text for text, _ in drawn],
        "label": pl.Series([label for _, label in drawn], dtype=pl.Int64),
    })  # fmt: skip
    rows = Rows(frame, LabelMap(("negative", "positive")), {})
    splits = {
        name: tokenize(rows.split(name), model.tokenizer, model.max_length)
        for name in ("train", "validation")
    }
    return Subject("arm", 0, model, model, "none", splits), rows


def effects_of(examples: pl.DataFrame, name: str) -> dict[str, float]:
    mine = examples.filter((pl.col("component") == name) & (pl.col("edit") == "zero"))
    assert mine.height == N_ROWS
    return dict(zip(mine["row_id"], mine["margin_change"], strict=True))


@pytest.mark.parametrize(("kind", "family", "layer"), CASES)
def test_the_model_does_what_the_closed_form_says(kind, family, layer, tmp_path):
    truth = planted_circuit_model(kind, family, layer, tmp_path)
    assert load_planted_circuit(tmp_path) == truth
    model = load(str(tmp_path))
    for text, label in planted_head_rows(30, seed=1):
        encoded = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(encoded["input_ids"], encoded["attention_mask"])[0].double()
        assert float(logits[label] - logits[1 - label]) == pytest.approx(truth.margin(text, label), abs=2e-4)
        assert truth.margin(text, label) > 0.25  # the circuit decides rightly, and clearly


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 1), ("bert", 0)])
def test_redundant_heads_show_nothing_alone_and_everything_as_a_pair(family, layer, tmp_path):
    truth = planted_circuit_model("redundant", family, layer, tmp_path)
    subject, rows = subject_of(load(str(tmp_path)))
    options = AblationOptions(rows=LensRows(n=N_ROWS), reference_rows=20, edits=("zero",), pairs="all")
    table, examples = ablation.run(subject, options)
    text_of = {r: (t, y) for r, t, y in rows.frame.select("row_id", "text", "label").iter_rows()}
    one, other = (f"L{layer}H{head}" for head in truth.heads)
    for name, heads in ((one, truth.heads[:1]), (f"{one}+{other}", truth.heads)):
        for row, value in effects_of(examples, name).items():
            assert value == pytest.approx(truth.effect(*text_of[row], heads), abs=2e-4)
    every = examples.filter(pl.col("site").is_in(["head_out", "set"]))
    assert every.filter(pl.col("site") == "set")["component"].n_unique() == 12 * 11 // 2
    strong = every.group_by("component").agg(pl.col("margin_change").abs().max().alias("largest"))
    found = dict(strong.iter_rows())
    assert {name for name, largest in found.items() if largest > 1e-2} == {f"{one}+{other}"}
    positive = table.filter((pl.col("class") == "positive") & (pl.col("component") == f"{one}+{other}"))
    assert positive.filter(pl.col("metric") == "margin_change")["value"][0] < -0.5


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 2), ("bert", 1)])
def test_the_deciding_neuron_is_found_with_its_closed_form_and_no_other(family, layer, tmp_path):
    truth = planted_circuit_model("neuron", family, layer, tmp_path)
    subject, rows = subject_of(load(str(tmp_path)))
    (neuron,) = truth.neurons
    names = [f"L{at}N{number}" for at in range(3) for number in (0, 41, 42, 43, 127)]
    options = AblationOptions(
        rows=LensRows(n=N_ROWS),
        reference_rows=20,
        edits=("zero",),
        components=("mlp",),
        also=(*names, f"L{layer}N0-41"),
    )
    _, examples = ablation.run(subject, options)
    text_of = {r: (t, y) for r, t, y in rows.frame.select("row_id", "text", "label").iter_rows()}
    for name in (f"L{layer}N{neuron}", f"L{layer}.mlp"):
        values = effects_of(examples, name)
        expected = [truth.effect(*text_of[row], neurons=(neuron,)) for row in values]
        np.testing.assert_allclose(list(values.values()), expected, atol=3e-4)
        assert min(values.values()) < -1.0
    others = examples.filter(~pl.col("component").is_in([f"L{layer}N{neuron}", f"L{layer}.mlp"]))
    assert others["component"].n_unique() == len(names) - 1 + 3
    assert others["margin_change"].abs().max() < 1e-5


def test_unknown_circuits_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected redundant or neuron, gpt2 or bert, layer 0 to 2"):
        planted_circuit_model("neuron", "gpt2", 3, tmp_path)
