from __future__ import annotations

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_helpers import equal, make_tokens, weights
from transformers import AutoModelForSequenceClassification, TrainerCallback

from tunescope.errors import ConfigError, DataError, Interrupted, RunError
from tunescope.models import load
from tunescope.progress import Progress
from tunescope.training import TrainOptions, train
from tunescope.training import trainer as trainer_module
from tunescope.training.checkpoints import all_checkpoints, step_of
from tunescope.tuning import METHODS

FIELDS = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "logging_steps": 3}


def options(**more) -> TrainOptions:
    known = {
        name: more.pop(name)
        for name in ("seed", "frozen_trunk", "keep_checkpoints", "fingerprint")
        if name in more
    }
    return TrainOptions(training={**FIELDS, **more}, **known)


class Listening(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class At(TrainerCallback):
    """Does something at the end of a step, as if it came from outside."""

    def __init__(self, step: int, action) -> None:
        self.step, self.action = step, action

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.action()


def stopping_at(monkeypatch, step, action=None):
    """Make the next training do ``action`` (by default: receive Ctrl-C) during a step."""
    original = trainer_module.ClassifierTrainer.__init__

    def patched(self, job, callbacks):
        act = action or (lambda: os.kill(os.getpid(), signal.SIGINT))
        original(self, job, [*callbacks, At(step, act)])

    monkeypatch.setattr(trainer_module.ClassifierTrainer, "__init__", patched)
    return lambda: monkeypatch.setattr(trainer_module.ClassifierTrainer, "__init__", original)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trains_saves_and_logs(fresh, tmp_path):
    classifier, tokens = fresh(), make_tokens()
    log = train(classifier, tokens, make_tokens(seed=1), tmp_path, options(num_train_epochs=12))
    assert log.steps == 12 * 6
    losses = [event["loss"] for event in log.events if "loss" in event]
    assert losses[-1] < 0.7 * losses[0]
    evaluations = [event for event in log.events if "eval_loss" in event]
    assert [event["epoch"] for event in evaluations] == list(range(1, 13))
    assert read_log(tmp_path) == log.events
    assert not (tmp_path / "checkpoints").exists()
    assert log.parameters == log.trainable_parameters == sum(p.numel() for p in classifier.model.parameters())


def test_saved_model_gives_the_same_logits_without_tunescope(fresh, tmp_path):
    classifier, tokens = fresh(), make_tokens()
    train(classifier, tokens, None, tmp_path, options())
    assert not list((tmp_path / "model").glob("*.bin"))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    row = torch.from_numpy(tokens.input_ids[0].astype(np.int64))[None]
    with torch.inference_mode():
        ours = classifier(row, torch.ones_like(row))
        assert torch.allclose(plain(row).logits, ours, atol=1e-5)


def test_evaluation_loss_is_the_mean_cross_entropy_of_all_rows(fresh, tmp_path):
    """An independent value: rows one by one, where transformers repeats the mean of unequal batches."""
    classifier, validation = fresh(), make_tokens(n=21, seed=1)
    log = train(classifier, make_tokens(), validation, tmp_path, options(per_device_eval_batch_size=8))
    total, right = 0.0, 0
    with torch.inference_mode():
        for ids, label in zip(validation.input_ids, validation.labels, strict=True):
            row = torch.from_numpy(ids.astype(np.int64))[None]
            logits = classifier(row, torch.ones_like(row))
            total += functional.cross_entropy(logits, torch.tensor([label])).item()
            right += int(logits.argmax() == label)
    last = [event for event in log.events if "eval_loss" in event][-1]
    assert last["eval_loss"] == pytest.approx(total / 21, abs=1e-5)
    assert last["eval_accuracy"] == pytest.approx(right / 21)


def test_one_step_equals_a_step_by_hand(fresh, tmp_path):
    """The mean cross entropy of the batch, dropout off: the weights of a plain loop."""
    tokens = make_tokens(n=8)
    ours, theirs = fresh(), fresh()
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    train(
        ours, tokens, None, tmp_path, options(max_steps=1, max_grad_norm=0.0, optim="sgd", learning_rate=0.1)
    )
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1)
    loss = 0.0
    for ids, label in zip(tokens.input_ids, tokens.labels, strict=True):
        row = torch.from_numpy(ids.astype(np.int64))[None]
        loss = loss + functional.cross_entropy(theirs(row, torch.ones_like(row)), torch.tensor([label])) / 8
    loss.backward()
    optimiser.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5), name


