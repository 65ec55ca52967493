"""Language models in the house's shape: transformers' own logits and losses, adapters, and what is refused."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from tiny import DECODERS, FAMILIES, TEXTS, encode, families, tiny_folder
from tunescope.capture import verify
from tunescope.data.tokens import Tokens
from tunescope.errors import ModelError
from tunescope.models.language import is_language_model, load_language_model
from tunescope.models.questions import NOTHING, Answers, questions


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("language")
    return {kind: str(tiny_folder(kind, base / kind, language=True)) for kind in FAMILIES}


def own_model(folder, kind):
    return (AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM).from_pretrained(folder).eval()


def tokens_of(model, texts):
    rows = [np.asarray(model.tokenizer(text)["input_ids"], dtype=np.int32) for text in texts]
    lengths = np.array([len(row) for row in rows])
    return Tokens([f"r{i}" for i in range(len(rows))], rows, None, np.full(len(rows), -1), lengths, 0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_and_loss_per_row_are_those_of_transformers(kind, folders):
    model, theirs = load_language_model(folders[kind]), own_model(folders[kind], kind)
    assert verify(model) is model
    asked = questions(model, tokens_of(model, TEXTS), seed=0)
    for row, targets in enumerate(asked.targets):
        inputs = torch.from_numpy(asked.tokens.input_ids[row].astype(np.int64))[None]
        labels = torch.from_numpy(targets)
        if kind in DECODERS:  # their causal loss shifts by itself
            labels = torch.cat(
                [torch.tensor([-100]), torch.from_numpy(asked.rows.input_ids[row][1:].astype(np.int64))]
            )
        labels = torch.where(labels < 0, -100, labels)[None]
        with torch.no_grad():
            expected = theirs(input_ids=inputs, labels=labels)
            hidden = model.hidden(inputs, torch.ones_like(inputs))
            stream = _stream(model, inputs)
        torch.testing.assert_close(model.head(hidden), expected.logits, atol=1e-5, rtol=1e-5)
        answers = Answers(model, torch.from_numpy(targets)[None], stream)
        assert float(answers.clean[0, 0]) == pytest.approx(-float(expected.loss), abs=1e-5)
        assert float(expected.loss) > 0.1
    padded = encode(model, TEXTS, side="left", extra=3)
    assert torch.isfinite(model(**padded)).all()


def _stream(model, inputs):
    from tunescope.capture import Site, read

    site = Site("resid_post", model.n_layers - 1)
    return read(model, [site], {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)})[site]


def test_what_is_asked_of_causal_and_masked_models(folders):
    causal, masked = load_language_model(folders["llama"]), load_language_model(folders["bert"])
    tokens = tokens_of(causal, ["rain", *TEXTS])
    short = tokens.take(np.arange(len(tokens)))
    short.input_ids[0] = short.input_ids[0][:1]
    found = questions(causal, short, 0)
    assert found.left_out == sum(len(ids) < 2 for ids in short.input_ids) > 0
    assert len(found) == len(short) - found.left_out
    assert found.targets[0].tolist() == [*found.rows.input_ids[0][1:].tolist(), NOTHING]
    hidden = questions(masked, tokens_of(masked, TEXTS), 0)
    again = questions(masked, tokens_of(masked, TEXTS), 0)
    special = set(masked.tokenizer.all_special_ids)
    for ids, shown, targets, other in zip(
        hidden.rows.input_ids, hidden.tokens.input_ids, hidden.targets, again.targets, strict=True
    ):
        places = targets != NOTHING
        assert targets.tolist() == other.tolist()
        assert places.sum() == max(1, round(0.15 * sum(int(one) not in special for one in ids)))
        assert (shown[places] == masked.tokenizer.mask_token_id).all()
        assert (targets[places] == ids[places]).all()
        assert (shown[~places] == ids[~places]).all()
    assert any(
        (a != b).any()
        for a, b in zip(hidden.targets, questions(masked, tokens_of(masked, TEXTS), 1).targets, strict=True)
    )


@pytest.mark.parametrize("kind", families("gpt_neox", "qwen3"))
def test_an_adapter_of_a_language_model_is_merged(kind, folders, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    plain = own_model(folders[kind], kind)
    table = load_language_model(folders[kind]).family
    target = sorted({path.rpartition(".")[2] for path in (table.query, table.value)})
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for an attribute by its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        tuned = get_peft_model(plain, LoraConfig(r=2, target_modules=target, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    assert is_language_model(str(tmp_path / "adapter"))
    model = load_language_model(str(tmp_path / "adapter"), base=folders[kind])
    inputs = encode(model, TEXTS[:1])
    with torch.no_grad():
        expected = tuned(**inputs).logits
        found = model.head(model.hidden(**inputs))
        before = own_model(folders[kind], kind)(**inputs).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({**settings, "task_type": "SEQ_CLS"})
    )
    with pytest.raises(ModelError, match="is the adapter of a classifier"):
        load_language_model(str(tmp_path / "adapter"), base=folders[kind])


def test_what_is_no_language_model_is_refused(folders, tmp_path):
    classifier = tiny_folder("llama", tmp_path / "classifier")
    assert not is_language_model(str(classifier))
    assert is_language_model(folders["bert"])
    with pytest.raises(
        ModelError, match=r"is a classifier .LlamaForSequenceClassification., not a language model"
    ):
        load_language_model(str(classifier))
    trunk = tmp_path / "trunk"
    AutoModel.from_pretrained(folders["qwen3"]).save_pretrained(trunk)
    own_tokenizer = load_language_model(folders["qwen3"])
    own_tokenizer.tokenizer.save_pretrained(trunk)
    with pytest.raises(
        ModelError, match=r"has no trained causal language-model head: its weights lack lm_head.weight"
    ):
        load_language_model(str(trunk))
    with pytest.raises(ModelError, match="numbers 64 positions"):
        load_language_model(folders["llama"], max_length=65)
