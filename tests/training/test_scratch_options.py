"""What a GPT from its configuration may be: biases, first weights, dropout, tokenizers, shapes, bits per byte."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from nanogpt_shaped import NanoGPTShaped
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import byte_bpe, tiny_folder, word_piece
from tunescope.config.scratch import ScratchConfig
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load_trunk
from tunescope.training import scratch
from tunescope.training.scratch import pretrain, schedule
from tunescope.training.scratch_loss import text_loss
from tunescope.training.scratch_model import groups, new_model
from tunescope.training.scratch_tokenizer import (
    bytes_of_tokens,
    character_tokenizer,
    make_tokenizer,
    source_digests,
    train_tokenizer,
)
from tunescope.tuning import METHODS

SMALL = {
    "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 24, "vocab_size": 300, "epochs": 0.5, "batch_size": 8
}  # fmt: skip
MIXED = ["über den Wolken – 🦉 flies", "naïve café", "plain words", "שלום world"]


def config(**more) -> ScratchConfig:
    return ScratchConfig.model_validate({**SMALL, **more})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = random.Random(0)
    words = ["cats", "dogs", "sleep", "run", "on", "monday", "small", "old", "the", "grey"]
    lines = [" ".join(rng.choice(words) for _ in range(rng.randint(3, 9))) for _ in range(150)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def biases(model):
    return {name: one for name, one in model.named_parameters() if name.endswith("bias")}


def test_without_biases_it_is_the_function_that_has_none(corpus, tmp_path):
    """Against an own forward pass without any bias, after training; and no later tuning wakes them."""
    record = pretrain(corpus, config(bias=False, epochs=2), tmp_path / "model", seed=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert all((one == 0).all() for one in biases(model).values())
    reference = NanoGPTShaped(2, 2, 16, 24, record["vocab_size"], bias=False, tanh=True)
    weights = {
        name: tensor.t() if "c_" in name else tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("bias")
    }
    reference.load_state_dict(weights)
    ids = torch.tensor([[9, 40, 77, 5, 120, 33]])
    with torch.no_grad():
        assert torch.allclose(reference(ids), model(ids).logits, atol=1e-5)
    assert record["parameters"] == sum(one.numel() for one in reference.parameters())

    classifier = load_trunk(str(tmp_path / "model"), labels=LabelMap(("a", "b")))
    METHODS["full"].prepare(classifier, METHODS["full"].options())
    moving = [one for one in classifier.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=0.1)
    classifier.train()
    classifier(ids, torch.ones_like(ids)).pow(2).sum().backward()
    optimizer.step()
    assert all((one == 0).all() for name, one in biases(classifier.trunk).items())
    assert sum(one.numel() for one in moving) == record["parameters"] + 2 * 16


def test_first_weights_are_those_of_nanogpt():
    tokenizer = byte_bpe()
    shape = {"n_layer": 6, "n_embd": 64, "n_head": 4, "vocab_size": 320}
    for kind, shrunk in (("nanogpt", 0.02 / math.sqrt(12)), ("plain", 0.02)):
        model = new_model(config(**shape, initialisation=kind), tokenizer, seed=3)
        for name, one in model.named_parameters():
            if name.endswith("bias"):
                assert (one == 0).all()
            elif ".ln_" in name:
                assert (one == 1).all()
            else:
                one = one.detach()
                expected = shrunk if name.endswith("c_proj.weight") else 0.02
                # Within four standard errors of a standard deviation and of a mean.
                assert float(one.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * one.numel()))
                assert float(one.mean()) == pytest.approx(0, abs=4 * expected / math.sqrt(one.numel()))


def test_weight_decay_is_on_matrices_only():
    model = new_model(config(bias=False), byte_bpe(), seed=0)
    decayed, kept = groups(model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {id(one): name for name, one in model.named_parameters()}
    assert {names[id(one)].split(".")[-2] for one in kept["params"]} == {"ln_1", "ln_2", "ln_f"}
    matrices = {names[id(one)].split(".")[-2] for one in decayed["params"]}
    assert matrices == {"wte", "wpe", "c_attn", "c_proj", "c_fc"}
    assert not any(names[id(one)].endswith("bias") for group in (decayed, kept) for one in group["params"])


def test_warm_up_then_half_a_cosine():
    shares = [schedule(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.05 + 0.95 / 2)  # half way down
    assert all(a > b for a, b in pairwise(shares[10:]))
    assert 0.05 < shares[99] < 0.052
    assert schedule(0, 100, 0.0) == 1.0


def test_dropout_is_drawn_a_step_and_resumes_exactly(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "STEPS_BETWEEN_CHECKPOINTS", 2)
    more = {"dropout": 0.3, "bias": False, "epochs": 2}
    whole = pretrain(corpus, config(**more), tmp_path / "whole", seed=1)
    assert whole["steps"] > 5
    real, left = scratch.write_checkpoint, [2]

    def stop(*arguments):
        real(*arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(scratch, "write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, config(**more), tmp_path / "parts", seed=1)
    monkeypatch.setattr(scratch, "write_checkpoint", real)
    torch.rand(7)  # the global generator is somewhere else after a restart
    again = pretrain(corpus, config(**more), tmp_path / "parts", seed=1)
    assert again["log"] == whole["log"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    without = pretrain(corpus, config(**more | {"dropout": None}), tmp_path / "without", seed=1)
    assert without["log"][0]["loss"] != whole["log"][0]["loss"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").config
    assert (loaded.resid_pdrop, loaded.embd_pdrop, loaded.attn_pdrop) == (0.3, 0.3, 0.3)
    # Held-out text is read without dropout.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    material = scratch._prepare(scratch._read_texts(corpus), config(**more), 1, {})
    assert scratch.window_loss(model.eval(), material.held_out, 8) == pytest.approx(
        whole["heldout_loss"], abs=1e-5
    )


def test_no_epochs_leave_random_weights(corpus, tmp_path):
    record = pretrain(corpus, config(epochs=0), tmp_path / "model", seed=4)
    assert (record["steps"], record["tokens"], record["log"]) == (0, 0, [])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    fresh = new_model(config(), tokenizer, seed=4).state_dict()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(saved[name], fresh[name]) for name in fresh)
    assert record["heldout_loss"] == pytest.approx(math.log(record["vocab_size"]), abs=0.1)
    assert record["heldout_bits_per_byte"] == pytest.approx(
        record["heldout_loss"] * record["heldout_tokens"] / math.log(2) / record["heldout_bytes"]
    )


@pytest.mark.parametrize("kind", ["bpe", "characters"])
@pytest.mark.parametrize("length", [24, 5])
def test_a_uniform_model_takes_log2_of_the_vocabulary_a_token(kind, length):
    """Bits per byte by hand: log2 V for each predicted token and each end, over the bytes that they stand for."""
    tokenizer = make_tokenizer(MIXED, config(tokenizer=kind))
    model = new_model(config(), tokenizer, seed=0).eval()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
    loss = text_loss(model, tokenizer, MIXED, length=length)
    tokens = size = 0
    for text in MIXED:
        ids = [*tokenizer(text)["input_ids"], None]
        for start in range(0, len(ids), length):
            for token in ids[start + 1 : start + length]:
                tokens += 1
                size += 0 if token is None else byte_length(tokenizer, token)
    assert (loss.tokens, loss.bytes) == (tokens, size)
    assert loss.nats_per_token == pytest.approx(math.log(len(tokenizer)), abs=1e-6)
    assert loss.bits_per_byte == pytest.approx(math.log2(len(tokenizer)) * tokens / size, rel=1e-6)


def byte_length(tokenizer, token):
    """A byte-level token's spelling has one sign a byte; a character's own spelling is encoded."""
    spelling = tokenizer.convert_ids_to_tokens(token)
    byte_level = type(tokenizer.backend_tokenizer.decoder).__name__ == "ByteLevel"
    return len(spelling) if byte_level else len(spelling.encode())


def test_bytes_of_tokens_sum_to_the_bytes_of_the_text():
    for tokenizer in (
        train_tokenizer(MIXED, 280, 24), character_tokenizer(MIXED, 300, 24), character_tokenizer(["abc"], 300, 24)
    ):  # fmt: skip
        sizes = bytes_of_tokens(tokenizer, MIXED)
        assert [int(one.sum()) for one in sizes] == [len(text.encode()) for text in MIXED]
        assert [len(one) for one in sizes] == [len(ids) for ids in tokenizer(MIXED)["input_ids"]]


def test_the_loss_of_texts_is_that_of_each_text_alone(corpus, tmp_path):
    pretrain(corpus, config(epochs=1, tokenizer="characters"), tmp_path / "model", seed=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = ["the old cats sleep", "dogs run", "grey"]
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logs = model(ids, attention_mask=torch.ones_like(ids)).logits[0, :-1].log_softmax(-1)
        total -= float(logs.gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    loss = text_loss(model, tokenizer, texts)
    assert (loss.tokens, loss.bytes) == (count, sum(len(text) - 1 for text in texts))
    assert loss.nats_per_token == pytest.approx(total / count, abs=1e-5)


def test_characters_come_back_and_unknown_ones_are_unknown(tmp_path):
    character_tokenizer(["abba\tc ü🦉"], 300, 24).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 3 + len(set("abba\tc ü🦉"))
    ids = tokenizer("ab 🦉\tü")["input_ids"]
    assert len(ids) == 6
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "ab 🦉\tü"
    assert tokenizer("axb")["input_ids"][1] == tokenizer.unk_token_id
    assert len({tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    few = character_tokenizer(["aaabbc"], 5, 24)  # three special ones leave room for the two most frequent
    assert [few.unk_token_id == token for token in few("abc")["input_ids"]] == [False, False, True]


def test_a_tokenizer_from_a_folder_is_taken_as_it_is(corpus, tmp_path):
    byte_bpe().save_pretrained(tmp_path / "bpe")
    word_piece().save_pretrained(tmp_path / "words")
    folder = str(tmp_path / "bpe")
    record = pretrain(corpus, config(tokenizer=folder), tmp_path / "model", seed=0)
    own, theirs = AutoTokenizer.from_pretrained(tmp_path / "model"), byte_bpe()
    assert own.get_vocab() == theirs.get_vocab()
    assert record["vocab_size"] == len(theirs)
    assert own.model_max_length == 24
    assert load_trunk(str(tmp_path / "model"), labels=LabelMap(("a", "b"))).max_length == 24
    before = source_digests(config(tokenizer=folder))
    assert before == record["fingerprint"]["sources"]
    byte_bpe(["other texts"], 280).save_pretrained(tmp_path / "bpe")
    assert source_digests(config(tokenizer=folder)) != before
    with pytest.raises(ModelError, match=r"has no end-of-text token"):
        pretrain(corpus, config(tokenizer=str(tmp_path / "words")), tmp_path / "no", seed=0)


def test_like_copies_shape_and_tokenizer_and_no_weight(corpus, tmp_path, bert_folder):
    source = tiny_folder("gpt2", tmp_path / "source", layers=2)
    like = ScratchConfig(like=str(source), epochs=0, batch_size=8)
    record = pretrain(corpus, like, tmp_path / "model", seed=1)
    ours, theirs = (
        load_file(tmp_path / "model" / "model.safetensors"),
        load_file(source / "model.safetensors"),
    )
    for name, tensor in theirs.items():
        if name.startswith("transformer."):
            assert ours[name].shape == tensor.shape
            assert tensor.ndim == 1 or not torch.equal(ours[name], tensor)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == byte_bpe().get_vocab()
    config_of = AutoModelForCausalLM.from_pretrained(tmp_path / "model").config
    assert (config_of.n_positions, config_of.n_head, config_of.resid_pdrop) == (64, 4, 0.1)
    assert record["steps"] == 0
    assert load_trunk(str(tmp_path / "model"), labels=LabelMap(("a", "b"))).n_layers == 2
    with pytest.raises(ModelError, match=r"is a BERT; from nothing only GPT-2's architecture"):
        pretrain(corpus, ScratchConfig(like=str(bert_folder)), tmp_path / "no", seed=0)
    with pytest.raises(ModelError, match=r"'nothing/here' could not be had"):
        pretrain(corpus, ScratchConfig(like="nothing/here"), tmp_path / "no", seed=0)


def test_block_size_is_another_name_of_n_positions():
    one = ScratchConfig(block_size=32)
    assert one.n_positions == 32
    assert ScratchConfig.model_validate(one.model_dump()) == one
    with pytest.raises(
        ValidationError, match=r"block_size \(32\) and n_positions \(64\) are two names of one number"
    ):
        ScratchConfig(block_size=32, n_positions=64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"like": "gpt2", "n_layer": 2, "tokenizer": "gpt2"}, r"so n_layer, tokenizer cannot be given beside it"),
        ({"dropout": 1.0}, r"less than 1"),
        ({"epochs": -1}, r"greater than or equal to 0"),
        ({"initialisation": "zeros"}, r"'nanogpt' or 'plain'"),
        ({"n_embd": 10, "n_head": 4}, r"n_embd \(10\) must be a multiple of n_head \(4\)"),
    ],
)  # fmt: skip
def test_settings_that_contradict_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        ScratchConfig(**fields)


@pytest.mark.shared
def test_gpt2_s_own_tokenizer(shared, corpus, tmp_path):
    folder = str(shared / "tokenizers" / "gpt2")
    record = pretrain(corpus, config(tokenizer=folder, epochs=0), tmp_path / "model", seed=0)
    assert record["vocab_size"] == 50257  # not padded to 50,304
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert np.array_equal(tokenizer("small cats sleep")["input_ids"], [17470, 11875, 3993])
    assert record["heldout_bits_per_byte"] == pytest.approx(
        math.log2(50257) * record["heldout_tokens"] / record["heldout_bytes"], rel=0.02
    )
