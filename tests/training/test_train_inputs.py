"""Training without padding and from stored states: the same training, faster."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_train import Listening, options, stopping_at
from training_helpers import equal, make_tokens, weights

from tunescope.errors import ConfigError, Interrupted, RunError
from tunescope.models.store import ActivationStore
from tunescope.training import train
from tunescope.training.rows import PackedRows, TokenRows, token_counts
from tunescope.tuning import METHODS


def last_one(fresh, **more):
    """A classifier whose last block, final norm and head are trained, with dropout as it comes."""
    classifier = fresh(**more)
    method = METHODS["last_k"]
    method.prepare(classifier, method.options(k=1))
    return classifier


def still(classifier):
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return classifier


def settings(padding="none", store=None, **more):
    from dataclasses import replace

    return replace(options(padding=padding, **more), store=store)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_from_the_store_gives_the_same_bits(fresh, tmp_path, accumulate):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    more = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": 4}
    plain, stored = last_one(fresh), last_one(fresh)
    assert any(m.p > 0 for m in plain.trunk.h[1].modules() if isinstance(m, torch.nn.Dropout))
    before = weights(plain)
    first = train(plain, tokens, validation, tmp_path / "plain", settings(**more))
    second = train(
        stored, tokens, validation, tmp_path / "stored", settings(store=tmp_path / "store", **more)
    )
    assert "store" not in first.choices
    assert second.choices["store"].startswith("states before block 1, from ")
    assert equal(weights(plain), weights(stored))
    assert losses(tmp_path / "plain") == losses(tmp_path / "stored")
    changed = {name for name, value in weights(plain).items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".h.1." in name or "ln_f" in name or "score" in name for name in changed)
    assert first.real_tokens == second.real_tokens == 2 * int(tokens.kept.sum())
    assert first.padding_share == second.padding_share == 0.0
    entries = ActivationStore(tmp_path / "store").entries()
    assert sorted(entry.rows for entry in entries) == sorted([len(tokens), len(validation)])


def test_padded_and_stored_losses_agree_step_by_step(fresh, tmp_path):
    """Batches of all rows, so that the two orders of batches do not differ."""
    tokens = make_tokens()
    more = {
        "per_device_train_batch_size": 48, "num_train_epochs": 6, "logging_steps": 1,
        "eval_strategy": "no", "save_strategy": "no",
    }  # fmt: skip
    padded, stored = still(last_one(fresh)), still(last_one(fresh))
    log = train(padded, tokens, None, tmp_path / "padded", settings("bucket", **more))
    train(stored, tokens, None, tmp_path / "stored", settings(store=tmp_path / "store", **more))
    assert log.choices["padding"] == "bucket"
    assert 0.1 < log.padding_share < 0.8
    one, other = losses(tmp_path / "padded"), losses(tmp_path / "stored")
    assert len(one) == len(other) == 6
    assert one[-1][1] < 0.99 * one[0][1]
    assert max(abs(a[1] - b[1]) for a, b in zip(one, other, strict=True)) < 1e-5


def test_full_tuning_without_padding_takes_the_steps_of_padded_training(fresh, tmp_path):
    tokens = make_tokens(n=24)
    more = {
        "per_device_train_batch_size": 24, "num_train_epochs": 4, "logging_steps": 1, "optim": "sgd",
        "learning_rate": 0.05, "eval_strategy": "no", "save_strategy": "no",
    }  # fmt: skip
    models = {padding: still(fresh()) for padding in ("none", "bucket")}
    before = weights(models["none"])
    for padding, model in models.items():
        train(model, tokens, None, tmp_path / padding, settings(padding, **more))
    none, bucket = weights(models["none"]), weights(models["bucket"])
    for name, value in none.items():
        torch.testing.assert_close(value, bucket[name], atol=1e-5, rtol=1e-4, msg=name)
    assert max(float((none[name] - before[name]).abs().max()) for name in none) > 1e-3


@pytest.mark.parametrize("step", [5, 6, 8])
def test_stopped_and_continued_without_padding_and_from_the_store(fresh, tmp_path, monkeypatch, step):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    straight, store = last_one(fresh), tmp_path / "store"
    train(straight, tokens, validation, tmp_path / "straight", settings())
    restore = stopping_at(monkeypatch, step)
    with pytest.raises(Interrupted):
        train(last_one(fresh), tokens, validation, tmp_path / "stopped", settings(store=store))
    restore()
    ActivationStore(store).evict()  # it is filled again
    continued = last_one(fresh)
    log = train(continued, tokens, validation, tmp_path / "stopped", settings(store=store))
    assert log.continued_from == step
    assert equal(weights(straight), weights(continued))


def test_later_seeds_and_deeper_arms_fill_nothing(fresh, tmp_path, monkeypatch):
    tokens, store = make_tokens(), tmp_path / "store"
    train(last_one(fresh), tokens, None, tmp_path / "a", settings(store=store))
    monkeypatch.setattr("tunescope.models.store.states_before", lambda *_, **__: pytest.fail("filled again"))
    log = train(last_one(fresh, seed=5), tokens, None, tmp_path / "b", settings(store=store, seed=5,
                                                                             learning_rate=1e-4))  # fmt: skip
    assert "store" in log.choices


def test_features_of_head_only_training_are_shared(fresh, tmp_path, monkeypatch):
    tokens, store = make_tokens(), tmp_path / "store"
    models = []
    for name in ("a", "b"):
        models.append(fresh())
        method = METHODS["head_only"]
        method.prepare(models[-1], method.options())
        log = train(models[-1], tokens, None, tmp_path / name, settings(store=store, frozen_trunk=True))
        assert log.choices["store"].startswith("features, from ")
        monkeypatch.setattr("tunescope.models.probe.model_batches", lambda *_: pytest.fail("computed again"))
    assert equal(weights(models[0]), weights(models[1]))


def test_recomputed_activations_see_their_own_rows_alone(fresh, tmp_path):
    tokens = make_tokens(n=16)
    more = {
        "num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.05, "eval_strategy": "no",
        "per_device_train_batch_size": 16,
    }  # fmt: skip
    plain, again = still(fresh()), still(fresh())
    train(plain, tokens, None, tmp_path / "plain", settings(**more))
    train(again, tokens, None, tmp_path / "again", settings(gradient_checkpointing=True, **more))
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(again)[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_batches_without_padding_are_in_random_order(fresh):
    tokens = make_tokens(n=200)
    packed, padded = PackedRows(tokens), TokenRows(tokens)
    assert len(set(packed.lengths)) == 1 < len(set(padded.lengths))
    batch = packed.collate([3, 1, 2])
    assert sorted(batch["positions"].tolist()) == [1, 2, 3]
    assert batch["labels"].tolist() == tokens.labels[batch["positions"].numpy()].tolist()
    real = int(tokens.kept[[1, 2, 3]].sum())
    assert token_counts(batch) == (real, real)
    assert token_counts(padded.collate([3, 1, 2])) == (real, 3 * int(tokens.kept[[1, 2, 3]].max()))


def test_what_cannot_be_had_is_said_or_refused(fresh, tmp_path, monkeypatch):
    tokens, store = make_tokens(n=16), tmp_path / "store"
    needed = int(tokens.kept.sum()) * 32 * 4
    small = {"activation_store_bytes": needed - 1, "num_train_epochs": 1}
    with pytest.raises(RunError, match=rf"needs {needed:,} more bytes"):
        train(last_one(fresh), tokens, None, tmp_path / "a",
              settings(store=store, activation_store="always", **small))  # fmt: skip
    said = Listening()
    log = train(last_one(fresh), tokens, None, tmp_path / "b", settings(store=store, **small), said)
    assert any(f"without the activation store: The activation store needs {needed:,}" in line
               for line in said.lines)  # fmt: skip
    assert "needs" in log.choices["store_reason"]
    with pytest.raises(ConfigError, match="always cannot be met: batches are padded"):
        train(last_one(fresh), tokens, None, tmp_path / "c",
              settings("bucket", store=store, activation_store="always"))  # fmt: skip
    log = train(
        last_one(fresh), tokens, None, tmp_path / "d", settings(store=store, activation_store="never")
    )
    assert not store.exists()
    monkeypatch.setattr("tunescope.models.packed.PROVEN", ())
    with pytest.raises(ConfigError, match="padding: none cannot be used: the family GPT-2 has not been"):
        train(fresh(), tokens, None, tmp_path / "e", settings("none"))
    log = train(fresh(), tokens, None, tmp_path / "f", settings("auto", num_train_epochs=1))
    assert log.choices["padding"] == "bucket"
    assert "has not been proven" in log.choices["padding_reason"]


def test_stored_states_serve_the_evaluation_after_training(fresh, tmp_path):
    from tunescope.evaluation.predict import logits_of

    tokens, validation, store = make_tokens(), make_tokens(seed=1), tmp_path / "store"
    classifier = last_one(fresh)
    train(classifier, tokens, validation, tmp_path / "run", settings(store=store))
    states = ActivationStore(store).find(classifier, validation, 1)
    assert states is not None
    assert np.array_equal(logits_of(classifier, validation, states=states), logits_of(classifier, validation))


def test_lora_of_the_last_block_trains_from_the_store_with_the_same_bits(fresh, tmp_path):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    method = METHODS["lora"]
    models = []
    for name, store in (("plain", None), ("stored", tmp_path / "store")):
        models.append(fresh())
        peft = {"r": 2, "lora_alpha": 4, "target_modules": ["c_attn"], "layers_to_transform": [1]}
        method.prepare(models[-1], method.options(peft=peft))
        log = train(models[-1], tokens, validation, tmp_path / name, settings(store=store))
        assert ("store" in log.choices) == (store is not None)
    assert equal(weights(models[0]), weights(models[1]))
    assert losses(tmp_path / "plain") == losses(tmp_path / "stored")
