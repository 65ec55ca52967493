"""Words and direct attribution on T5 and BART: against plain forward passes, sums and gradients worked out anew."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import NAMES
from tiny_encoder_decoder import folder_of
from tunescope.capture import Site, read
from tunescope.capture.direct import direct
from tunescope.capture.direct_parts import components_of
from tunescope.data.batches import collate
from tunescope.evaluation.words import left_out
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.words.effects import integrated_gradients, neutral_vector, worded
from tunescope.models import load
from tunescope.models.encoder_decoder import decoder_inputs

LABEL = 1


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def model(request, tmp_path_factory):
    scale = 0.15 if request.param == "bart" else 0.1
    return load(
        str(folder_of(request.param, tmp_path_factory.mktemp(request.param), names=list(NAMES), scale=scale))
    )


@pytest.fixture
def subject(model):
    rows = make_rows(30)
    made = make_subject(model, model, rows, base_head="none")
    made.texts = rows.frame.select("row_id", "text")
    return made


def margin_of(logits, label):
    return float(logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).logsumexp(0))


def answer(model, text):
    """Run transformers' own class on one text."""
    ids = torch.tensor(model.tokenizer([text])["input_ids"])
    inputs = {"decoder_input_ids": decoder_inputs(ids, model.model.config)}
    with torch.no_grad():
        return model.model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0].double()


def test_leaving_a_word_out_is_the_difference_of_two_plain_passes(subject):
    options = {"rows": {"n": 4}, "gradient_rows": 0, "at_least": 2}
    (output,) = look(subject, [("words", options)], LENSES)
    texts = dict(subject.texts.iter_rows())
    names = list(subject.tuned.labels.names)
    for row in output.examples.iter_rows(named=True):
        text, label = texts[row["row_id"]], names.index(row["label"])
        without = left_out(text)[row["place"]]
        expected = margin_of(answer(subject.tuned, text), label) - margin_of(
            answer(subject.tuned, without), label
        )
        assert row["left_out"] == pytest.approx(expected, abs=2e-5)
    assert output.examples["left_out"].abs().max() > 1e-3
    masked = output.table.filter(pl.col("by") == "masked").height
    assert bool(masked) == (subject.tuned.tokenizer.mask_token_id is not None)


def test_integrated_gradients_are_of_both_readings_and_add_up(model, subject):
    tokens = subject.draw(LensRows(n=4))
    texts = dict(subject.texts.iter_rows())
    ids = np.asarray(tokens.input_ids[0])
    row = worded(model, tokens.row_ids[0], texts[tokens.row_ids[0]], ids, np.arange(1))
    inputs = collate(tokens, np.array([0])).inputs()
    found = integrated_gradients(model, row, inputs, LABEL, 512)
    assert found.complete
    trunk, given = model.trunk, inputs["input_ids"]
    second = decoder_inputs(given, model.model.config)
    own, other = (trunk.get_submodule(f"{one}.embed_tokens") for one in ("encoder", "decoder"))
    with torch.no_grad():
        start = [own(given), other(second)]
    real = torch.as_tensor(row.word_of >= 0)
    moved = torch.cat([torch.zeros(1, dtype=torch.bool), real[:-1]])
    ways = [
        torch.where(where[None, :, None], one - neutral_vector(model), torch.zeros_like(one))
        for where, one in zip((real, moved), start, strict=True)
    ]

    def margin_at(encoder, decoder):
        states = trunk(
            inputs_embeds=encoder,
            decoder_inputs_embeds=decoder,
            attention_mask=torch.ones_like(given),
            use_cache=False,
        ).last_hidden_state
        logits = model.head(states[:, -1])[0].double()
        return logits[LABEL] - torch.cat([logits[:LABEL], logits[LABEL + 1 :]]).logsumexp(0)

    shares, points = torch.zeros(2, given.shape[1], dtype=torch.float64), 64
    for step in range(points):
        far = 1 - (step + 0.5) / points
        at = [(one - far * way).requires_grad_() for one, way in zip(start, ways, strict=True)]
        slopes = torch.autograd.grad(margin_at(*at), at)
        for index, (slope, way) in enumerate(zip(slopes, ways, strict=True)):
            shares[index] += (slope * way).sum(-1)[0].double() / points
    by_token = shares[0] + torch.cat([shares[1, 1:], shares[1, :1]])
    expected = np.zeros(len(row.words))
    for token, word in enumerate(row.word_of):
        if word >= 0:
            expected[word] += float(by_token[token])
    np.testing.assert_allclose(found.words, expected, atol=2e-3 * max(1.0, np.abs(expected).max()))
    with torch.no_grad():
        total = float(
            margin_at(*start) - margin_at(*(one - way for one, way in zip(start, ways, strict=True)))
        )
    assert found.total == pytest.approx(total, abs=2e-5)
    assert shares[1].abs().max() > 1e-4  # the decoder's reading takes part
    assert found.words.sum() == pytest.approx(found.total, abs=max(0.01 * abs(found.total), 1e-4))


