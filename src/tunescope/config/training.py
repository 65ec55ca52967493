"""The fields that may stand under ``training:``: those of ``transformers.TrainingArguments``, and our own."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tunescope.config.fitting import OWN_FIELDS, FittingConfig, metric_name
from tunescope.config.problems import Problems, nearest, shown_value, unknown

MOST_LISTED = 12
AUTO = "auto"
_NO_UPLOAD = "tunescope uploads nothing; upload the finished model/ folder with `hf upload`"
_BATCHES = "nothing: tunescope builds the batches itself, in groups of equal length, each row once"
_EVALUATION = "nothing: tunescope's own evaluation computes the metrics"
_CONTINUE = "nothing: run the same command again and it continues, exactly"

OWNED = {
    "output_dir": "--output-dir of `tunescope run`",
    "seed": "seeds: of the study, for example seeds: [0, 1, 2]",
    "data_seed": "seeds: of the study, for example seeds: [0, 1, 2]",
    "full_determinism": "seeds: of the study; equal seeds give equal numbers on the same machine",
    "use_cpu": "--device cpu of `tunescope run`",
    "local_rank": "--device of `tunescope run`; one process trains one arm",
    "parallelism_config": "--device of `tunescope run`; one process trains one arm",
    "do_train": "nothing: a run always trains, evaluates and predicts",
    "do_eval": "nothing: a run always trains, evaluates and predicts",
    "do_predict": "nothing: a run always trains, evaluates and predicts",
    "resume_from_checkpoint": _CONTINUE,
    "ignore_data_skip": _CONTINUE,
    "save_only_model": _CONTINUE,
    "restore_callback_states_from_checkpoint": _CONTINUE,
    "run_name": "name: of the study and of its arms",
    "project": "name: of the study",
    "disable_tqdm": "--quiet of `tunescope run`",
    "auto_find_batch_size": "per_device_train_batch_size; the batches of a continued run would differ",
    "deepspeed": "nothing: one process trains one arm",
    "fsdp": "nothing: one process trains one arm",
    "fsdp_config": "nothing: one process trains one arm",
    "use_liger_kernel": "nothing: it replaces the modules that the lenses look at",
    "enable_jit_checkpoint": "nothing: Ctrl-C already saves a checkpoint, and the same command continues",
    "label_names": "label: and labels: under data:",
    "remove_unused_columns": _BATCHES,
    "train_sampling_strategy": _BATCHES,
    "length_column_name": _BATCHES,
    "prediction_loss_only": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
}
_OWNED_PREFIXES = {
    "push_to_hub": _NO_UPLOAD,
    "hub_": _NO_UPLOAD,
    "trackio_": "report_to: tensorboard or wandb",
}

# Names that transformers 5 no longer has, and which people still write.
GONE = {
    "warmup_ratio": "warmup_steps, where a number below 1 is a share of all steps",
    "evaluation_strategy": "eval_strategy",
    "no_cuda": OWNED["use_cpu"],
    "use_mps_device": "--device mps of `tunescope run`",
    "group_by_length": _BATCHES,
    "overwrite_output_dir": "--output-dir of `tunescope run`",
    "logging_dir": "report_to: tensorboard, which writes into the run folder",
    "save_safetensors": "nothing: models are always saved as safetensors",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "max_length": "max_length under data:",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "lr": "learning_rate",
    "early_stopping_patience": "early_stopping: {metric: loss, patience: 3}",
    "class_weight": "class_weights",
}

# What tunescope chooses where the study is silent; every other field keeps the default of transformers.
CHOSEN: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
}

# The fields that change a trained model: the resolved study states each of them, chosen or default.
STATED = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor",
    "neftune_noise_alpha", "bf16", "fp16", "tf32", "eval_strategy", "save_strategy", "load_best_model_at_end",
    "metric_for_best_model",
)  # fmt: skip

# field: (least, least is allowed, below which it must stay or None)
_RANGES: dict[str, tuple[float, bool, float | None]] = {
    "num_train_epochs": (0, False, None),
    "per_device_train_batch_size": (1, True, None),
    "per_device_eval_batch_size": (1, True, None),
    "gradient_accumulation_steps": (1, True, None),
    "learning_rate": (0, True, None),
    "warmup_steps": (0, True, None),
    "weight_decay": (0, True, None),
    "adam_beta1": (0, True, 1),
    "adam_beta2": (0, True, 1),
    "adam_epsilon": (0, False, None),
    "max_grad_norm": (0, True, None),
    "label_smoothing_factor": (0, True, 1),
    "logging_steps": (0, False, None),
    "eval_steps": (0, False, None),
    "save_steps": (0, False, None),
    "save_total_limit": (1, True, None),
}


@dataclass(frozen=True)
class TrainingField:
    """One field of ``TrainingArguments``: its type, the values it may take, and its default."""

    name: str
    annotation: Any
    choices: tuple[str, ...]
    default: Any

    @property
    def expected(self) -> str:
        """Say in words what the field may be."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = [
            _WORDS.get(part, _WORDS.get(typing.get_origin(part), str(part)))
            for part in _parts(self.annotation)
        ]
        return " or ".join(dict.fromkeys(words)) + _range_words(self.name)

    def read(self, value: Any) -> Any:
        """Return ``value`` as the field's type.

        Raises:
            ValueError: The value does not fit the field.
        """
        if self.name == "bf16" and value == AUTO:
            return AUTO
        if self.choices:
            if value not in self.choices:
                raise ValueError(value)
            return value
        parts = _parts(self.annotation)
        if isinstance(value, str) and str not in parts:
            value = _from_words(value, parts)
        try:
            read = _adapter(self.name).validate_python(value)
        except ValidationError as error:
            raise ValueError(value) from error
        if read is not None and self.name in _RANGES:
            least, inclusive, below = _RANGES[self.name]
            if read < least or (read == least and not inclusive) or (below is not None and read >= below):
                raise ValueError(value)
        return read