def test_accumulated_batches_weigh_every_row_the_same(fresh, tmp_path):
    """8 rows as 8, and as 3 + 3 + 2: the mean over rows, not the mean of means."""
    tokens = make_tokens(n=8)
    done = []
    for name, size, accumulate in (("whole", 8, 1), ("parts", 3, 3)):
        classifier = fresh()
        for module in classifier.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        fields = options(
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulate,
            optim="sgd",
            max_grad_norm=0.0,
            learning_rate=0.1,
        )
        train(classifier, tokens, None, tmp_path / name, fields)
        done.append(classifier)
    for (name, first), second in zip(done[0].named_parameters(), done[1].parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-5), name


@pytest.mark.parametrize("step", [1, 5, 6, 8])  # 6 steps an epoch: inside, at the end of, and after the first
def test_ctrl_c_then_continue_is_bit_exact(fresh, tmp_path, monkeypatch, step):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    straight = fresh()
    assert any(module.p > 0 for module in straight.modules() if isinstance(module, torch.nn.Dropout))
    train(straight, tokens, validation, tmp_path / "straight", options())
    restore = stopping_at(monkeypatch, step)
    with pytest.raises(Interrupted, match=f"after step {step} of 12; a checkpoint was saved"):
        train(fresh(), tokens, validation, tmp_path / "stopped", options())
    restore()
    assert [step_of(path) for path in all_checkpoints(tmp_path / "stopped" / "checkpoints")] == [step]
    continued = fresh(seed=9)  # whatever it starts from, the checkpoint decides
    log = train(continued, tokens, validation, tmp_path / "stopped", options())
    assert log.continued_from == step
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "stopped") == read_log(tmp_path / "straight")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_killed_training_continues_from_its_last_checkpoint_bit_exactly(fresh, tmp_path, monkeypatch):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    straight = fresh()
    train(straight, tokens, validation, tmp_path / "straight", options())

    def die():
        raise SystemError("power cut")

    restore = stopping_at(monkeypatch, 9, die)
    with pytest.raises(SystemError, match="power cut"):
        train(fresh(), tokens, validation, tmp_path / "killed", options())
    restore()
    assert [event["step"] for event in read_log(tmp_path / "killed")] == [3, 6, 6]
    with (tmp_path / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "epoch": 1.2, "loss": 1')  # what a killed process may leave
    continued = fresh()
    assert train(continued, tokens, validation, tmp_path / "killed", options()).continued_from == 6
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "straight")


def test_accumulation_and_saving_by_steps_continue_bit_exactly(fresh, tmp_path, monkeypatch):
    more = {
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "num_train_epochs": 3,
    }
    tokens, validation = make_tokens(n=44), make_tokens(seed=1)
    straight = fresh()
    train(straight, tokens, validation, tmp_path / "straight", options(**more))

    def die():
        raise SystemError("power cut")

    restore = stopping_at(monkeypatch, 6, die)
    with pytest.raises(SystemError):
        train(fresh(), tokens, validation, tmp_path / "killed", options(**more))
    restore()
    continued = fresh()
    assert train(continued, tokens, validation, tmp_path / "killed", options(**more)).continued_from == 4
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "straight")