def test_the_decoders_parts_sum_to_the_logits(model, subject):
    tokens = subject.draw(LensRows(n=6))
    inputs = collate(tokens, np.arange(len(tokens))).inputs()
    found = direct(model, inputs, list(tokens.row_ids), 0)
    size = max(1.0, float(found.logits.abs().max()))
    torch.testing.assert_close(found.shares.sum(1), found.logits, atol=1e-5 * size, rtol=1e-5)
    names = [one.name for one in found.components]
    assert names[:2] == ["embeddings", "decoder.L0H0"]
    assert names[-1] == "constant"
    assert {"cross.L1H3", "cross.L0.attention bias", "decoder.L1.mlp"} <= set(names)
    assert len(names) == len(set(names)) == 2 + 2 * (2 * model.n_heads + 3)
    moved = found.shares[:, [index for index, name in enumerate(names) if name.startswith("cross.L")]]
    assert moved.abs().max() > 1e-3


def test_a_cross_heads_share_is_its_vector_through_norm_and_head(model, subject):
    """In T5 one norm is on the path: its share is the vector it writes, scaled, times the head's slope."""
    if model.family.norm_order != "pre":
        pytest.skip("every later norm is on the path of a post-norm model")
    tokens = subject.draw(LensRows(n=4))
    inputs = collate(tokens, np.array([0])).inputs()
    site = Site("cross_head_out", 1)
    last, before = Site("cross_head_out", 1), Site("final_norm_in", stack="decoder")
    seen = read(model, [last, before], inputs)
    vector, stream = seen[site][0, -1, 2].double(), seen[before][0, -1].double()
    norm = model.trunk.get_submodule("decoder.final_layer_norm")
    scaled = vector * norm.weight.double() / torch.sqrt(stream.pow(2).mean() + norm.variance_epsilon)
    pooled = stream * norm.weight.double() / torch.sqrt(stream.pow(2).mean() + norm.variance_epsilon)
    dense, out = model.model.classification_head.dense, model.model.classification_head.out_proj
    inner = pooled @ dense.weight.double().T + dense.bias.double()
    gain = torch.tanh(inner) / inner
    expected = ((scaled @ dense.weight.double().T) * gain) @ out.weight.double().T
    found = direct(model, inputs, list(tokens.row_ids), 0)
    index = [one.name for one in found.components].index("cross.L1H2")
    torch.testing.assert_close(found.shares[0, index], expected, atol=1e-5, rtol=1e-4)


def test_the_lens_names_every_part_and_its_place(subject):
    (output,) = look(subject, [("attribution_direct", {"rows": {"n": 12}})], LENSES)
    own = output.table.filter(
        (pl.col("metric") == "contrast") & (pl.col("control") == "none") & pl.col("class").is_null()
    )
    assert own["component"].to_list() == [one.name for one in components_of(subject.tuned)]
    assert set(own["stack"]) == {"decoder"}
    gap = output.table.filter(pl.col("metric") == "sum_gap")["value"].max()
    assert gap < 1e-4
    assert any("the parts are the decoder's" in note for note in output.provenance["notes"])
