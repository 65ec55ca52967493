"""Hand-set models in which one residual dimension decides: closed forms, and what the ablation lens makes of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from test_circuits import N_ROWS, effects_of, subject_of

from tunescope.errors import ConfigError
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation.lens import AblationOptions
from tunescope.lenses.subject import LensRows
from tunescope.models import load
from tunescope.planted.decisive import WIDTH, planted_head_rows
from tunescope.planted.dimension import load_planted_dimension, planted_dimension_model


@pytest.mark.parametrize(("family", "layer"), [("gpt2", 0), ("bert", 1)])
def test_the_deciding_dimension_is_ranked_first_with_its_closed_form_and_no_other_does_anything(
    family, layer, tmp_path
):
    truth = planted_dimension_model(family, layer, tmp_path)
    assert load_planted_dimension(tmp_path) == truth
    model = load(str(tmp_path))
    for text, label in planted_head_rows(20, seed=1):
        encoded = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = model(encoded["input_ids"], encoded["attention_mask"])[0].double()
        assert float(logits[label] - logits[1 - label]) == pytest.approx(truth.margin(text, label), abs=1e-5)
        assert truth.margin(text, label) > 0.1  # it decides rightly
    subject, rows = subject_of(model)
    names = [f"L{at}D{number}" for at in range(layer, 3) for number in range(WIDTH)]
    options = AblationOptions(
        rows=LensRows(n=N_ROWS), reference_rows=20, edits=("zero",), components=(), also=tuple(names),
        random_control=False, split_half=False,
    )  # fmt: skip
    table, examples = ablation.run(subject, options)
    text_of = {r: (t, y) for r, t, y in rows.frame.select("row_id", "text", "label").iter_rows()}
    decisive = [f"L{at}D{truth.dimension}" for at in range(layer, 3)]
    for name in decisive:
        values = effects_of(examples, name)
        np.testing.assert_allclose(
            list(values.values()), [truth.effect(*text_of[row]) for row in values], atol=1e-5
        )
    others = examples.filter(pl.col("component").is_in(sorted(set(names) - set(decisive))))
    assert others["component"].n_unique() == (3 - layer) * (WIDTH - 1)
    assert others["margin_change"].abs().max() < 2e-6  # 0 but for rounding
    ranked = table.filter((pl.col("metric") == "margin_change") & pl.col("class").is_null())
    ranked = ranked.filter((pl.col("control") == "none") & pl.col("component").is_in(names))
    assert set(ranked.sort(pl.col("value").abs())["component"].to_list()[-len(decisive) :]) == set(decisive)


def test_the_other_dimensions_are_busy(tmp_path):
    """Dimensions that are zero anyway would make "no effect" true by accident."""
    truth = planted_dimension_model("gpt2", 0, tmp_path)
    model = load(str(tmp_path))
    encoded = model.tokenizer(planted_head_rows(1, seed=1)[0][0], return_tensors="pt")
    with torch.no_grad():
        hidden = model.model.transformer(**encoded, output_hidden_states=True).hidden_states[1][0]
    quiet = (hidden.abs().amax(0) < 0.02).nonzero().flatten().tolist()
    assert quiet == [truth.dimension + 1]


def test_unknown_places_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"No planted dimension bert layer 3: expected gpt2 or bert, layer 0 to 2"
    ):
        planted_dimension_model("bert", 3, tmp_path)
