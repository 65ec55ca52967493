"""What one training works on: rows, the module that is trained, losses, and what identifies it all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from tunescope.config.fitting import FittingConfig, VarianceLossConfig
from tunescope.data.tokens import Tokens
from tunescope.errors import ConfigError
from tunescope.models import Classifier, features
from tunescope.models.windows import mean_by_row
from tunescope.progress import Progress
from tunescope.seeds import derive_seed
from tunescope.training.imbalance import balanced_subset, class_loss
from tunescope.training.inputs import InputOptions, train_inputs
from tunescope.training.losses import ClassLoss, VarianceLoss
from tunescope.training.options import Prepared, TrainOptions
from tunescope.training.rows import TokenRows

ROWS_FOR_DIMENSIONS = 1024  # whose variance chooses the dimensions of the variance term
# Fields that change what is written down and how batches are fetched, not the trained model.
NOT_IDENTITY = ("logging_", "save_", "dataloader_", "report_to", "activation_store")


@dataclass(frozen=True)
class Asked:
    """What a training is told, and what identifies it.

    Attributes:
        options: As given.
        prepared: As read.
        identity: What a checkpoint belongs to; JSON-able.
    """

    options: TrainOptions
    prepared: Prepared
    identity: dict[str, Any]


@dataclass
class Job:
    """What a trainer works on.

    Attributes:
        classifier: Saved at checkpoints; trained as a whole, or through ``trained``.
        trained: The module whose parameters are trained: the classifier, or its head on features.
        train: Train rows.
        validation: Validation rows, or None.
        asked: What the training is told.
        loss: The cross entropy of rows.
        variance: The variance term, or None.
        inputs: How rows go into the model, and why.
    """

    classifier: Classifier
    trained: nn.Module
    train: TokenRows
    validation: TokenRows | None
    asked: Asked
    loss: ClassLoss
    variance: VarianceLoss | None = None
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> TrainOptions:
        """What the training is told."""
        return self.asked.options

    @property
    def prepared(self) -> Prepared:
        """The same as transformers wants it, and our own fields."""
        return self.asked.prepared

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return self.asked.identity


class HeadOnFeatures(nn.Module):
    """A classifier's head as a model of its own, fed with features that were computed once.

    Args:
        head: Module from pooled vectors [B, D] to logits [B, C].
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor, row_of: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits [B, C] of features [B, D], or of the features of windows of rows."""
        return mean_by_row(self.head(features), row_of)


def chosen_rows(train: Tokens, fitting: FittingConfig, seed: int) -> Tokens:
    """Return the train rows that are trained on: all, or a balanced subset."""
    if fitting.sampling != "balanced_subset":
        return train
    return train.take(balanced_subset(train, derive_seed(seed, "subset")))


def make_job(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    asked: Asked,
    notes: dict[str, Any] | None,
    progress: Progress,
) -> Job:
    """Put together what the trainer works on.

    Args:
        classifier: Trained in place.
        train: Train rows.
        validation: Validation rows, or None.
        asked: What the training is told.
        notes: What the checkpoint to continue from remembers, or None.
        progress: Where to report.

    Raises:
        ConfigError: A field does not fit the labels, or the model.
        DataError: The rows do not allow what is asked.
    """
    options, prepared = asked.options, asked.prepared
    loss = class_loss(prepared.fitting, prepared.label_smoothing, train.labels, classifier.labels.names)
    classifier.to(prepared.arguments.device)
    variance = prepared.fitting.variance_loss
    term = None
    if variance is not None:
        if options.frozen_trunk:
            raise ConfigError(
                "training.variance_loss needs a trunk that is trained, and this method trains the head alone.",
                hint="Choose another method, or remove the field.",
            )
        known = None if notes is None else notes["dimensions"]
        term = _variance_loss(variance, classifier, train, known, options.seed)
    if prepared.recompute:
        recompute(classifier, "enable")
    inputs = train_inputs(classifier, train, validation, _input_options(asked), progress)
    trained = HeadOnFeatures(classifier.head) if inputs.from_features else inputs.module(classifier)
    return Job(classifier, trained, inputs.train, inputs.validation, asked, loss, term, inputs.choices)


def _input_options(asked: Asked) -> InputOptions:
    prepared = asked.prepared
    return InputOptions(
        padding=prepared.fitting.padding,
        store=asked.options.store,
        store_use=prepared.fitting.activation_store,
        store_bytes=prepared.fitting.activation_store_bytes,
        compute={"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[prepared.precision],
        compiled=bool(prepared.arguments.torch_compile),
        frozen_trunk=asked.options.frozen_trunk,
    )


def _variance_loss(
    config: VarianceLossConfig, classifier: Classifier, train: Tokens, known: list[int] | None, seed: int
) -> VarianceLoss:
    """Choose the dimensions: as given, as a checkpoint remembers, or the largest of the untuned model."""
    dimensions = known or config.dimensions
    if dimensions is None:
        assert config.top is not None
        if config.top >= classifier.width:
            raise ConfigError(
                f"training.variance_loss.top is {config.top}; this model has {classifier.width} dimensions, and "
                "all of them together hold all variance.",
                hint=f"Set it to at most {classifier.width - 1}.",
            )
        generator = np.random.Generator(np.random.PCG64([derive_seed(seed, "dimensions")]))
        drawn = np.sort(generator.permutation(len(train))[:ROWS_FOR_DIMENSIONS])
        classifier.eval()
        variance = features(classifier, train.take(drawn)).astype(np.float64).var(axis=0)
        dimensions = sorted(np.argsort(-variance, kind="stable")[: config.top].tolist())
    if max(dimensions) >= classifier.width:
        raise ConfigError(
            f"training.variance_loss.dimensions names {max(dimensions)}; this model has {classifier.width} "
            f"dimensions, 0 to {classifier.width - 1}."
        )
    sign = -1.0 if config.direction == "encourage" else 1.0
    return VarianceLoss(torch.tensor(dimensions, dtype=torch.int64), sign * config.weight)


def recompute(classifier: Classifier, verb: str) -> None:
    """Switch recomputing of activations; the method's older name is deprecated in newer transformers."""
    model = classifier.model
    names = (f"activation_checkpointing_{verb}", f"gradient_checkpointing_{verb}")
    getattr(model, next(name for name in names if hasattr(model, name)))()