def test_no_checkpoint_lies_between_an_epochs_last_step_and_its_evaluation(fresh, tmp_path, monkeypatch):
    """Saving every second step falls on step 6, the end of an epoch; the power goes while it is evaluated."""
    fields = {"save_strategy": "steps", "save_steps": 2}
    tokens, validation = make_tokens(), make_tokens(seed=1)
    straight, continued = fresh(), fresh()
    train(straight, tokens, validation, tmp_path / "straight", options(**fields))

    def die(*_, **__):
        raise SystemError("power cut")

    monkeypatch.setattr(trainer_module.ClassifierTrainer, "prediction_step", die)
    with pytest.raises(SystemError):
        train(fresh(), tokens, validation, tmp_path / "killed", options(**fields))
    monkeypatch.undo()
    assert train(continued, tokens, validation, tmp_path / "killed", options(**fields)).continued_from == 4
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "straight")


def test_stop_after_the_last_step_of_max_steps_does_not_train_more(fresh, tmp_path, monkeypatch):
    """transformers alone would train one step too many here."""
    tokens = make_tokens()
    straight = fresh()
    train(straight, tokens, None, tmp_path / "straight", options(max_steps=4))
    monkeypatch.setattr(
        "tunescope.training.session._log", lambda *_: (_ for _ in ()).throw(SystemError("power cut"))
    )
    with pytest.raises(SystemError):
        train(
            fresh(),
            tokens,
            None,
            tmp_path / "killed",
            options(max_steps=4, save_strategy="steps", save_steps=4),
        )
    monkeypatch.undo()
    continued = fresh()
    log = train(continued, tokens, None, tmp_path / "killed", options(max_steps=4))
    assert (log.continued_from, log.steps) == (4, 4)
    assert equal(weights(straight), weights(continued))


def test_evaluating_more_often_does_not_change_the_weights(fresh, tmp_path):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    models = []
    for name, fields in (("seldom", {}), ("often", {"eval_strategy": "steps", "eval_steps": 1})):
        models.append(fresh())
        train(models[-1], tokens, validation, tmp_path / name, options(**fields))
    assert equal(weights(models[0]), weights(models[1]))


def test_seeds_change_the_training_and_are_recorded(fresh, tmp_path):
    first, second = fresh(), fresh()
    log = train(first, make_tokens(), None, tmp_path / "a", options(seed=0))
    other = train(second, make_tokens(), None, tmp_path / "b", options(seed=1))
    assert not equal(weights(first), weights(second))
    assert log.seeds.keys() == {"order", "dropout"}
    assert log.seeds != other.seeds


