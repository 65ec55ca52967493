"""T5 and BART are tuned by full, head_only and LoRA; what is saved is read by plain transformers and peft."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from training_helpers import make_tokens
from transformers import AutoModelForSequenceClassification

from tiny import NAMES, TEXTS, encode
from tiny_encoder_decoder import folder_of
from tunescope.capture import verify
from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models import features, load, load_trunk
from tunescope.training import TrainOptions, train
from tunescope.tuning import METHODS

END = 2
FIELDS = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 3e-3}


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def folder(request, tmp_path_factory):
    return folder_of(request.param, tmp_path_factory.mktemp("base"), task="language_model")


def tokens(n=40, seed=0):
    made = make_tokens(n=n, seed=seed, vocabulary=40)
    rows = [np.append(row[row != END], END).astype(np.int32) for row in made.input_ids]
    return replace(made, input_ids=rows, lengths=np.array([len(row) for row in rows]), pad_id=1)


def prepared(folder, method, options=None, seed=0):
    model = load_trunk(str(folder), labels=LabelMap(NAMES), seed=seed)
    known = METHODS[method]
    chosen = known.options.model_validate(options or {})
    known.prepare(model, chosen)
    return model, known


def logits(model, texts=TEXTS):
    with torch.no_grad():
        return model(**encode(model, texts))


@pytest.mark.parametrize("method", ["full", "head_only", "lora"])
def test_a_training_moves_what_the_method_says_and_saves_what_it_trained(folder, method, tmp_path):
    model, known = prepared(folder, method)
    before = {name: value.clone() for name, value in model.trunk.state_dict().items() if "lora" not in name}
    rows = tokens()
    options = TrainOptions(training=FIELDS, frozen_trunk=known.frozen_trunk)
    train(model, rows, tokens(n=16, seed=1), tmp_path, options)
    after = model.trunk.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    if method == "full":
        assert any(name.startswith("encoder") for name in moved)
        assert any("decoder" in name and ("EncDec" in name or "encoder_attn" in name) for name in moved)
    else:
        assert not moved
    again = load(str(tmp_path / "model"))
    torch.testing.assert_close(logits(again), logits(model), atol=1e-5, rtol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    row = torch.from_numpy(rows.input_ids[0].astype(np.int64))[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(row).logits, model(row, torch.ones_like(row)), atol=1e-5, rtol=1e-5)
    verify(again)


def test_full_tuning_learns(folder, tmp_path):
    model, _ = prepared(folder, "full")
    options = TrainOptions(
        training={**FIELDS, "num_train_epochs": 15, "learning_rate": 1e-2, "logging_steps": 5}
    )
    log = train(model, tokens(), None, tmp_path, options)
    losses = [event["loss"] for event in log.events if "loss" in event]
    assert losses[-1] < 0.7 * losses[0]


def test_head_only_trains_on_features_that_are_exact(folder):
    model, _ = prepared(folder, "head_only")
    rows = tokens(n=12)
    found = features(model, rows)
    model.train()  # a frozen trunk has no dropout
    for index, ids in enumerate(rows.input_ids):
        row = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            pooled = model.pooled(row, torch.ones_like(row))[0]
        torch.testing.assert_close(torch.from_numpy(found[index]), pooled, atol=1e-5, rtol=1e-5)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {
        f"model.classification_head.{part}.{kind}"
        for part in ("dense", "out_proj")
        for kind in ("weight", "bias")
    }


def test_lora_adapts_queries_and_values_of_all_three_attentions(folder):
    model, _ = prepared(folder, "lora", {"peft": {"r": 2}})
    adapted = {name for name, one in model.trunk.named_modules() if hasattr(one, "base_layer")}
    encoder, decoder = model.stacks
    assert len(adapted) == 2 * (encoder.n_layers + 2 * decoder.n_layers)
    cross = model.family.cross_attention.format(layer=1)
    assert sum(name.startswith(cross) for name in adapted) == 2
    assert {name.rpartition(".")[2] for name in adapted} <= {"q", "v", "q_proj", "v_proj"}
    some, _ = prepared(folder, "lora", {"peft": {"target_modules": "all-linear", "layers_to_transform": [2]}})
    names = {name for name, one in some.trunk.named_modules() if hasattr(one, "base_layer")}
    assert names
    assert all(name.startswith(encoder.blocks()[2]) for name in names)  # the decoder has no third block
    with pytest.raises(ModelError, match="the model has 3 blocks"):
        prepared(folder, "lora", {"peft": {"layers_to_transform": [3]}})
    with pytest.raises(ModelError, match="target_modules: 'c_attn' is no module of this"):
        prepared(folder, "lora", {"peft": {"target_modules": ["c_attn"]}})


def test_a_lora_adapter_is_read_back_by_tunescope_and_by_peft(folder, tmp_path):
    model, known = prepared(folder, "lora", {"peft": {"r": 2}})
    start = logits(model)
    rows = tokens()
    train(model, rows, None, tmp_path, TrainOptions(training=FIELDS, frozen_trunk=known.frozen_trunk))
    tuned = logits(model)
    assert float((tuned - start).abs().max()) > 1e-3
    verify(model)  # with the adapter in place
    merged = load(str(tmp_path / "model" / "adapter"))
    torch.testing.assert_close(logits(merged), tuned, atol=1e-5, rtol=1e-5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(NAMES))
        plain = peft.PeftModel.from_pretrained(base, str(tmp_path / "model" / "adapter")).eval()
    row = torch.from_numpy(rows.input_ids[0].astype(np.int64))[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(row).logits, model(row, torch.ones_like(row)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("method", "options"), [("last_k", {"k": 1}), ("ia3", {}), ("bitfit", {})])
def test_methods_that_are_not_there_yet_say_so(folder, method, options):
    with pytest.raises(ModelError, match=f"{method} is not yet available for encoder-decoders such as"):
        prepared(folder, method, options)
