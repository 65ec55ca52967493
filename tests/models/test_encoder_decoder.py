"""T5 and BART as classifiers: transformers' own logits, padding and batch mates, folders, tuning."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tiny import NAMES, TEXTS, encode
from tiny_encoder_decoder import KINDS, folder_of, make, tokenizer_of
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import load, load_trunk
from tunescope.models.encoder_decoder import decoder_inputs


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    return folder_of(request.param, tmp_path / "model", names=list(NAMES))


def logits(model, *arguments, **options):
    with torch.no_grad():
        return model(**encode(model, *arguments, **options))


def theirs(folder, texts):
    """Return transformers' logits, text by text."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def test_logits_are_those_of_transformers_own_class(folder):
    model = load(str(folder))
    expected = theirs(folder, TEXTS)
    torch.testing.assert_close(logits(model, TEXTS), expected, atol=1e-5, rtol=1e-5)
    assert float(expected.std(0).min()) > 1e-2  # texts are told apart at all


def test_logits_do_not_depend_on_padding_or_batch_mates(folder):
    model = load(str(folder))
    alone = torch.cat([logits(model, [text]) for text in TEXTS])
    for side in ("right", "left"):
        for extra in (0, 5):
            together = logits(model, TEXTS, side=side, extra=extra)
            torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean", "first"])
def test_saved_folders_give_the_same_logits(folder, tmp_path, pooling):
    model = load(str(folder), pooling=pooling)
    model.save(tmp_path / "saved")
    again = load(str(tmp_path / "saved"))
    assert torch.equal(logits(again, TEXTS), logits(model, TEXTS))
    assert again.pooling == pooling
    if pooling == "last":
        torch.testing.assert_close(
            theirs(tmp_path / "saved", TEXTS), logits(model, TEXTS), atol=1e-5, rtol=1e-5
        )
    else:
        with pytest.raises(ValueError, match="tunescope"):
            AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")


def test_mean_pooling_reads_the_decoder_at_real_tokens_alone(folder):
    model = load(str(folder), pooling="mean")
    inputs = encode(model, TEXTS, extra=3)
    with torch.no_grad():
        hidden = model.trunk(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
            decoder_input_ids=decoder_inputs(inputs["input_ids"], model.model.config),
        ).last_hidden_state  # fmt: skip
        rows = [row[mask.bool()].mean(0) for row, mask in zip(hidden, inputs["attention_mask"], strict=True)]
        torch.testing.assert_close(model.pooled(**inputs), torch.stack(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pretrained_language_model_gets_a_head_that_depends_on_the_seed_alone(kind, tmp_path):
    folder = folder_of(kind, tmp_path / "lm", task="language_model")
    labels = LabelMap(NAMES)
    torch.manual_seed(1)
    first = load_trunk(str(folder), labels=labels, seed=4)
    torch.manual_seed(2)
    second, other = (
        load_trunk(str(folder), labels=labels, seed=4),
        load_trunk(str(folder), labels=labels, seed=5),
    )
    for name, value in first.head.state_dict().items():
        assert torch.equal(value, second.head.state_dict()[name])
        assert "weight" not in name or not torch.equal(value, other.head.state_dict()[name])
    language_model, _ = make(kind, "language_model")
    for name, value in first.trunk.state_dict().items():
        own = language_model.base_model.state_dict()[name]
        assert torch.equal(value, own), name


def test_stacks_have_their_own_depth_and_heads(tmp_path):
    bart = load(str(folder_of("bart", tmp_path / "bart")))
    assert [(s.name, s.n_layers, s.n_heads, s.head_width) for s in bart.stacks] == [
        ("encoder", 3, 4, 8), ("decoder", 2, 8, 4)]  # fmt: skip
    t5 = load(str(folder_of("t5", tmp_path / "t5")))
    assert [(s.name, s.n_layers, s.n_heads, s.head_width) for s in t5.stacks] == [
        ("encoder", 3, 4, 12), ("decoder", 2, 4, 12)]  # fmt: skip
    assert (bart.n_layers, bart.n_heads, t5.head_width, t5.width) == (2, 8, 12, 32)


def test_a_tokenizer_without_the_end_token_is_refused(tmp_path):
    folder = folder_of("t5", tmp_path / "t5")
    tokenizer = tokenizer_of("t5")
    tokenizer.backend_tokenizer.post_processor = None
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="reads the decoder at the end token"):
        load(str(folder))


def test_a_missing_start_token_is_refused(folder):
    model = load(str(folder))
    model.model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="no decoder_start_token_id"):
        logits(model, TEXTS)


def test_blocks_are_frozen_all_or_none(folder):
    model = load(str(folder))
    with pytest.raises(ModelError, match="all blocks or none"):
        model.set_frozen_blocks(1)
    model.set_frozen_blocks(model.n_layers)
    model.train()
    with torch.no_grad():
        inputs = encode(model, TEXTS)
        assert torch.equal(model.pooled(**inputs), model.pooled(**inputs))  # no dropout in a frozen trunk
    model.set_frozen_blocks(0)
    model.train()
    assert not torch.equal(model.pooled(**inputs), model.pooled(**inputs))