@pytest.mark.parametrize("damage", ["flip", "unsealed", "other settings"])
def test_checkpoint_that_cannot_be_used_is_named_and_left(fresh, tmp_path, monkeypatch, damage):
    tokens = make_tokens()
    straight = fresh()
    train(straight, tokens, None, tmp_path / "straight", options())
    restore = stopping_at(monkeypatch, 8)
    with pytest.raises(Interrupted):
        train(fresh(), tokens, None, tmp_path / "stopped", options(save_total_limit=2, fingerprint="a"))
    restore()
    newest = tmp_path / "stopped" / "checkpoints" / "checkpoint-8"
    if damage == "flip":
        data = bytearray((newest / "optimizer.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (newest / "optimizer.pt").write_bytes(bytes(data))
    elif damage == "unsealed":
        (newest / "complete.json").unlink()
    progress = Listening()
    continued = fresh()
    fingerprint = "b" if damage == "other settings" else "a"
    log = train(continued, tokens, None, tmp_path / "stopped", options(fingerprint=fingerprint), progress)
    said = {
        "flip": "optimizer.pt is damaged",
        "unsealed": "not written to its end",
        "other settings": "other settings",
    }
    assert any("checkpoint-8" in line and said[damage] in line for line in progress.lines)
    assert log.continued_from == (None if damage == "other settings" else 6)
    assert equal(weights(straight), weights(continued))


def test_checkpoints_are_model_folders(fresh, tmp_path):
    classifier = fresh()
    train(classifier, make_tokens(), None, tmp_path, options(keep_checkpoints=True))
    (checkpoint,) = all_checkpoints(tmp_path / "checkpoints")
    assert step_of(checkpoint) == 12
    assert not list(checkpoint.glob("*.bin"))
    assert equal(weights(load(str(checkpoint))), weights(classifier))
    assert AutoModelForSequenceClassification.from_pretrained(checkpoint).config.num_labels == 3


def test_best_model_is_kept_when_asked(fresh, tmp_path):
    classifier, validation = fresh(), make_tokens(n=30, seed=1)
    fields = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "num_train_epochs": 6}
    log = train(classifier, make_tokens(n=16), validation, tmp_path, options(learning_rate=5e-3, **fields))
    evaluations = {event["step"]: event["eval_loss"] for event in log.events if "eval_loss" in event}
    best = min(evaluations, key=evaluations.get)
    assert log.best_step == best < max(evaluations), "the test needs a best step that is not the last"
    total = 0.0
    with torch.inference_mode():
        for ids, label in zip(validation.input_ids, validation.labels, strict=True):
            row = torch.from_numpy(ids.astype(np.int64))[None]
            total += functional.cross_entropy(
                classifier(row, torch.ones_like(row)), torch.tensor([label])
            ).item()
    assert evaluations[best] == pytest.approx(total / 30, abs=1e-5)


def test_bfloat16_reaches_our_forward_and_leaves_no_trace(fresh, tmp_path):
    single, half = fresh(), fresh()
    seen = []
    half.trunk.h[0].mlp.c_fc.register_forward_hook(lambda *a: seen.append((a[0].training, a[2].dtype)))
    train(single, make_tokens(), None, tmp_path / "fp32", options())
    train(half, make_tokens(), make_tokens(seed=1), tmp_path / "bf16", options(bf16=True))
    assert {dtype for _, dtype in seen} == {torch.bfloat16}
    assert "forward" not in vars(half)
    assert not half.training
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    row = torch.arange(5, 12)[None]
    with torch.inference_mode():
        assert half.trunk(row).last_hidden_state.dtype == torch.float32
        assert half(row, torch.ones_like(row)).dtype == torch.float32
    assert not equal(weights(single), weights(half))
    for name, value in weights(single).items():
        assert torch.allclose(value, weights(half)[name], atol=2e-2), name


def test_head_only_leaves_the_trunk_and_equals_training_without_the_shortcut(fresh, tmp_path):
    tokens, validation = make_tokens(), make_tokens(seed=1)
    quick, slow = fresh(), fresh()
    before = {name: value.clone() for name, value in quick.trunk.state_dict().items()}
    method = METHODS["head_only"]
    for classifier in (quick, slow):
        method.prepare(classifier, method.options())
        for (
            module
        ) in classifier.trunk.modules():  # the slow way runs the trunk in training mode: no dropout then
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    log = train(quick, tokens, validation, tmp_path / "quick", options(frozen_trunk=True))
    full = train(slow, tokens, validation, tmp_path / "slow", options())
    assert equal(before, dict(quick.trunk.state_dict()))
    assert log.trainable_parameters == 3 * 32 < log.parameters
    assert torch.allclose(quick.model.score.weight, slow.model.score.weight, atol=1e-6)
    assert not torch.equal(quick.model.score.weight, fresh().model.score.weight)
    for first, second in zip(log.events, full.events, strict=True):
        assert first.get("loss", 0) == pytest.approx(second.get("loss", 0), abs=1e-5)
        assert first.get("eval_loss", 0) == pytest.approx(second.get("eval_loss", 0), abs=1e-5)


def test_head_only_continues_bit_exactly(fresh, bert_folder, tmp_path, monkeypatch):
    """BERT's own head has dropout of its own, which must be drawn the same."""
    tokens = make_tokens(with_types=True, vocabulary=40)

    def prepared():
        classifier = fresh(bert_folder)
        METHODS["head_only"].prepare(classifier, METHODS["head_only"].options())
        return classifier

    straight, continued = prepared(), prepared()
    train(straight, tokens, None, tmp_path / "straight", options(frozen_trunk=True))
    restore = stopping_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(prepared(), tokens, None, tmp_path / "stopped", options(frozen_trunk=True))
    restore()
    train(continued, tokens, None, tmp_path / "stopped", options(frozen_trunk=True))
    assert equal(weights(straight), weights(continued))


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_bert_trains_and_continues(fresh, bert_folder, tmp_path, monkeypatch, pooling):
    tokens = make_tokens(with_types=True, vocabulary=40)
    straight = fresh(bert_folder, pooling)
    train(straight, tokens, None, tmp_path / "straight", options())
    restore = stopping_at(monkeypatch, 7)
    with pytest.raises(Interrupted):
        train(fresh(bert_folder, pooling), tokens, None, tmp_path / "stopped", options())
    restore()
    continued = fresh(bert_folder, pooling)
    train(continued, tokens, None, tmp_path / "stopped", options())
    assert equal(weights(straight), weights(continued))
    assert load(str(tmp_path / "stopped" / "model")).pooling == pooling


def test_recomputing_activations_gives_the_same_weights(fresh, tmp_path):
    plain, thrifty = fresh(), fresh()
    train(plain, make_tokens(), None, tmp_path / "plain", options())
    train(thrifty, make_tokens(), None, tmp_path / "thrifty", options(gradient_checkpointing=True))
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(thrifty)[name], atol=1e-5), name
    assert not any(getattr(module, "gradient_checkpointing", False) for module in thrifty.modules())


