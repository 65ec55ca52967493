"""The CKA lens on tiny models: identities, invariances, and a change that it must find."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import DECODERS, FAMILIES, tiny_folder
from tunescope.capture import Site, read
from tunescope.data.batches import collate
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.geometry import cka
from tunescope.lenses.geometry.cka import CKALens, CKAOptions
from tunescope.lenses.reading import View, read_pass
from tunescope.models import load
from tunescope.stats import cka as reference_cka

ROWS = {"rows": {"split": "validation", "n": 40}}


def table_of(subject, **options):
    return look(subject, [("cka", {**ROWS, **options})], LENSES)[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_identical_models_have_cka_one_and_no_findings(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    output = table_of(make_subject(model, model))
    diagonal = output.table.filter(
        (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
    )
    assert diagonal.height == 3 * 3 * (model.n_layers + 1 + (model.family.final_norm is not None))
    undefined = diagonal.filter(pl.col("value").is_null())
    # Pooling at [CLS] makes the embeddings one constant vector; CKA of a constant is undefined, and said to be.
    assert set(undefined["site"]) == (set() if kind in DECODERS else {"embeddings"})
    assert all("constant" in note for note in undefined["note"])
    np.testing.assert_allclose(diagonal["value"].drop_nulls(), 1.0, atol=1e-12)
    assert output.findings == []


def test_values_equal_the_full_estimate_from_features_read_one_row_at_a_time(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned)
    table = table_of(subject).table
    tokens = subject.draw(LensRows(n=40), labelled=False)

    def features(model, site):
        rows = []
        for index in range(len(tokens)):
            batch = collate(tokens, np.array([index]))
            rows.append(
                read(model, [site], batch.inputs())[site][0, -1].numpy()
            )  # unpadded: the last slot is real
        return np.stack(rows)

    for first, second in [(0, 0), (1, 2), (2, 2)]:
        expected = reference_cka(
            features(base, Site("resid_post", first)), features(tuned, Site("resid_post", second))
        )
        mine = table.filter(
            (pl.col("metric") == "cka") & (pl.col("model") == "base_tuned")
            & (pl.col("site") == "resid_post") & (pl.col("layer") == first)
            & (pl.col("site_other") == "resid_post") & (pl.col("layer_other") == second)
        )["value"].item()  # fmt: skip
        assert mine == pytest.approx(float(expected.value), abs=1e-5)


def test_a_planted_change_in_one_layer_is_found_there_and_not_before(tmp_path):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(s), seed=0))) for s in (0, 1))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trunk.encoder.layer[2].parameters():
            parameter.copy_(torch.randn_like(parameter))
    output = table_of(make_subject(base, tuned))
    same = output.table.filter(
        (pl.col("metric") == "cka")
        & (pl.col("model") == "base_tuned")
        & (pl.col("layer") == pl.col("layer_other"))
    ).sort("layer")
    values = same["value"].to_list()
    assert values[1:3] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert values[3] < 0.9
    assert "most at layer 2: CKA base against tuned" in output.findings[0].sentence
    assert (
        "at layer 0 it is 1.00" in output.findings[0].sentence
    )  # not "at the embeddings", which have no value
    # Every text starts with the same token, so the pooled embeddings are one constant vector: said, not guessed.
    assert values[0] is None
    assert "constant" in same["note"][0]


def test_padding_and_batching_do_not_matter(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned, make_rows(120))
    tokens = subject.draw(LensRows(n=80), labelled=False)
    options = CKAOptions(block=16, full_below=8)
    lens = CKALens(subject, options, len(tokens))
    assert lens.before() is None  # so few states are kept, and need no pass of their own
    read_pass(subject, tokens, [lens])
    alone = CKALens(subject, options.model_copy(update={"variants": ("raw",)}), len(tokens))
    assert alone.before() is None
    with torch.no_grad():
        for which, model in (("base", base), ("tuned", tuned)):
            for index in np.random.default_rng(0).permutation(len(tokens)):
                batch = collate(tokens, np.array([index]))
                for site, value in read(model, alone.sites(model), batch.inputs()).items():
                    pooled = model.pool(value, batch.attention_mask)
                    alone.states["raw"].update(batch.index, {f"{which}:{site}": pooled.numpy()})
    raw = lens.table().filter(pl.col("metric") == "cka")
    np.testing.assert_allclose(raw["value"], alone.table()["value"], atol=1e-5)


@pytest.mark.parametrize("full_below", [8, 1024])
def test_states_too_large_to_keep_are_read_twice_with_the_same_numbers(tmp_path, monkeypatch, full_below):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned, make_rows(120))
    options = {"rows": {"n": 80}, "block": 16, "full_below": full_below}
    kept = look(subject, [("cka", options)], LENSES)[0].table
    n, places = kept["n"].drop_nulls().max(), kept.select("site", "layer").unique().drop_nulls("layer").height
    monkeypatch.setattr(cka, "MOST_KEPT", n * 2 * places * tuned.width * 4 - 1)  # a byte too little
    lens = CKALens(subject, CKAOptions(**options), n)
    assert lens.before() is lens.deviations
    twice = look(subject, [("cka", options)], LENSES)[0].table
    for column in ("value", "low", "high", "control"):
        np.testing.assert_allclose(kept[column].to_numpy(), twice[column].to_numpy(), atol=1e-6)


def test_a_shared_rogue_dimension_makes_raw_cka_and_only_raw_cka(tmp_path):
    """Two unrelated final norms that share one loud dimension: alike raw, unlike standardised or without it."""
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned, make_rows(200))
    loud = Site("final_norm_out")
    tokens = subject.draw(LensRows(n=100), labelled=False)
    lens = CKALens(subject, CKAOptions(outliers=1), len(tokens))

    def louder(view: View) -> View:
        if view.site != loud:
            return view
        shared = np.array(
            [int(row.split("-")[1]) % 7 - 3.0 for row in view.row_ids]
        )  # the same in both models
        changed = view.activation.clone()
        changed[:, :, 4] = 50 * torch.as_tensor(shared, dtype=changed.dtype)[:, None]
        return dataclasses.replace(view, activation=changed)

    plain = lens.update
    lens.update = lambda view: plain(louder(view))  # type: ignore[method-assign]
    read_pass(subject, tokens, [lens])
    table = lens.table().filter(
        (pl.col("model") == "base_tuned")
        & (pl.col("site") == str(loud))
        & (pl.col("site_other") == str(loud))
    )
    values = dict(table.select("metric", "value").iter_rows())
    assert values["cka"] > 0.95
    assert values["cka_without_outliers"] < 0.6
    assert values["cka_standardised"] < values["cka"] - 0.2


def test_unequal_vocabularies_are_refused(tmp_path):
    from tunescope.errors import LensError

    base = load(str(tiny_folder("gpt2", tmp_path / "a")))
    tuned = load(str(tiny_folder("bert", tmp_path / "b")))
    with pytest.raises(LensError, match="different vocabularies"):
        table_of(make_subject(base, tuned))
    with pytest.raises(LensError, match="There is no lens 'ckaa'"):
        look(make_subject(base, base), [("ckaa", {})], LENSES)