# ---- what identifies a training ----


def identity_of(
    options: TrainOptions, prepared: Prepared, classifier: Classifier, rows: dict[str, Tokens | None]
) -> dict[str, Any]:
    """Return what a checkpoint belongs to: settings, rows and model, so that what differs can be named."""
    own = prepared.fitting.model_dump(mode="json")
    theirs = {name: value for name, value in options.training.items() if name not in own}
    settings = {name: value for name, value in {**theirs, **own}.items() if not name.startswith(NOT_IDENTITY)}
    parameters = list(classifier.parameters())
    return {
        "training": {**settings, "bf16": prepared.arguments.bf16, "fp16": prepared.arguments.fp16},
        "seed": options.seed,
        "rows": {split: None if tokens is None else _digest(tokens) for split, tokens in rows.items()},
        "labels": list(classifier.labels.names),
        "parameters": sum(one.numel() for one in parameters),
        "trained_parameters": sum(one.numel() for one in parameters if one.requires_grad),
    }


def _digest(tokens: Tokens) -> dict[str, Any]:
    """Return the number of rows and short checksums of ids, labels and tokens."""
    sums = {name: hashlib.sha256() for name in ("ids", "labels", "tokens")}
    sums["ids"].update("\0".join(tokens.row_ids).encode())
    sums["labels"].update(np.ascontiguousarray(tokens.labels, dtype=np.int64).tobytes())
    for ids in tokens.each_window()[0].input_ids:
        sums["tokens"].update(
            len(ids).to_bytes(4, "big") + np.ascontiguousarray(ids, dtype=np.int32).tobytes()
        )
    return {"number": len(tokens), **{name: total.hexdigest()[:12] for name, total in sums.items()}}


def choices(job: Job) -> dict[str, Any]:
    """Return what was worked out from the rows and the machine before training."""
    names, fitting = job.classifier.labels.names, job.prepared.fitting
    labels = job.train.tokens.labels
    counts = np.bincount(labels, minlength=len(names))
    found: dict[str, Any] = {
        "precision": job.prepared.precision,
        **job.inputs,
        "train_rows": {name: int(count) for name, count in zip(names, counts, strict=True)},
    }
    if job.loss.weights is not None:
        found["class_weights"] = dict(zip(names, job.loss.weights.tolist(), strict=True))
    if job.loss.adjustment is not None:
        found["logit_adjustment"] = dict(zip(names, job.loss.adjustment.tolist(), strict=True))
    if fitting.sampling is not None:
        found["sampling"] = fitting.sampling
    if job.variance is not None:
        found["variance_dimensions"] = job.variance.dimensions.tolist()
    if job.prepared.keeps_best:
        metric = str(job.prepared.arguments.metric_for_best_model)
        found["best_by"] = metric.removeprefix("eval_")
    return found
