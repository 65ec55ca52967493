"""T5 and BART as language models: the loss per target token against transformers' own."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM

from tiny import TEXTS, encode, tiny_folder
from tiny_encoder_decoder import folder_of
from tunescope.capture import Site, editing, read, zero
from tunescope.errors import ModelError
from tunescope.models.sequence_to_sequence import load_sequence_to_sequence

TARGETS = ["the cat", "a day", "sad old house", "what", "he was angry", "film", "the night was long", "rain"]


@pytest.fixture(params=("t5", "t5_gated", "bart"), scope="module")
def folder(request, tmp_path_factory):
    return folder_of(request.param, tmp_path_factory.mktemp(request.param), task="language_model")


@pytest.fixture(scope="module")
def model(folder):
    return load_sequence_to_sequence(str(folder))


def asked(model, texts=TEXTS, targets=TARGETS, **options):
    inputs, aims = encode(model, texts, **options), encode(model, targets)
    return {**inputs, "target_ids": aims["input_ids"], "target_mask": aims["attention_mask"]}


def losses(model, *arguments, **options):
    with torch.no_grad():
        return model.target_loss(**asked(model, *arguments, **options))


def test_losses_are_those_of_transformers_own_class(folder, model):
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    ours = losses(model)
    for row, (text, target) in enumerate(zip(TEXTS, TARGETS, strict=True)):
        inputs = model.tokenizer(text, return_tensors="pt")
        labels = model.tokenizer(target, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = plain(**inputs, labels=labels)
        expected = functional.cross_entropy(out.logits[0], labels[0], reduction="none")
        length = labels.shape[1]
        torch.testing.assert_close(ours[row, :length], expected, atol=2e-5, rtol=2e-5)
        assert float(ours[row, :length].mean()) == pytest.approx(float(out.loss), abs=2e-5)
        assert not ours[row, length:].any()


def test_losses_do_not_depend_on_padding_or_batch_mates(model):
    together = losses(model)
    for options in ({"side": "left"}, {"extra": 4}, {"side": "left", "extra": 3}):
        torch.testing.assert_close(losses(model, **options), together, atol=2e-5, rtol=2e-5)
    for row in range(len(TEXTS)):
        alone = losses(model, [TEXTS[row]], [TARGETS[row]])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-5, rtol=2e-5)


def test_sites_of_both_stacks_are_read_and_edited(model):
    inputs = asked(model)
    pattern = Site("cross_attn_pattern", 1)
    values = read(model, [pattern, Site("resid_post", 1, "encoder"), Site("logits")], inputs)
    rows, length, target = len(TEXTS), inputs["input_ids"].shape[1], inputs["target_ids"].shape[1]
    assert values[pattern].shape == (rows, model.stacks[1].n_heads, target, length)
    assert values[Site("resid_post", 1, "encoder")].shape == (rows, length, model.width)
    assert values[Site("logits")].shape == (rows, target, model.vocabulary)
    clean = losses(model)
    for site in (Site("head_z", 0, "encoder"), Site("head_z", 0, "decoder"), Site("cross_head_z", 0)):
        with editing(model, [zero(site, (1,))]):
            assert float((losses(model) - clean).abs().max()) > 1e-4
    assert torch.equal(losses(model), clean)


def test_an_adapter_is_merged_and_answers_as_in_peft(folder, model, tmp_path):
    torch.manual_seed(3)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    names = sorted(
        {model.family.query.rpartition(".")[2], model.family.attention_projection.rpartition(".")[2]}
    )
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for an attribute by its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        tuned = get_peft_model(plain, LoraConfig(r=2, target_modules=names, task_type="SEQ_2_SEQ_LM"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    found = load_sequence_to_sequence(str(tmp_path / "adapter"), base=str(folder))
    inputs = model.tokenizer(TEXTS[0], return_tensors="pt")
    labels = model.tokenizer(TARGETS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = float(tuned(**inputs, labels=labels).loss)
    ours = float(losses(found, TEXTS[:1], TARGETS[:1]).mean())
    assert ours == pytest.approx(expected, abs=1e-4)
    assert abs(ours - float(losses(model, TEXTS[:1], TARGETS[:1]).mean())) > 1e-2
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({**settings, "task_type": "SEQ_CLS"})
    )
    with pytest.raises(ModelError, match="is the adapter of a classifier"):
        load_sequence_to_sequence(str(tmp_path / "adapter"), base=str(folder))


def test_what_cannot_be_answered_is_refused(model, tmp_path):
    inputs = asked(model)
    with pytest.raises(ModelError, match="no target came"):
        model(inputs["input_ids"], inputs["attention_mask"])
    with pytest.raises(ModelError, match="Targets must be padded on the right"):
        model.target_loss(**{**inputs, "target_mask": inputs["target_mask"].flip(1)})
    with pytest.raises(ModelError, match="is no encoder-decoder but a GPT-2"):
        load_sequence_to_sequence(str(tiny_folder("gpt2", tmp_path / "gpt2")))
    with pytest.raises(ModelError, match="is no trained T5 language model"):
        load_sequence_to_sequence(str(folder_of("t5", tmp_path / "classifier")))
