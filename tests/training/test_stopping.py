"""Validation metrics against scikit-learn, early stopping, and the best step kept apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics
from test_train import read_log, stopping_at
from training_helpers import equal, make_tokens, weights
from transformers import EvalPrediction, TrainerControl, TrainerState

from tunescope.config.fitting import VALIDATION_METRICS, EarlyStoppingConfig
from tunescope.data.batches import collate
from tunescope.errors import ConfigError, RunError
from tunescope.models import load
from tunescope.training import TrainOptions, train
from tunescope.training import trainer as trainer_module
from tunescope.training.checkpoints import all_checkpoints
from tunescope.training.stopping import EarlyStopping, confusion_metrics, validation_metrics

FIELDS = {
    "num_train_epochs": 9, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 3,
    "report_to": "none", "padding": "bucket",
}  # fmt: skip


def options(**more) -> TrainOptions:
    keep = {"keep_checkpoints": more.pop("keep_checkpoints", False)}
    return TrainOptions(training={**FIELDS, **more}, **keep)


@pytest.mark.parametrize("classes", [2, 4])
def test_validation_metrics_are_scikit_learns(classes):
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(size=(60, classes)), rng.integers(0, classes, 60)
    logits[np.arange(60), labels] += 0.8
    found = validation_metrics(EvalPrediction(predictions=logits, label_ids=labels))
    guess = logits.argmax(1)
    assert found == pytest.approx({
        "loss": metrics.log_loss(labels, torch.softmax(torch.from_numpy(logits), 1).numpy()),
        "accuracy": metrics.accuracy_score(labels, guess),
        "f1_macro": metrics.f1_score(labels, guess, average="macro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, guess),
        "mcc": metrics.matthews_corrcoef(labels, guess),
    })  # fmt: skip
    assert found.keys() == VALIDATION_METRICS.keys()


def test_absent_classes_and_one_guess_for_all():
    counts = np.array([[5, 0, 0], [3, 0, 0], [0, 0, 0]])  # the third class has no row, the second no guess
    labels, guess = np.array([0] * 5 + [1] * 3), np.zeros(8, dtype=int)
    found = confusion_metrics(counts)
    assert found["f1_macro"] == pytest.approx(
        metrics.f1_score(labels, guess, average="macro", zero_division=0)
    )
    assert found["balanced_accuracy"] == 0.5
    assert found["mcc"] == 0.0 == metrics.matthews_corrcoef(labels, guess)


def told(metric, values, patience=2, least_change=0.0):
    """Return after which evaluation a course of values is ended, or None."""
    callback = EarlyStopping(EarlyStoppingConfig(metric=metric, patience=patience, least_change=least_change))
    state = TrainerState(global_step=0)
    control = TrainerControl()
    callback.on_evaluate(None, state, control, metrics={f"eval_{metric}": values[0]})  # before the first step
    for number, value in enumerate(values, 1):
        state.global_step = number
        callback.on_evaluate(None, state, control, metrics={f"eval_{metric}": value})
        if control.should_training_stop:
            return number
    return None


def test_less_loss_is_better_and_more_of_everything_else():
    assert told("loss", [3.0, 2.0, 2.5, 2.1, 1.0]) == 4
    assert told("loss", [3.0, 2.0, 2.5, 1.9, 1.95, 1.8]) is None
    for metric in ("accuracy", "f1_macro", "balanced_accuracy", "mcc"):
        assert told(metric, [0.3, 0.4, 0.2, 0.4, 0.9]) == 4
        assert told(metric, [0.5, 0.6, 0.7]) is None
    assert told("accuracy", [0.50, 0.51, 0.52, 0.60], least_change=0.05) == 3
    assert told("accuracy", [0.50, 0.51, 0.56, 0.57, 0.58], least_change=0.05) == 5


def test_a_training_ends_early_with_the_best_step(fresh, tmp_path):
    tokens, validation = make_tokens(n=16), make_tokens(n=30, seed=1)
    classifier = fresh()
    log = train(classifier, tokens, validation, tmp_path, options(early_stopping={"patience": 2}))
    losses = {event["step"]: event["eval_loss"] for event in log.events if "eval_loss" in event}
    best = min(losses, key=losses.get)
    assert log.stopped_early
    assert log.best_step == best
    assert log.steps == best + 2 * 2 < 9 * 2  # two evaluations after it, 2 steps an epoch
    with torch.no_grad():  # the weights are those of that step
        batch = collate(validation, np.arange(30))
        loss = torch.nn.functional.cross_entropy(classifier(**batch.inputs()), batch.labels)
    assert float(loss) == pytest.approx(losses[best], abs=1e-5)
    assert max(losses.values()) > losses[best] + 1e-3
    assert equal(weights(classifier), weights(load(str(tmp_path / "model"))))
    assert not (tmp_path / "checkpoints").exists()


def test_any_metric_chooses_the_best_step(fresh, tmp_path):
    tokens, validation = make_tokens(n=24), make_tokens(n=40, seed=1)
    for metric, more in VALIDATION_METRICS.items():
        fields = {"load_best_model_at_end": True, "metric_for_best_model": metric, "num_train_epochs": 2}
        log = train(fresh(), tokens, validation, tmp_path / metric, options(**fields))
        values = {event["step"]: event[f"eval_{metric}"] for event in log.events if f"eval_{metric}" in event}
        assert values[log.best_step] == (max if more else min)(values.values())
        assert not log.stopped_early


def test_the_best_step_is_kept_apart_from_the_periodic_checkpoints(fresh, tmp_path):
    tokens, validation = make_tokens(n=16), make_tokens(n=30, seed=1)
    fields = {"load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 4}
    log = train(fresh(), tokens, validation, tmp_path, options(keep_checkpoints=True, **fields))
    (newest,) = all_checkpoints(tmp_path / "checkpoints")  # save_total_limit is 1
    assert newest.name == "checkpoint-18"
    kept = [path.name for path in (tmp_path / "checkpoints").glob("best-*")]
    assert kept == [f"best-{log.best_step}"]
    assert log.best_step < 18
    classifier = load(str(tmp_path / "checkpoints" / kept[0]))
    assert equal(weights(classifier), weights(load(str(tmp_path / "model"))))


@pytest.mark.parametrize("waiting", [False, True])
def test_early_stopping_continues_bit_exactly(fresh, tmp_path, monkeypatch, waiting):
    """Killed at any time: patience, the best value and the best weights are what they were."""
    tokens, validation = make_tokens(n=24), make_tokens(n=30, seed=1)
    fields = {"early_stopping": {"patience": 3}, "eval_strategy": "steps", "eval_steps": 2,
              "save_strategy": "steps", "save_steps": 2, "learning_rate": 2e-3}  # fmt: skip
    straight = fresh()
    whole = train(straight, tokens, validation, tmp_path / "straight", options(**fields))
    assert whole.stopped_early
    step = whole.best_step + 3 if waiting else 3  # where one evaluation since the best was worse, or none yet
    assert whole.steps > step

    def die():
        raise SystemError("power cut")

    undo = stopping_at(monkeypatch, step, die)
    with pytest.raises(SystemError):
        train(fresh(), tokens, validation, tmp_path / "killed", options(**fields))
    undo()
    continued = fresh()
    log = train(continued, tokens, validation, tmp_path / "killed", options(**fields))
    assert log.continued_from == (step - 1) // 2 * 2
    assert (log.steps, log.best_step, log.stopped_early) == (
        whole.steps,
        whole.best_step,
        whole.stopped_early,
    )
    assert equal(weights(straight), weights(continued))
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "straight")


def test_what_had_run_out_of_patience_does_not_train_on(fresh, tmp_path, monkeypatch):
    """The power goes between the last evaluation, with its checkpoint, and the end."""
    tokens, validation = make_tokens(n=16), make_tokens(n=30, seed=1)
    fields = options(early_stopping={"patience": 1})
    whole = train(fresh(), tokens, validation, tmp_path / "straight", fields)
    assert whole.stopped_early

    def die(*_, **__):
        raise SystemError("power cut")

    monkeypatch.setattr(trainer_module.ClassifierTrainer, "_finalize_training", die)
    with pytest.raises(SystemError):
        train(fresh(), tokens, validation, tmp_path / "killed", fields)
    monkeypatch.undo()
    continued = fresh()
    log = train(continued, tokens, validation, tmp_path / "killed", fields)
    assert (log.continued_from, log.steps) == (whole.steps, whole.steps)
    assert equal(weights(continued), weights(load(str(tmp_path / "straight" / "model"))))


def test_a_best_step_that_is_gone_is_said(fresh, tmp_path, monkeypatch):
    from tunescope.training.checkpoints import restore_best

    with pytest.raises(RunError, match=r"best-7 is missing: the best step's weights are gone"):
        restore_best(fresh(), tmp_path, 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"early_stopping": {"metric": "acuracy"}}, r"early_stopping.metric: .*did you mean 'accuracy'\?"),
        ({"early_stopping": {"patience": 0}}, r"early_stopping.patience: expected .* 1 or more"),
        ({"early_stopping": {}, "eval_strategy": "no"}, r"early_stopping needs evaluations"),
        ({"load_best_model_at_end": True, "metric_for_best_model": "f1"}, r"unknown validation metric 'f1'"),
        (
            {"early_stopping": {"metric": "mcc"}, "metric_for_best_model": "loss"},
            r"metric_for_best_model is 'loss', and early_stopping goes by 'mcc'",
        ),
        (
            {"early_stopping": {"metric": "mcc"}, "greater_is_better": False},
            r"greater_is_better is false, but more mcc is better",
        ),
    ],
)
def test_stopping_that_cannot_be_is_refused(fresh, tmp_path, fields, message):
    tokens = make_tokens(n=16)
    with pytest.raises(ConfigError, match=message):
        train(fresh(), tokens, tokens, tmp_path, options(**fields))


def test_stopping_without_validation_rows_is_refused(fresh, tmp_path):
    with pytest.raises(ConfigError, match="early_stopping needs validation rows, and there are none"):
        train(fresh(), make_tokens(n=16), None, tmp_path, options(early_stopping={}))
