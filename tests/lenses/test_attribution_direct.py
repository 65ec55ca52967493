"""Direct logit attribution: shares sum to the logits in every family, and a planted head's share is its closed form."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject
from test_planted_head import planted_rows

from tiny import FAMILIES, encode, families, tiny_folder
from tunescope.capture import read
from tunescope.capture.direct import components_of, direct
from tunescope.capture.sites import Site
from tunescope.errors import LensError, SiteError
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.logits.attribution_direct import contrast
from tunescope.models import load
from tunescope.planted import decisive
from tunescope.planted.decisive import planted_head_model

ROWS = {"rows": {"split": "validation", "n": 40}}
SHORT, LONG = ["rain", "a very good day"], ["he was angry about the noise in the street", "i love this film"]


def lens_of(subject):
    return look(subject, [("attribution_direct", ROWS)], LENSES)[0]


def split(model, texts, **padding):
    return direct(model, encode(model, texts, **padding), texts, 0)


SUMS = [
    pytest.param(kind, pooling, marks=() if pooling == "own" or kind in ("gpt2", "bert") else pytest.mark.slow)
    for kind in FAMILIES for pooling in ("own", "mean", "last", "first_raw")
]  # fmt: skip


@pytest.mark.parametrize(("kind", "pooling"), SUMS)
def test_shares_sum_to_the_logits_for_every_family_and_pooling(kind, pooling, tmp_path):
    folder = tiny_folder(kind, tmp_path)
    model = load(str(folder), **({} if pooling == "own" else {"pooling": pooling}))
    found = split(model, SHORT + LONG)
    gap = (found.shares.sum(1) - found.logits).abs().max()
    assert gap < 1e-5 * max(1.0, float(found.logits.abs().max()))
    assert found.shares.shape == (4, 1 + 3 * 6 + 1, 3)
    assert found.shares[:, :-1].abs().max() > 0.05  # and not all in the constant


@pytest.mark.parametrize("kind", families("gpt2", "bert", "qwen2"))
def test_a_rows_shares_do_not_depend_on_batch_mates_or_padding(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    alone = split(model, SHORT[1:])
    together = split(model, [SHORT[1], *LONG])
    padded = split(model, SHORT[1:], side="left", extra=5)
    for other in (together, padded):
        torch.testing.assert_close(other.shares[:1], alone.shares, atol=1e-5, rtol=0)
        torch.testing.assert_close(other.random[:1], alone.random, atol=1e-5, rtol=0)


def test_shares_of_gpt2_are_the_products_one_would_write_by_hand(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    inputs = encode(model, SHORT[1:])
    found = split(model, SHORT[1:])
    sites = [Site("embeddings"), Site("head_out", 1), Site("mlp_out", 2), Site("final_norm_in")]
    values = {site.name: value.double() for site, value in read(model, sites, inputs).items()}
    norm, weight = model.trunk.ln_f, model.model.score.weight.double()
    scale = (values["final_norm_in"][0, -1].var(unbiased=False) + norm.eps).sqrt()
    for name, vector in {
        "embeddings": values["embeddings"][0, -1],
        "L1H2": values["head_out"][0, -1, 2],
        "L2.mlp": values["mlp_out"][0, -1],
        "L0.attention bias": model.trunk.h[0].attn.c_proj.bias.double(),
    }.items():
        place = [part.name for part in components_of(model)].index(name)
        expected = weight @ (norm.weight.double() * (vector - vector.mean()) / scale)
        torch.testing.assert_close(found.shares[0, place], expected, atol=1e-6, rtol=0)


def test_the_path_through_post_norms_is_the_slope_with_their_scales_detached(tmp_path):
    """Against autograd: the last block's MLP is on one norm, the first block's on all; scales are constants."""
    model = load(str(tiny_folder("bert", tmp_path)), pooling="mean")
    inputs, found = encode(model, LONG), split(model, LONG)
    kept, values = {}, {}

    def frozen(norm, given, _output):
        value = given[0]
        scale = (value.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().detach()
        return norm.weight * (value - value.mean(-1, keepdim=True)) / scale + norm.bias

    def leaf(layer):
        def replace(_module, _given, output):
            kept[layer] = torch.zeros_like(output, requires_grad=True)
            values[layer] = output.detach()
            return output + kept[layer]

        return replace

    blocks = model.trunk.encoder.layer
    handles = [m.register_forward_hook(frozen) for m in blocks.modules() if isinstance(m, torch.nn.LayerNorm)]
    handles += [blocks[layer].output.dense.register_forward_hook(leaf(layer)) for layer in range(3)]
    # Later attention and MLPs are not on the residual path: what they read is cut off.
    cut = lambda _m, given: (given[0].detach(), *given[1:])  # noqa: E731
    for block in blocks:
        handles += [
            block.attention.self.register_forward_pre_hook(cut),
            block.intermediate.register_forward_pre_hook(cut),
        ]
    logits = model(**inputs)
    names = [part.name for part in found.components]
    for layer in range(3):
        for c in range(3):
            slope = torch.autograd.grad(logits[:, c].sum(), kept[layer], retain_graph=True)[0]
            total = (slope * values[layer]).sum((1, 2)).double()
            mine = found.shares[:, names.index(f"L{layer}.mlp"), c]
            torch.testing.assert_close(mine, total.detach(), atol=1e-5, rtol=0)
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(("family", "layer", "head"), [("gpt2", 1, 2), ("bert", 0, 3), ("bert", 2, 1)])
def test_the_planted_head_is_first_with_its_closed_form_and_all_others_are_zero(
    family, layer, head, tmp_path
):
    truth = planted_head_model(family, layer, head, tmp_path)
    model, rows = load(str(tmp_path)), planted_rows()
    output = lens_of(make_subject(model, model, rows, base_head="none"))
    texts = {
        row: (text, label) for row, text, label in rows.frame.select("row_id", "text", "label").iter_rows()
    }
    own = output.examples.filter(pl.col("component") == f"L{layer}H{head}")
    prior = truth.margin("the hotel", 1, 0.0)
    for row in own.iter_rows(named=True):
        text, label = texts[row["row_id"]]
        signal = truth.signal(text)
        if family == "gpt2":  # what the head wrote, over the final norm's scale; the prior shares that scale
            factor = 1 / math.sqrt((decisive.SQUARED_NORM + 2 * signal**2) / decisive.WIDTH + 1e-5)
            expected = 2 * decisive.READ * signal * factor
        else:  # the pooler's answer dimension hears this head alone, so its gain is split with nobody
            without = truth._normalise(truth._scale_before(), signal, 2 * (decisive.N_LAYERS - layer))
            expected = 2 * decisive.READ * math.tanh(decisive.POOL * without[1])
        assert row["contrast"] == pytest.approx(expected * (1 if label == 1 else -1), abs=2e-5)
    assert prior < 0
    table = output.table.filter((pl.col("metric") == "contrast") & pl.col("class").is_null())
    heads = table.filter((pl.col("site") == "head_out") & (pl.col("control") == "none"))
    assert heads.sort("value", descending=True)["component"][0] == f"L{layer}H{head}"
    others = heads.filter(pl.col("component") != f"L{layer}H{head}")
    assert others["value"].abs().max() == 0.0
    assert f"L{layer}H{head} writes" in output.findings[0].sentence
    assert output.findings[0].verdict == "found"


def test_random_vectors_of_equal_norm_write_nothing_on_average(tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s))) for s in (0, 1))
    output = lens_of(make_subject(base, tuned, make_rows(150)))
    random = output.table.filter(pl.col("control") == "random")
    inside = ((random["low"] <= 0) & (random["high"] >= 0)).mean()
    assert random.height == 2 * 19
    assert inside > 0.8
    sizes = output.table.filter((pl.col("metric") == "contrast") & (pl.col("control") == "none"))
    assert random["value"].abs().max() < sizes["value"].abs().max()
    assert len(output.findings) == 3
    assert "difference" in output.findings[2].sentence


def test_identical_models_give_no_difference(tmp_path):
    model = load(str(tiny_folder("distilbert", tmp_path)))
    output = lens_of(make_subject(model, model))
    change = output.table.filter(pl.col("model") == "tuned_minus_base")
    assert change.height == 20
    for column in ("value", "low", "high"):
        assert set(change[column]) == {0.0}
    assert output.table.filter(pl.col("metric") == "sum_gap")["value"].max() < 1e-5
    assert any("nonlinearity" in note for note in output.provenance["notes"])


def test_contrast_ignores_what_is_added_to_all_logits():
    generator = np.random.default_rng(0)
    shares, labels = generator.normal(size=(5, 3, 4)), np.array([0, 1, 2, 3, 0])
    others = [
        [shares[n, k, [c for c in range(4) if c != labels[n]]].mean() for k in range(3)] for n in range(5)
    ]
    np.testing.assert_allclose(contrast(shares, labels), shares[np.arange(5), :, labels] - others)
    np.testing.assert_allclose(contrast(shares + 7.0, labels), contrast(shares, labels))


def test_bad_input_is_refused(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    rows = make_rows(30)
    subject = make_subject(model, model, rows)
    model.head.extra = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(SiteError, match="The head has 3 linear layers; only heads of one, or of two"):
        lens_of(subject)
    del model.head.extra
    subject.splits["validation"].labels[:] = -1
    with pytest.raises(LensError, match="No validation row has a label"):
        lens_of(subject)
    subject = make_subject(model, model, rows, base_head="none")
    assert set(lens_of(subject).table["model"]) == {"tuned"}
    with torch.no_grad():
        model.trunk.h[1].mlp.c_proj.bias[3] = float("nan")
    with pytest.raises(SiteError, match=r"mlp_out\[1\] is NaN or infinite in \d+ of \d+ rows .* row row-\d+"):
        lens_of(subject)
    assert len(subject.draw(LensRows(n=40))) == 20
