"""What a training is told, and the transformers arguments that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import TrainingArguments

from tunescope.config.check import note_errors
from tunescope.config.fitting import OWN_FIELDS, VALIDATION_METRICS, FittingConfig, metric_name
from tunescope.config.problems import Problems
from tunescope.config.training import AUTO, CHOSEN, owner_of
from tunescope.device import bfloat16_is_fast
from tunescope.errors import ConfigError, RunError
from tunescope.seeds import derive_seed

# What differs from transformers and does not change the trained model. Logging is a share of all steps.
QUIET: dict[str, Any] = {
    "per_device_eval_batch_size": 64, "logging_steps": 0.02, "save_total_limit": 1, "report_to": "none",
    "logging_nan_inf_filter": False,
    "disable_tqdm": True, "remove_unused_columns": False, "label_names": ["labels"],
}  # fmt: skip

BEST = "load_best_model_at_end"
REFUSED = {
    "auto_find_batch_size": "the batches of a continued run would differ; set per_device_train_batch_size",
    "batch_eval_metrics": "tunescope's own evaluation computes the metrics",
    "deepspeed": "one process trains one arm",
    "fsdp": "one process trains one arm",
    "fsdp_config": "one process trains one arm",
    "use_liger_kernel": "it replaces the modules that the lenses look at",
    "enable_jit_checkpoint": "Ctrl-C already saves a checkpoint, and the same command continues from it",
    "save_only_model": "a run could not be continued",
}


@dataclass(frozen=True)
class TrainOptions:
    """What one training is told.

    Attributes:
        training: Fields of ``transformers.TrainingArguments``, apart from those that tunescope owns, and of
            :class:`tunescope.config.fitting.FittingConfig`.
        seed: The study's seed; the streams for order and dropout are derived from it.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        frozen_trunk: Train the head alone on features that are computed once. Exact, because a frozen trunk
            runs without dropout.
        keep_checkpoints: Leave ``checkpoints/`` in place when the model is saved.
        fingerprint: Binds checkpoints to what they were trained for; others are not continued.
        record: What the saved model's ``tunescope.json`` says about it (arm, method, base, template ...).
        store: Folder of the activation store that arms and seeds of a run share, or None for none.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    frozen_trunk: bool = False
    keep_checkpoints: bool = False
    fingerprint: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    store: Path | None = None


@dataclass
class TrainLog:
    """What a training did.

    Attributes:
        events: What ``log.jsonl`` holds, one mapping per logged step.
        steps: Optimiser steps in all, those before an interruption included.
        epochs: Passes over the train rows.
        seconds: Wall time of all sessions together.
        parameters: Number of parameters of the classifier.
        trainable_parameters: How many of them were trained.
        seeds: The derived seed of every random stream.
        continued_from: Step of the checkpoint that this session continued from, or None.
        best_step: Step of the model that was kept, where the best was chosen on validation rows.
        real_tokens: Tokens trained on in all, padding not counted; a row counts every time it is seen.
        tokens_per_second: ``real_tokens`` by the seconds that training steps took (evaluating and saving not
            counted); 0 where no step was made.
        padding_share: Share of padding in all token places that went through the model, 0 to 1.
        peak_memory_bytes: Largest memory while training: resident memory of the process on a CPU, allocated
            memory on a CUDA device; None where it cannot be read (macOS, Windows).
        memory: Its course, as ``[seconds, bytes]``.
        stopped_early: Whether early stopping ended the training before its last step.
        halved: How many times the micro-batch was halved because memory ran out.
        choices: What was worked out before training: class weights, class shares, dimensions, precision.
    """

    events: list[dict[str, float]]
    steps: int
    epochs: float
    seconds: float
    parameters: int
    trainable_parameters: int
    seeds: dict[str, int]
    continued_from: int | None = None
    best_step: int | None = None
    real_tokens: int = 0
    tokens_per_second: float = 0.0
    padding_share: float = 0.0
    peak_memory_bytes: int | None = None
    memory: list[list[float]] = field(default_factory=list)
    stopped_early: bool = False
    halved: int = 0
    choices: dict[str, Any] = field(default_factory=dict)


def streams(seed: int) -> dict[str, int]:
    """Return the derived seed of every random stream of a training."""
    return {name: derive_seed(seed, name) for name in ("order", "dropout")}


