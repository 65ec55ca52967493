"""The flow lens: closed forms of rollout, a circuit of two heads set by hand, and edges run by hand."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject
from transformers import GPT2Config, GPT2ForSequenceClassification

from tiny import byte_bpe, families, tiny_folder
from tunescope.capture.edges import contrast_slopes, direct_edges
from tunescope.data.labels import LabelMap
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.lenses.flow.rollout import rollout
from tunescope.models import load
from tunescope.models.classifier import Classifier
from tunescope.models.families import family_of
from tunescope.models.language import load_language_model

ROWS = {"rows": {"split": "validation", "n": 6}}


def even(size, causal):
    keys = torch.ones(size, size, dtype=torch.float64)
    keys = keys.tril() if causal else keys
    return (keys / keys.sum(-1, keepdim=True))[None, None]


def test_rollout_of_even_attention_has_its_closed_form():
    size, layers = 7, 4
    found = rollout([even(size, False)] * layers)[0]
    share = 0.5**layers
    torch.testing.assert_close(
        found, share * torch.eye(size, dtype=torch.float64) + (1 - share) / size * torch.ones(size, size)
    )


def test_rollout_is_the_product_of_mixed_layers_and_its_rows_sum_to_1():
    torch.manual_seed(0)
    patterns = [torch.softmax(torch.randn(2, 3, 5, 5, dtype=torch.float64), -1).tril() for _ in range(3)]
    patterns = [one / one.sum(-1, keepdim=True) for one in patterns]
    found = rollout(patterns, residual=0.3)
    by_hand = np.eye(5)
    for one in patterns:
        by_hand = (0.3 * np.eye(5) + 0.7 * one[1].mean(0).numpy()) @ by_hand
    np.testing.assert_allclose(found[1], by_hand)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert torch.equal(rollout(patterns, residual=1)[0], torch.eye(5, dtype=torch.float64))
    with pytest.raises(LensError, match="weight is 0 to 1, got 2"):
        rollout(patterns, residual=2)
    with pytest.raises(LensError, match="needs the attention pattern"):
        rollout([])


FIRST, SECOND = (0, 1), (1, 2)  # head 1 of layer 0 writes what head 2 of layer 1 alone reads


def circuit() -> Classifier:
    """A GPT-2 in which one head writes into a coordinate of its own, and one later head carries that to the answer.

    Tokens are told apart by coordinates 0 to 3; the first head reads 0 and writes 8 (and -8 into 9, so that the mean
    stays), the second reads 8 and writes 12, which the classifier reads. Everything else is zero.
    """
    torch.manual_seed(0)
    tokenizer = byte_bpe()
    config = GPT2Config(
        n_layer=3, n_head=4, n_embd=16, n_positions=64, vocab_size=len(tokenizer), num_labels=2, pad_token_id=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2ForSequenceClassification(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if "ln_" in name and name.endswith("weight"):
                parameter.fill_(1.0)
        table = model.transformer.wte.weight
        table[:, 0:4] = torch.randn(len(table), 4, dtype=torch.float64)
        table[:, 4:8] = -table[:, 0:4]
        for (layer, head), source, target in ((FIRST, 0, 8), (SECOND, 8, 12)):
            block, place = model.transformer.h[layer], head * 4
            block.attn.c_attn.weight[source, 32 + place] = 1.5
            block.attn.c_proj.weight[place, target], block.attn.c_proj.weight[place, target + 1] = 1.0, -1.0
        model.score.weight[1, 12], model.score.weight[0, 12] = 2.0, -2.0
    family = family_of("gpt2")
    return Classifier(model, tokenizer, family, family.own_pooling, LabelMap(("no", "yes")), 64).eval()


def test_a_circuit_of_two_heads_is_found_first_and_every_other_edge_is_0():
    model = circuit()
    rows = make_rows(18, classes=2)
    table = look(make_subject(model, model, rows), [("flow", ROWS)], LENSES)[0].table
    edges = table.filter((pl.col("metric") == "direct_effect") & (pl.col("model") == "tuned"))
    edges = edges.sort(pl.col("size"), descending=True)
    first = edges.row(0, named=True)
    between = edges.filter((pl.col("site") != "logits") & (pl.col("size") > 1e-12))
    assert [(row["sender"], row["receiver"]) for row in between.iter_rows(named=True)] == [("L0H1", "L1H2")]
    assert first["size"] > 1e-3
    to_answer = edges.filter((pl.col("site") == "logits") & (pl.col("size") > 1e-12))
    assert to_answer["sender"].to_list() == ["L1H2"]
    assert to_answer["value"][0] == pytest.approx(
        first["value"]
    )  # all that the second writes comes from the first


def held(norm, given, value):
    """Return what a layer norm makes of a share of its input when its scale is that of the whole."""
    scale = (given.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    return (value - value.mean(-1, keepdim=True)) / scale * norm.weight


@torch.no_grad()
def test_an_edge_between_heads_and_one_into_an_mlp_equal_gpt2_run_by_hand(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    model.model.double()
    ids = torch.tensor([[5, 17, 40, 8, 33, 90]])
    found = direct_edges(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, contrast_slopes(model, 1),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    gpt2 = model.model.transformer
    stream = gpt2.wte(ids) + gpt2.wpe(torch.arange(6))
    written, streams = {}, []

    def attend(block, normed):
        q, k, v = (one.view(1, 6, 4, 8).transpose(1, 2) for one in block.attn.c_attn(normed).split(32, -1))
        scores = (q @ k.transpose(-1, -2)) / 8**0.5
        scores = scores.masked_fill(~torch.ones(6, 6).tril().bool(), -torch.inf)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2)  # [1, 6, 4, 8]

    for layer, block in enumerate(gpt2.h):
        streams.append([stream])
        z = attend(block, block.ln_1(stream))
        written[layer] = torch.einsum("bthd,hde->hbte", z, block.attn.c_proj.weight.view(4, 8, 32))
        stream = stream + block.attn.c_proj(z.flatten(2))
        streams[layer].append(stream)
        stream = stream + block.mlp(block.ln_2(stream))

    def answer(moved):
        logits = model.model.score(held(gpt2.ln_f, stream[:, -1], moved[:, -1]))[0]
        return float(logits[1] - (logits[0] + logits[2]) / 2)

    names = {(p.site, p.layer, p.head): n for n, p in enumerate(found.senders)}
    into = {(p.site, p.layer, p.head): n for n, p in enumerate(found.receivers)}
    sender, receiver = ("head_out", 0, 1), ("head_out", 2, 3)
    a, block = written[0][1], gpt2.h[2]
    normed = block.ln_1(streams[2][0])
    without = attend(block, normed - held(block.ln_1, streams[2][0], a))
    moved = (attend(block, normed) - without)[:, :, 3] @ block.attn.c_proj.weight.view(4, 8, 32)[3]
    assert float(found.effects[names[sender], into[receiver]]) == pytest.approx(answer(moved), rel=1e-9)
    block = gpt2.h[1]
    normed = block.ln_2(streams[1][1])
    moved = block.mlp(normed) - block.mlp(normed - held(block.ln_2, streams[1][1], a))
    assert float(found.effects[names[sender], into["mlp_out", 1, None]]) == pytest.approx(
        answer(moved), rel=1e-9
    )
    assert float(found.effects[names[sender], into["logits", None, None]]) == pytest.approx(
        answer(a), rel=1e-9
    )
    assert torch.isnan(found.effects[names[receiver], into[sender]])
    assert torch.isnan(
        found.effects[names[sender], into["head_out", 0, 2]]
    )  # heads of one layer do not read one another


@pytest.mark.parametrize("kind", families("gpt2", "bert", "gpt_neox"))
def test_the_parts_of_the_logits_sum_in_every_family_and_identical_models_have_no_change(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    subject = make_subject(model, copy.deepcopy(model))
    flow, direct = look(
        subject, [("flow", {"rows": {"n": 4}}), ("attribution_direct", {"rows": {"n": 4}})], LENSES
    )
    own = flow.table.filter((pl.col("model") == "tuned") & (pl.col("site") == "logits")).select(
        "sender", "value"
    )
    known = direct.table.filter(
        (pl.col("metric") == "contrast") & (pl.col("model") == "tuned") & (pl.col("control") == "none")
        & pl.col("class").is_null()
    )  # fmt: skip
    both = own.join(
        known.select("component", pl.col("value").alias("share")), left_on="sender", right_on="component"
    )
    assert both.height == 1 + model.n_layers * (model.n_heads + 1)
    np.testing.assert_allclose(both["value"], both["share"], rtol=1e-4, atol=1e-5)
    changes = flow.table.filter(pl.col("model").is_in(["tuned_minus_base", "base_tuned"]))
    assert changes["value"].abs().max() < 1e-5
    sums = flow.examples.group_by("row_id", "model").agg(pl.col("value").sum())
    np.testing.assert_allclose(sums["value"], 1, atol=1e-6)
    between = flow.table.filter((pl.col("metric") == "direct_effect") & (pl.col("site") == "mlp_out"))
    assert between["control"].drop_nulls().min() > 0


def test_a_language_model_is_followed_to_its_last_token(tmp_path):
    base, tuned = (
        load_language_model(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed, language=True)))
        for seed in (0, 1)
    )
    output = look(make_subject(base, tuned, base_head="own"), [("flow", {"rows": {"n": 4}})], LENSES)[0]
    assert output.table.filter(pl.col("metric") == "direct_effect")["value"].null_count() == 0
    assert any("the answer is the last token" in note for note in output.provenance["notes"])


def test_rows_that_are_all_too_long_have_a_rollout_and_no_edges_and_it_is_said(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    output = look(make_subject(model, model), [("flow", {**ROWS, "longest": 2})], LENSES)[0]
    assert "direct_effect" not in output.table["metric"].to_list()
    assert output.table.filter(pl.col("metric") == "rollout_entropy")["value"].null_count() == 0
    assert "6 of 6 rows have more than 2 tokens and no graph of edges; raise" in output.provenance["notes"][0]


def test_a_masked_language_model_has_a_rollout_alone(tmp_path):
    model = load_language_model(str(tiny_folder("bert", tmp_path, language=True)))
    output = look(make_subject(model, model, base_head="own"), [("flow", {"rows": {"n": 4}})], LENSES)[0]
    assert set(output.table["site"]) == {"attn_pattern"}
    assert any("so no graph of edges" in note for note in output.provenance["notes"])
