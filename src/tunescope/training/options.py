"""What a training is told, and the transformers arguments that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from tunescope.config.training import CHOSEN, owner_of
from tunescope.errors import ConfigError, RunError
from tunescope.seeds import derive_seed

# What differs from transformers and does not change the trained model. Logging is a share of all steps.
QUIET: dict[str, Any] = {
    "per_device_eval_batch_size": 64, "logging_steps": 0.02, "save_total_limit": 1, "report_to": "none",
    "disable_tqdm": True, "remove_unused_columns": False, "label_names": ["labels"],
}  # fmt: skip

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
        training: Fields of ``transformers.TrainingArguments``, apart from those that tunescope owns.
        seed: The study's seed; the streams for order and dropout are derived from it.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        frozen_trunk: Train the head alone on features that are computed once. Exact, because a frozen trunk
            runs without dropout.
        keep_checkpoints: Leave ``checkpoints/`` in place when the model is saved.
        fingerprint: Binds checkpoints to what they were trained for; others are not continued.
        record: What the saved model's ``tunescope.json`` says about it (arm, method, base, template ...).
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"
    frozen_trunk: bool = False
    keep_checkpoints: bool = False
    fingerprint: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


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


def streams(seed: int) -> dict[str, int]:
    """Return the derived seed of every random stream of a training."""
    return {name: derive_seed(seed, name) for name in ("order", "dropout")}


@dataclass(frozen=True)
class Prepared:
    """Arguments for transformers, and what our own trainer does instead of it."""

    arguments: TrainingArguments
    label_smoothing: float
    keep: int | None
    recompute: bool


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
    for name in given:
        reason = REFUSED.get(name) or owner_of(name)
        if reason is not None and given[name] not in (None, False, "no", {}, []):
            raise ConfigError(f"training.{name} cannot be set here: {reason}.")
        if name not in {one.name for one in dataclasses.fields(TrainingArguments)}:
            raise ConfigError(f"training.{name} is not a field of transformers.TrainingArguments.")
    values = {**CHOSEN, **QUIET, **{name: value for name, value in given.items() if owner_of(name) is None}}
    if not validates:
        if values.get("load_best_model_at_end"):
            raise ConfigError(
                "training.load_best_model_at_end needs validation rows, and there are none.",
                hint="Set data.validation above 0, or remove the field.",
            )
        values["eval_strategy"] = "no"
    device = _usable(options.device)
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
    return Prepared(arguments, smoothing, keep, recompute)


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