@dataclass(frozen=True)
class OwnField(TrainingField):
    """One field of our own: see :class:`tunescope.config.fitting.FittingConfig`."""

    @property
    def expected(self) -> str:
        """Say in words what the field may be."""
        return str(FittingConfig.model_fields[self.name].description)

    def read(self, value: Any) -> Any:
        """Return ``value`` complete, as plain values.

        Raises:
            ValueError: The value does not fit the field; the cause is pydantic's error.
        """
        try:
            checked = FittingConfig.model_validate({self.name: value})
        except ValidationError as error:
            raise ValueError(value) from error
        return checked.model_dump(mode="json")[self.name]


_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a mapping",
    list: "a list", types.NoneType: "null", Literal: AUTO,
}  # fmt: skip


def _range_words(name: str) -> str:
    if name not in _RANGES:
        return ""
    least, inclusive, below = _RANGES[name]
    start = f" from {least:g}" if inclusive else f" above {least:g}"
    return start if below is None else f"{start} to below {below:g}"


def _parts(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _from_words(value: str, parts: tuple[Any, ...]) -> Any:
    """Read ``1e-4``, ``yes`` and the like, which come as text from Python mappings and YAML 1.1 habits."""
    if bool in parts and value.lower() in ("yes", "on", "no", "off", "true", "false"):
        return value.lower() in ("yes", "on", "true")
    if float in parts or int in parts:
        try:
            return int(value) if float not in parts else float(value)
        except ValueError:
            return value
    return value


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(training_fields()[name].annotation, config=config)


@functools.cache
def training_fields() -> dict[str, TrainingField]:
    """Return the fields that a study may set, by name; imports transformers, which takes seconds once."""
    from transformers import TrainingArguments

    fields = {}
    for field in dataclasses.fields(TrainingArguments):
        if not field.init or owner_of(field.name) is not None or field.name in OWN_FIELDS:
            continue
        parts = _parts(field.type)
        enums = [part for part in parts if isinstance(part, type) and issubclass(part, enum.Enum)]
        choices = tuple(member.value for part in enums for member in part)
        missing = field.default is dataclasses.MISSING
        default = None if missing else getattr(field.default, "value", field.default)
        if field.name in CHOSEN:
            default = CHOSEN[field.name]
        if isinstance(default, int) and float in parts and not isinstance(default, bool):
            default = float(default)
        kind = field.type | Literal["auto"] if field.name == "bf16" else field.type
        fields[field.name] = TrainingField(field.name, kind, choices, default)
    own = FittingConfig.model_fields
    return {**fields, **{name: OwnField(name, own[name].annotation, (), own[name].default) for name in own}}


def owner_of(name: str) -> str | None:
    """Return what to use instead of a field that tunescope owns, or None where the field is free."""
    if name in OWNED:
        return OWNED[name]
    return next((instead for start, instead in _OWNED_PREFIXES.items() if name.startswith(start)), None)


def stated_defaults() -> dict[str, Any]:
    """Return the default of every field that changes a trained model, and of all our own."""
    fields = training_fields()
    return {name: fields[name].default for name in (*STATED, *OWN_FIELDS) if name in fields}


def read_training(value: Any, key: tuple[Any, ...], problems: Problems) -> dict[str, Any]:
    """Return the ``training:`` mapping at ``key`` with typed values, noting what is wrong with it."""
    if not isinstance(value, dict):
        expected = "a mapping of fields of transformers.TrainingArguments and tunescope's own"
        problems.add(key, f"expected {expected}; came {shown_value(value)}")
        return {}
    fields = training_fields()
    read = {}
    for name, item in value.items():
        if name in fields:
            try:
                read[name] = fields[name].read(item)
            except ValueError as error:
                _note_misfit(fields[name], item, error, key, problems)
        else:
            problems.add((*key, name), _refusal(name, list(fields)))
    return read


def _note_misfit(
    field: TrainingField, value: Any, error: ValueError, key: tuple[Any, ...], problems: Problems
) -> None:
    """Note what is wrong with a field; our own fields have parts, and each says its own problem."""
    if isinstance(error.__cause__, ValidationError) and isinstance(field, OwnField):
        from tunescope.config.check import note_errors

        note_errors(error.__cause__, FittingConfig, {field.name: value}, tuple(map(str, key)), problems)
    else:
        problems.add((*key, field.name), _misfit(field, value))


def _misfit(field: TrainingField, value: Any) -> str:
    """Say what the field may be; the optimisers are too many to list where one is near."""
    match = nearest(value, field.choices) if isinstance(value, str) else None
    if match is not None and len(field.choices) > MOST_LISTED:
        return f"unknown value {value!r}; did you mean {match!r}?"
    return f"expected {field.expected}; came {shown_value(value)}"


def _refusal(name: Any, fields: list[str]) -> str:
    instead = owner_of(str(name))
    if instead is not None:
        return f"this field cannot be set in a study; use instead: {instead}"
    if name in GONE:
        return f"this is not a field of this version of transformers; use instead: {GONE[name]}"
    if nearest(str(name), fields) is None:
        return (
            f"unknown training field {shown_value(name)}; expected a field of transformers.TrainingArguments"
        )
    return unknown("training field", name, fields)


def check_together(training: dict[str, Any], key: tuple[Any, ...], problems: Problems) -> None:
    """Note fields that are valid alone and not together; ``training`` is what applies to one arm."""
    evaluates = training.get("eval_strategy") != "no"
    stopping = training.get("early_stopping")
    for name in ("load_best_model_at_end", "early_stopping"):
        if training.get(name) and not evaluates:
            problems.add((*key, name), "it needs evaluations while training; eval_strategy is 'no'")
    best = training.get("metric_for_best_model")
    if best is not None:
        try:
            best = metric_name(best)
        except ValueError as error:
            problems.add((*key, "metric_for_best_model"), str(error))
        if stopping and best != stopping["metric"]:
            problems.add(
                (*key, "metric_for_best_model"),
                f"early_stopping keeps the best step by {stopping['metric']!r}, and this says {best!r}",
            )
    if training.get("bf16") and training.get("fp16"):
        problems.add((*key, "bf16"), "bf16 and fp16 cannot both be true; choose one")
    own = {name: training[name] for name in OWN_FIELDS if name in training}
    try:
        FittingConfig.model_validate(own)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            if not item["loc"]:
                problems.add(key, str(item["ctx"]["error"]))
    for strategy, steps in (("eval_strategy", "eval_steps"), ("save_strategy", "save_steps")):
        if training.get(strategy) == "steps" and training.get(steps) is None:
            problems.add((*key, strategy), f"'steps' needs {steps}, a number of steps between two of them")
