"""The spread lens: identities, a planted rogue dimension, and the head's input as a plain matrix."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import FAMILIES, tiny_folder
from tunescope.evaluation import logits_of
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.dimensions.head_input import read_head_input
from tunescope.models import load

ROWS = {"rows": {"split": "validation", "n": 40}}


def spread_of(subject):
    return look(subject, [("spread", ROWS)], LENSES)[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_identical_models_share_every_top_dimension(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    output = spread_of(make_subject(model, model))
    shared = output.table.filter((pl.col("metric") == "shared_top_dimensions") & pl.col("note").is_null())
    assert set(shared["value"]) == {10.0}
    for metric in ("variance", "mean"):
        sides = [
            output.table.filter((pl.col("metric") == metric) & (pl.col("model") == which))["value"]
            for which in ("base", "tuned")
        ]
        np.testing.assert_array_equal(*sides)
    assert output.findings == []


def test_a_planted_rogue_dimension_is_found_where_it_was_planted(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=0))) for s in (0, 1))
    with torch.no_grad():
        tuned.trunk.ln_f.weight[5] *= 30  # the final norm scales dimension 5 up, and nothing before it
    output = spread_of(make_subject(base, tuned))
    top = output.table.filter((pl.col("metric") == "variance_over_mean") & (pl.col("rank") == 0))
    last = top.filter((pl.col("model") == "tuned") & (pl.col("site") == "final_norm_out"))
    assert last["dimension"].to_list() == [5]
    earlier = output.table.filter((pl.col("site") == "resid_post") & (pl.col("metric") == "variance"))
    before, after = (earlier.filter(pl.col("model") == which)["value"] for which in ("base", "tuned"))
    np.testing.assert_array_equal(before, after)
    assert "dimension 5 holds" in output.findings[0].sentence
    assert output.findings[0].verdict == "found"


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_heads_input_times_its_matrix_is_the_models_logits(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    tokens = make_subject(model, model, make_rows(40)).draw(LensRows(n=20))
    found = read_head_input(model, tokens)
    np.testing.assert_allclose(found.head.logits(found.values), logits_of(model, tokens), atol=1e-5)
    assert not model.head._forward_pre_hooks
