"""Continued is uninterrupted: inside an accumulation window, with every remedy, with adapters; else refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_train import Listening, options, read_log, stopping_at
from training_helpers import equal, make_tokens, weights
from transformers import TrainerCallback

from tunescope.errors import Interrupted
from tunescope.training import train
from tunescope.training import trainer as trainer_module
from tunescope.tuning import METHODS

QUIET = {
    "report_to": "none",
    "padding": "bucket",
    "save_strategy": "steps",
    "save_steps": 2,
    "num_train_epochs": 3,
}


def uneven(n=44):
    tokens = make_tokens(n=n)
    tokens.labels[:] = np.array([0] * (n - 14) + [1] * 10 + [2] * 4)
    return tokens


class InsideWindow(TrainerCallback):
    """Dies between two micro-batches of a step."""

    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            raise SystemError("power cut")


def killed_inside(monkeypatch, step):
    original = trainer_module.ClassifierTrainer.__init__

    def patched(self, job, callbacks):
        original(self, job, [*callbacks, InsideWindow(step)])

    monkeypatch.setattr(trainer_module.ClassifierTrainer, "__init__", patched)
    return lambda: monkeypatch.setattr(trainer_module.ClassifierTrainer, "__init__", original)


@pytest.mark.parametrize(
    ("fields", "step", "from_step"),
    [
        ({"class_weights": "balanced", "label_smoothing_factor": 0.1}, 4, 2),
        ({"sampling": "balanced"}, 6, 4),  # in the second epoch
        (
            {
                "sampling": "balanced_subset",
                "gradient_accumulation_steps": 1,
                "per_device_train_batch_size": 2,
            },
            0,
            4,
        ),
        ({"logit_adjustment": 1.0}, 8, 6),
        ({"variance_loss": {"top": 2, "weight": 0.5, "direction": "discourage"}}, 5, 4),
    ],
    ids=["weighted", "balanced", "subset", "adjusted", "variance"],
)
def test_killed_inside_an_accumulation_window_it_continues_bit_exactly(
    fresh, tmp_path, monkeypatch, fields, step, from_step
):
    tokens, validation = uneven(), make_tokens(seed=1)
    asked = options(**{"gradient_accumulation_steps": 2, **QUIET, **fields})  # 3 steps an epoch
    straight = fresh()
    whole = train(straight, tokens, validation, tmp_path / "straight", asked)

    def die():
        raise SystemError("power cut")

    undo = killed_inside(monkeypatch, step) if step else stopping_at(monkeypatch, from_step + 1, die)
    with pytest.raises(SystemError):
        train(fresh(), tokens, validation, tmp_path / "killed", asked)
    undo()
    continued = fresh(seed=3)
    with torch.no_grad():  # whatever it starts from, the checkpoint decides: the chosen dimensions too
        continued.trunk.ln_f.weight.mul_(torch.linspace(5, 0.1, continued.width))
    log = train(continued, tokens, validation, tmp_path / "killed", asked)
    assert log.continued_from == from_step
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "straight")
    assert (log.real_tokens, log.choices) == (whole.real_tokens, whole.choices)
    if "sampling" in fields and fields["sampling"] == "balanced_subset":
        assert log.choices["train_rows"] == {"bad": 4, "fine": 4, "good": 4}


@pytest.mark.parametrize("step", [3, 7])
def test_lora_continues_bit_exactly(fresh, tmp_path, monkeypatch, step):
    pytest.importorskip("peft")
    method = METHODS["lora"]
    tokens = uneven()

    def prepared():
        classifier = fresh()
        method.prepare(classifier, method.options.model_validate({"peft": {"r": 2, "lora_dropout": 0.2}}))
        return classifier

    def trained(classifier):
        return {name: value.clone() for name, value in classifier.training_state().items()}

    asked = options(**{**QUIET, "early_stopping": {"patience": 9}})
    straight, continued = prepared(), prepared()
    before = trained(straight)
    train(straight, tokens, tokens, tmp_path / "straight", asked)
    assert not equal(before, trained(straight))
    undo = stopping_at(monkeypatch, step)
    with pytest.raises(Interrupted):
        train(prepared(), tokens, tokens, tmp_path / "stopped", asked)
    undo()
    log = train(continued, tokens, tokens, tmp_path / "stopped", asked)
    assert log.continued_from == step
    assert equal(trained(straight), trained(continued))
    assert read_log(tmp_path / "stopped") == read_log(tmp_path / "straight")


def test_halved_micro_batches_stay_halved_when_continued(fresh, tmp_path, monkeypatch):
    tokens = uneven()
    asked = options(**QUIET)
    sizes = []
    original = type(fresh()).forward

    def forward(self, input_ids, *args, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 5 and self.training:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(fresh()), "forward", forward)
    straight = fresh()
    train(straight, tokens, None, tmp_path / "straight", asked)
    undo = stopping_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        train(fresh(), tokens, None, tmp_path / "stopped", asked)
    undo()
    sizes.clear()
    continued = fresh()
    log = train(continued, tokens, None, tmp_path / "stopped", asked)
    assert max(sizes) <= 4
    assert (log.continued_from, log.halved) == (5, 1)
    assert equal(weights(straight), weights(continued))


def other_row(tokens):
    tokens.input_ids[3] = tokens.input_ids[3].copy()
    tokens.input_ids[3][0] += 1
    return tokens


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: (t, {"learning_rate": 1e-4}), r"training.learning_rate: 0.001 -> 0.0001"),
        (lambda t: (t, {"class_weights": "balanced"}), r'training.class_weights: unset -> "balanced"'),
        (lambda t: (t.take(np.arange(40)), {}), r"rows.train.ids: .*rows.train.number: 44 -> 40"),
        (lambda t: (other_row(t), {}), r"\(rows.train.tokens: \S+ -> \S+\)"),
    ],
    ids=["setting", "own setting", "rows", "tokens"],
)
def test_a_checkpoint_of_other_settings_or_rows_is_not_continued_and_what_differs_is_said(
    fresh, tmp_path, monkeypatch, change, said
):
    import re

    undo = stopping_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(fresh(), uneven(), None, tmp_path, options(**QUIET))
    undo()
    tokens, fields = change(uneven())
    progress = Listening()
    log = train(fresh(), tokens, None, tmp_path, options(**{**QUIET, **fields}), progress)
    assert log.continued_from is None
    line = next(line for line in progress.lines if "checkpoint-4" in line)
    assert "it belongs to other settings" in line
    assert "not continued from it" in line
    assert re.search(said, line), line


def test_what_changes_no_weight_may_change(fresh, tmp_path, monkeypatch):
    undo = stopping_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(fresh(), uneven(), None, tmp_path, options(**QUIET))
    undo()
    fields = {**QUIET, "logging_steps": 1, "save_steps": 3, "report_to": "tensorboard"}
    assert train(fresh(), uneven(), None, tmp_path, options(**fields)).continued_from == 4


def test_training_of_another_method_is_not_continued(fresh, tmp_path, monkeypatch):
    undo = stopping_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(fresh(), uneven(), None, tmp_path, options(**QUIET))
    undo()
    classifier, progress = fresh(), Listening()
    METHODS["head_only"].prepare(classifier, METHODS["head_only"].options())
    log = train(classifier, uneven(), None, tmp_path, options(**QUIET), progress)
    assert log.continued_from is None
    assert any("trained_parameters: " in line for line in progress.lines)
