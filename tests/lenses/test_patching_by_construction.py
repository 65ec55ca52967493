"""Places that carry all or nothing whatever was learnt: what is said of them is what running them gives, always."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from subjects import make_rows, make_subject, splits_of
from test_planted_head import planted_rows

from tiny import tiny_folder
from tunescope.capture.patch import PatchPlace
from tunescope.capture.sites import Site
from tunescope.lenses.patching.construction import BUT_OWN_STREAM, EVERYTHING, NOTHING, by_construction
from tunescope.lenses.patching.findings import findings
from tunescope.lenses.patching.lens import PatchingOptions, run
from tunescope.lenses.patching.runs import PatchRequest, pair_margins
from tunescope.lenses.subject import LensRows
from tunescope.models import load
from tunescope.planted.decisive import planted_head_model

SITES = ("embeddings", "resid_pre", "attn_out", "mlp_out", "resid_post")
POSITIONS = ("before", "at", "after", "pooled", 1, -1)


def pairs_of_rows(model, at):
    """Rows and the same rows with another token at one place; the same place and length in all of them."""
    tokens = splits_of(model, make_rows())["validation"].take(np.arange(6))
    changed = []
    for ids in tokens.input_ids:
        other = np.array(ids)
        other[at % len(ids)] = 7 if other[at % len(ids)] != 7 else 8
        changed.append(other)
    return tokens, dataclasses.replace(tokens, input_ids=changed)


@pytest.mark.parametrize(
    ("kind", "pooling", "layers", "at"),
    [("gpt2", "last", 2, 2), ("bert", "first", 2, 2), ("bert", "mean", 1, 2), ("gpt2", "last", 1, -1),
     ("bert", "first", 1, 2), ("gpt_neox", "last", 2, 1)],
)  # fmt: skip
def test_what_is_said_of_a_place_is_what_running_it_gives(kind, pooling, layers, at, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path, layers=layers)), pooling=pooling)
    clean, corrupt = pairs_of_rows(model, at)
    places = [
        PatchPlace(Site(site, None if site == "embeddings" else layer), None, where)
        for site in SITES for layer in range(1 if site == "embeddings" else layers) for where in POSITIONS
        if not (where == "pooled" and pooling == "mean")
    ]  # fmt: skip
    told = by_construction(model, places, clean, corrupt)
    found = pair_margins(model, corrupt, clean, clean.labels, PatchRequest(places, unrelated=False))
    assert np.abs(found.gap).min() > 1e-4
    shares = (found.patched - found.recipient[:, None]) / found.gap[:, None]
    for place, one, share in zip(places, told, shares.T, strict=True):
        if one == EVERYTHING or (one == BUT_OWN_STREAM and layers == 1 and at != -1):
            np.testing.assert_allclose(share, 1, atol=5e-3, err_msg=str(place))
        elif one == NOTHING:
            np.testing.assert_allclose(share, 0, atol=5e-3, err_msg=str(place))
        elif one is None:
            always = np.abs(share - 1).max() < 1e-6 or np.abs(share).max() < 1e-6
            assert not always, place  # what carries all or nothing in every pair is told
    names = {str(place): one for place, one in zip(places, told, strict=True)}
    last = layers - 1
    assert names["resid_pre[0]@at"] == EVERYTHING
    if pooling != "mean":
        expected = None if kind == "gpt_neox" else BUT_OWN_STREAM
        assert names[f"attn_out[{last}]@pooled"] == expected
        assert names[f"resid_post[{last}]@pooled"] == EVERYTHING


def test_the_attention_of_the_last_block_is_no_candidate_and_the_finding_says_so(tmp_path):
    planted_head_model("bert", 1, 2, tmp_path)
    model = load(str(tmp_path))
    rows = planted_rows()
    texts = rows.frame.select("row_id", "text")
    subject = make_subject(model, model, rows, base_head="none", texts=texts)
    options = PatchingOptions(rows=LensRows(n=40), sites=("attn_out", "mlp_out"), unrelated_control=False)
    table, _ = run(subject, options)
    told = table.filter(pl.col("by_construction") == BUT_OWN_STREAM)
    assert set(zip(told["site"], told["layer"], strict=True)) == {("attn_out", 2)}
    picked = table.filter(pl.col("pick") == "strongest sublayer")
    assert set(zip(picked["site"], picked["layer"], strict=True)) == {("attn_out", 1)}
    (sentence,) = [one.sentence for one in findings(table, subject) if "sublayer" in one.sentence]
    assert "No candidate was the attention of layer 2 (" in sentence
