"""The attention lens: identical models, a planted head swap, padding, and batches that are not seen in the numbers."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import FAMILIES, tiny_folder
from tunescope.capture import Site
from tunescope.errors import LensError, SiteError
from tunescope.lenses import LENSES, View, look, reading
from tunescope.lenses.attention.lens import AttentionLens, AttentionOptions
from tunescope.models import load
from tunescope.models.matrices import matrices

INPUTS = ("query", "key", "value", "q_lin", "k_lin", "v_lin")
ROWS = {"rows": {"split": "validation", "n": 24}}


def attention_of(base, tuned, **options):
    return look(make_subject(base, tuned), [("attention", {**ROWS, **options})], LENSES)[0]


@pytest.fixture(params=FAMILIES)
def model(request, tmp_path):
    return load(str(tiny_folder(request.param, tmp_path)))


def test_identical_models_have_the_same_attention_everywhere(model):
    output = attention_of(model, copy.deepcopy(model))
    changes = output.table.filter(pl.col("model").is_in(["tuned_minus_base", "base_tuned"]))
    assert changes["value"].abs().max() < 1e-6
    changes = changes.filter(~pl.col("metric").str.starts_with("region_"))
    assert changes.height == model.n_layers * model.n_heads * 7
    assert changes["value"].abs().max() < 1e-6
    known = output.table.filter((pl.col("metric") == "jensen_shannon") & pl.col("control").is_not_null())
    assert known["control"].min() > 1e-4  # different heads do differ
    entropy = output.table.filter(pl.col("metric").is_in(["entropy", "entropy_without_sink"]))
    assert entropy.filter(pl.col("model") == "base")["value"].is_between(0, 1 + 1e-6).all()


@pytest.mark.parametrize("kind", ["gpt2", "bert", "distilbert", "roberta"])
def test_a_planted_swap_of_two_heads_is_found_at_those_two_and_changes_no_logit(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    tuned = copy.deepcopy(model)
    layer = model.n_layers - 1
    with torch.no_grad():
        for one in matrices(tuned):
            if one.layer == layer and one.heads:
                first, second = one.of_head(0).clone(), one.of_head(1).clone()

                def place(h, m=one):
                    return m.heads[h] if m.by_row else (slice(None), m.heads[h])

                one.weight[place(0)], one.weight[place(1)] = second, first
        block = tuned.trunk.get_submodule(tuned.family.path("block", layer))
        for name, bias in block.named_parameters():
            if name.endswith("bias") and any(
                part in name for part in ("query", "key", "value", "q_lin", "k_lin", "v_lin")
            ):
                width = tuned.head_width
                bias[: 2 * width] = bias[: 2 * width].reshape(2, width).flip(0).reshape(-1)
    if kind == "gpt2":  # the fused projection's rows are copies; its own weight is swapped by hand
        width, size = tuned.head_width, tuned.width
        with torch.no_grad():
            fused = tuned.trunk.get_submodule(tuned.family.path("query", layer))
            for part in range(3):
                for tensor in (fused.weight, fused.bias):
                    own = tensor[..., part * size : part * size + 2 * width]
                    own.copy_(own.unflatten(-1, (2, width)).flip(-2).flatten(-2).clone())
    table = attention_of(model, tuned).table
    apart = table.filter(pl.col("metric") == "kl").sort("value", descending=True)
    assert {tuple(row) for row in apart.head(2).select("layer", "head").rows()} == {(layer, 0), (layer, 1)}
    assert apart["value"][2:].abs().max() < 1e-6 < apart["value"][1]


def test_batches_and_order_of_rows_are_not_seen_in_the_numbers(tmp_path, monkeypatch):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    rows = make_rows()
    one = look(make_subject(base, tuned, rows), [("attention", ROWS)], LENSES)[0].table
    monkeypatch.setattr(reading, "PATTERN_CELLS", 1)  # a batch of one row at a time
    two = look(make_subject(base, tuned, rows), [("attention", ROWS)], LENSES)[0].table
    np.testing.assert_allclose(two["value"].to_numpy(), one["value"].to_numpy(), atol=2e-5)


def test_other_lenses_see_the_same_numbers_beside_it(tmp_path):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    alone = look(make_subject(base, tuned), [("spread", ROWS)], LENSES)[0].table
    both = look(make_subject(base, tuned), [("attention", ROWS), ("spread", ROWS)], LENSES)
    beside = next(one for one in both if one.lens == "spread").table
    np.testing.assert_allclose(beside["value"].to_numpy(), alone["value"].to_numpy(), rtol=1e-3, atol=1e-5)


def test_models_of_different_shape_are_refused(tmp_path):
    base = load(str(tiny_folder("gpt2", tmp_path / "a")))
    tuned = load(str(tiny_folder("gpt2", tmp_path / "b")))
    tuned.model.config.n_head = 1
    with pytest.raises(LensError, match="differ in shape, so the lens 'attention' cannot compare"):
        attention_of(base, tuned)


def test_texts_layers_and_heads_come_back_under_their_own_names(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    options = AttentionOptions.model_validate({"rows": {"n": 10}, "regions": False, "texts": 0})
    subject = make_subject(model, model, make_rows(30))
    rows = len(subject.draw(options.rows, labelled=False))
    lens = AttentionLens(subject, options, rows)
    layers, heads, length = model.n_layers, model.n_heads, 4
    # A number for each text, layer and head that tells all three apart.
    own = (1 + np.arange(rows * layers * heads)).reshape(rows, layers, heads) / (2 + rows * layers * heads)
    order = np.random.default_rng(0).permutation(rows)
    for batch in (order[:3], order[3:]):
        mask = torch.ones(len(batch), length, dtype=torch.int64)
        for layer in range(layers):
            share = torch.from_numpy(own[batch, layer])[:, :, None].float()  # on the first token, [B, H, 1]
            pattern = torch.diag_embed((1 - share).expand(-1, -1, length)).contiguous()
            pattern[..., 0] += share
            for which, shown in (("base", pattern.flip(1)), ("tuned", pattern)):
                lens.update(View(
                    which, model, Site("attn_pattern", layer), shown, mask, batch,
                    [f"row-{row}" for row in batch], torch.zeros(len(batch)),
                ))  # fmt: skip
    for which, truth in (("tuned", own), ("base", own[:, :, ::-1])):
        assert np.allclose(lens.values[which, "sink_mass", None, None], truth, atol=1e-6)
        table = lens.table().filter(metric="sink_mass", model=which)
        assert table.height == layers * heads
        found = {(layer, head): value for layer, head, value in table.select("layer", "head", "value").rows()}
        assert found == {
            (layer, head): pytest.approx(truth[:, layer, head].mean(), abs=1e-6)
            for layer in range(layers) for head in range(heads)
        }  # fmt: skip


def test_attention_that_comes_back_empty_is_refused(tmp_path, monkeypatch):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    # What transformers does without a word where another kind of attention stays switched on.
    monkeypatch.setattr(type(model.model), "set_attn_implementation", lambda *_: None)
    with pytest.raises(
        SiteError, match=r"attn_pattern\[0\]: this attention implementation returns no pattern; eager"
    ):
        look(make_subject(model, model), [("attention", {})], LENSES)
