"""The callback in a plain Trainer script: true numbers, an undisturbed training, gradients before clipping."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from tiny import TEXTS, tiny_folder
from tunescope import TunescopeCallback, load_watched
from tunescope.errors import DataError, LensError, ModelError, RunError
from tunescope.watch import Schedule

EVERY_STEP = Schedule(every=1, most_time=1)


@pytest.fixture(params=["gpt2", "bert"])
def folder(request, tmp_path):
    return tiny_folder(request.param, tmp_path / "model")


def opened(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model


def script(folder, out, callbacks, **options):
    """Train as anyone would who knows nothing of tunescope."""
    torch.manual_seed(3)
    tokenizer, model = opened(folder)
    data = [
        {**tokenizer(text, truncation=True, max_length=16), "labels": index % model.config.num_labels}
        for index, text in enumerate(TEXTS * 2)
    ]
    arguments = TrainingArguments(
        str(out), max_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[], use_cpu=True,
        save_strategy="no", logging_steps=1, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=callbacks)
    trainer.train()
    return model


def test_watching_changes_no_bit_of_the_training_and_no_mode(folder, tmp_path):
    plain = script(folder, tmp_path / "a", [])
    watched = script(
        folder, tmp_path / "b", [TunescopeCallback(TEXTS, folder=tmp_path / "w", schedule=EVERY_STEP)]
    )
    for (name, one), (_, two) in zip(plain.named_parameters(), watched.named_parameters(), strict=True):
        assert torch.equal(one, two), name
    assert watched.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watched.modules())


def test_step_0_shows_no_change_and_later_steps_show_what_compare_would(folder, tmp_path):
    model = script(
        folder, tmp_path / "a", [TunescopeCallback(TEXTS, folder=tmp_path / "w", schedule=EVERY_STEP)]
    )
    found = load_watched(tmp_path / "w")
    assert found.table["step"].unique().sort().to_list() == [0, 1, 2, 3, 4]
    size = found.table.filter((pl.col("metric") == "relative_frobenius") & (pl.col("site") == "block"))
    assert set(size.filter(pl.col("step") == 0)["value"]) == {0.0}
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    for layer, block in enumerate(_blocks(model)):
        pairs = [
            (one.detach(), two.detach())
            for one, two in zip(block.parameters(), _blocks(base)[layer].parameters(), strict=True)
            if one.ndim == 2
        ]
        moved = sum(float((one - two).double().square().sum()) for one, two in pairs)
        whole = sum(float(two.double().square().sum()) for _, two in pairs)
        last = size.filter((pl.col("step") == 4) & (pl.col("layer") == layer))["value"]
        assert last.item() == pytest.approx((moved / whole) ** 0.5, rel=1e-5)
    apart = found.table.filter((pl.col("metric") == "jensen_shannon") & (pl.col("step") == 4))
    assert apart["value"].min() > 0
    assert [record["step"] for record in found.log if "loss" in record] == [1, 2, 3, 4]
    assert found.about["share_looking"] > 0


def _blocks(model):
    trunk = model.base_model
    return trunk.h if hasattr(trunk, "h") else trunk.encoder.layer


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradient_norms_are_those_of_the_whole_batch_before_clipping(folder, tmp_path, accumulation):
    clipped = 1e-3
    script(
        folder, tmp_path / "a", [TunescopeCallback(TEXTS, folder=tmp_path / "w", schedule=EVERY_STEP)],
        max_grad_norm=clipped, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    found = load_watched(tmp_path / "w")
    norms = found.table.filter((pl.col("metric") == "gradient_norm") & (pl.col("step") == 1))
    total = norms.filter(pl.col("site") == "all")["value"].item()
    logged = next(
        record["grad_norm"] for record in found.log if record["step"] == 1 and "grad_norm" in record
    )
    assert total > 100 * clipped
    assert total == pytest.approx(logged, rel=1e-4)  # the Trainer logs what it measured before clipping
    parts = norms.filter(pl.col("site") != "all")["value"].to_numpy()
    assert np.sqrt(np.square(parts).sum()) == pytest.approx(total, rel=1e-5)
    assert set(norms["layer"].drop_nulls()) == set(
        range(len(_blocks(AutoModelForSequenceClassification.from_pretrained(folder))))
    )


def test_gradient_norms_of_a_module_equal_a_backward_written_by_hand(folder, tmp_path):
    texts = TEXTS[:4]
    tokenizer, model = opened(folder)
    model.eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    from tunescope.watch.gradients import GradientNorms
    from tunescope.watch.live import live

    norms = GradientNorms(model)
    norms.open()
    torch.nn.functional.cross_entropy(model(**batch).logits, torch.tensor([0, 1, 0, 1])).backward()
    norms.close()
    found = {(r["layer"], r["site"]): r["value"] for r in norms.records(live(model, tokenizer))}
    module = {
        name: one for name, one in _blocks(model)[1].named_modules() if list(one.parameters(recurse=False))
    }
    for name, one in module.items():
        squares = sum(float(p.grad.square().sum()) for p in one.parameters(recurse=False))
        assert found[1, name] == pytest.approx(squares**0.5, rel=1e-5)


def test_a_language_model_can_be_watched_too(tmp_path):
    folder = tiny_folder("gpt2", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(
        AutoModelForSequenceClassification.from_pretrained(folder).config
    )
    data = [
        {"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"][:6] for text in TEXTS * 2)
    ]
    data = [one for one in data if len(one["input_ids"]) == 6]
    arguments = TrainingArguments(
        str(tmp_path / "o"), max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    callback = TunescopeCallback(TEXTS, folder=tmp_path / "w", tokenizer=tokenizer, schedule=EVERY_STEP)
    Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
    assert load_watched(tmp_path / "w").table["step"].max() == 2


def test_looking_stays_within_its_share_of_the_time():
    schedule = Schedule(most_time=0.1)
    assert schedule.affordable(spent=0.0, one_look=1.0, training=9.0, done=1.0)  # 1 of 10 seconds
    assert not schedule.affordable(spent=0.1, one_look=1.0, training=9.0, done=1.0)
    assert schedule.affordable(
        spent=0.0, one_look=1.0, training=0.18, done=0.01
    )  # 18 seconds to come: half of 2
    assert not schedule.affordable(spent=0.1, one_look=1.0, training=0.18, done=0.01)
    assert Schedule(most_time=1).affordable(spent=50.0, one_look=1.0, training=1.0, done=0.5)
    assert [step for step in range(101) if Schedule().due(step, 100)] == [
        0, 1, 2, *range(5, 101, 5),
    ]  # fmt: skip


def test_bad_input_is_refused_with_the_next_step(folder, tmp_path):
    with pytest.raises(DataError, match="needs texts"):
        TunescopeCallback([], folder=tmp_path / "w")
    with pytest.raises(DataError, match="one label a text: 8 texts, 1 labels"):
        TunescopeCallback(TEXTS, ["0"], folder=tmp_path / "w")
    with pytest.raises(DataError, match="2,001 texts are too many"):
        TunescopeCallback(["a"] * 2001)
    with pytest.raises(DataError, match="runs the model many times"):
        TunescopeCallback(TEXTS, lenses=["ablation"])
    with pytest.raises(LensError, match="There is no lens 'ckaa'"):
        script(folder, tmp_path / "a", [TunescopeCallback(TEXTS, folder=tmp_path / "w", lenses=["ckaa"])])
    with pytest.raises(DataError, match="The label 'sad' is none of the model's"):
        script(folder, tmp_path / "a", [TunescopeCallback(TEXTS, ["sad"] * 8, folder=tmp_path / "x")])


def test_a_second_training_in_the_same_folder_and_a_resumed_one_are_refused(folder, tmp_path):
    script(folder, tmp_path / "a", [TunescopeCallback(TEXTS, folder=tmp_path / "w", schedule=EVERY_STEP)])
    with pytest.raises(RunError, match="already holds step 4, and step 0 came after it"):
        script(folder, tmp_path / "b", [TunescopeCallback(TEXTS, folder=tmp_path / "w")])
    callback = TunescopeCallback(TEXTS, folder=tmp_path / "v")
    state = type("State", (), {"global_step": 7, "is_world_process_zero": True, "max_steps": 9})()
    given = {"model": AutoModelForSequenceClassification.from_pretrained(folder)}
    given["processing_class"] = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ModelError, match="goes on from step 7"):
        callback.on_train_begin(None, state, None, **given)