def test_label_smoothing_changes_training_but_not_what_is_measured(fresh, tmp_path):
    plain, smooth = fresh(), fresh()
    fields = {"eval_on_start": True}
    first = train(plain, make_tokens(), make_tokens(seed=1), tmp_path / "plain", options(**fields))
    second = train(
        smooth,
        make_tokens(),
        make_tokens(seed=1),
        tmp_path / "smooth",
        options(label_smoothing_factor=0.2, **fields),
    )
    assert first.events[0]["eval_loss"] == second.events[0]["eval_loss"]
    assert not equal(weights(plain), weights(smooth))
    assert math.isfinite(second.events[-1]["eval_loss"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_seed": 3}, r"training.data_seed cannot be set here: seeds:"),
        ({"lerning_rate": 3}, r"training.lerning_rate is not a field of transformers.TrainingArguments"),
        (
            {"auto_find_batch_size": True},
            r"auto_find_batch_size cannot be set here: the batches of a continued run",
        ),
        ({"load_best_model_at_end": True}, r"load_best_model_at_end needs validation rows"),
        ({"lr_scheduler_type": "steep"}, r"training: steep is not a valid SchedulerType"),
    ],
)
def test_fields_that_cannot_be_used_are_refused(fresh, tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        train(fresh(), make_tokens(), None, tmp_path, options(**fields))


def test_rows_without_labels_are_refused(fresh, tmp_path):
    tokens = make_tokens()
    tokens.labels[3] = -1
    with pytest.raises(DataError, match="1 of 48 train rows have no label"):
        train(fresh(), tokens, None, tmp_path, options())
    with pytest.raises(DataError, match="There are no train rows"):
        train(fresh(), tokens.take(np.array([], dtype=np.int64)), None, tmp_path, options())


def test_full_disk_is_said_and_the_earlier_checkpoint_stays(fresh, tmp_path, monkeypatch):
    tokens = make_tokens()
    original = torch.save

    def full(content, path, *args, **kwargs):
        if "checkpoint-12" in str(path):
            raise RuntimeError(
                "[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/3"
            )
        return original(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"The disk is full: .*checkpoint-12 could not be written"):
        train(fresh(), tokens, None, tmp_path, options())
    monkeypatch.undo()
    straight, continued = fresh(), fresh()
    assert train(continued, tokens, None, tmp_path, options()).continued_from == 6
    train(straight, tokens, None, tmp_path / "straight", options())
    assert equal(weights(straight), weights(continued))