@dataclass(frozen=True)
class Prepared:
    """Arguments for transformers, and what our own trainer does instead of it.

    Attributes:
        arguments: For transformers' Trainer.
        fitting: Our own fields.
        label_smoothing: From 0 to below 1.
        keep: How many periodic checkpoints are kept, or None for all.
        recompute: Whether activations are computed again in the backward pass.
        keeps_best: Whether the best step's model is kept, by ``arguments.metric_for_best_model``.
        remarks: What the user should know.
    """

    arguments: TrainingArguments
    fitting: FittingConfig
    label_smoothing: float
    keep: int | None
    recompute: bool
    keeps_best: bool
    remarks: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The precision of matrix products while training: bf16, fp16 or fp32."""
        return "bf16" if self.arguments.bf16 else "fp16" if self.arguments.fp16 else "fp32"


def prepare_arguments(options: TrainOptions, checkpoints: Path, validates: bool) -> Prepared:
    """Turn options into the arguments of transformers' Trainer.

    Args:
        options: What the training is told.
        checkpoints: Folder of the checkpoints.
        validates: Whether there are validation rows.

    Raises:
        ConfigError: A field is unknown, owned by tunescope, refused, or does not fit the others.
        RunError: The device is not there.
    """
    given = dict(options.training)
    fitting = _fitting({name: given.pop(name) for name in OWN_FIELDS if name in given})
    for name in given:
        reason = REFUSED.get(name) or owner_of(name)
        if reason is not None and given[name] not in (None, False, "no", {}, []):
            raise ConfigError(f"training.{name} cannot be set here: {reason}.")
        if name not in {one.name for one in dataclasses.fields(TrainingArguments)}:
            raise ConfigError(f"training.{name} is not a field of transformers.TrainingArguments.")
    values = {**CHOSEN, **QUIET, **{name: value for name, value in given.items() if owner_of(name) is None}}
    best = _best(values, fitting, validates)
    if not validates:
        values["eval_strategy"] = "no"
    device = _usable(options.device)
    remarks = _precision(values, options.device)
    names = ("activation_checkpointing", "gradient_checkpointing")
    recompute = sum(bool(values.pop(name, None)) for name in names) > 0
    smoothing = float(values.pop("label_smoothing_factor", 0.0) or 0.0)
    keep = values.pop("save_total_limit")
    try:
        arguments = TrainingArguments(
            output_dir=str(checkpoints), seed=options.seed, use_cpu=device.type == "cpu",
            **{"dataloader_pin_memory": device.type == "cuda", **values},
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ConfigError(f"training: {error}") from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process, one device: never DataParallel
    return Prepared(arguments, fitting, smoothing, keep, recompute, best, remarks)


def _fitting(own: dict[str, Any]) -> FittingConfig:
    try:
        return FittingConfig.model_validate(own)
    except ValidationError as error:
        problems = Problems()
        note_errors(error, FittingConfig, own, ("training",), problems)
        raise ConfigError("; ".join(str(problem) for problem in problems.found) + ".") from error


def _best(values: dict[str, Any], fitting: FittingConfig, validates: bool) -> bool:
    """Say whether the best step is kept; set by which metric, in the direction that is the metric's own."""
    stopping = fitting.early_stopping
    wanted = {"early_stopping": stopping is not None, "load_best_model_at_end": bool(values.pop(BEST, False))}
    for name in (name for name, on in wanted.items() if on):
        if not validates:
            raise ConfigError(
                f"training.{name} needs validation rows, and there are none.",
                hint="Set data.validation above 0, or remove the field.",
            )
        if values["eval_strategy"] == "no":
            raise ConfigError(f"training.{name} needs evaluations while training; eval_strategy is 'no'.")
    asked = values.get("metric_for_best_model")
    if not any(wanted.values()) and asked is None:
        return False
    try:
        metric = stopping.metric if stopping is not None else metric_name(asked or "loss")
    except ValueError as error:
        raise ConfigError(f"training.metric_for_best_model: {error}") from error
    if stopping is not None and asked is not None and metric_name(asked) != metric:
        raise ConfigError(
            f"training.metric_for_best_model is {asked!r}, and early_stopping goes by {metric!r}.",
            hint="Name one metric.",
        )
    more = VALIDATION_METRICS[metric]
    if values.get("greater_is_better", more) not in (None, more):
        raise ConfigError(
            f"training.greater_is_better is {str(not more).lower()}, but {'more' if more else 'less'} {metric} "
            "is better.",
            hint="Remove the field: the direction follows from the metric.",
        )
    values.update(metric_for_best_model=f"eval_{metric}", greater_is_better=more)
    return any(wanted.values())


def _precision(values: dict[str, Any], device: str) -> tuple[str, ...]:
    """Settle ``bf16: auto``, and say where bf16 was asked of hardware that has it not."""
    if values.get("bf16") == AUTO:
        values["bf16"] = not values.get("fp16") and bfloat16_is_fast(device)
    elif values.get("bf16") and not bfloat16_is_fast(device):
        return (
            f"bf16: this machine's {device} does not multiply bfloat16 in hardware; fp32 would be faster",
        )
    return ()


def _usable(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise RunError(f"The device {name} is not there: this machine has {count} CUDA devices.")
        if device.index:
            raise RunError(
                f"Training runs on the first visible CUDA device, not on {name}.",
                hint=f"Set CUDA_VISIBLE_DEVICES={device.index} and use --device cuda.",
            )
    return device
