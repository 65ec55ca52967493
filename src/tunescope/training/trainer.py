"""A thin subclass of transformers' Trainer: our model, our batches, checkpoints that continue exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainerCallback

from tunescope.data.sampler import LengthGroupedSampler
from tunescope.errors import Interrupted
from tunescope.folders import disk_errors
from tunescope.models import Classifier, load
from tunescope.training.callbacks import StopCleanly
from tunescope.training.checkpoints import all_checkpoints, rotate, seal, step_of
from tunescope.training.options import Prepared, TrainOptions, streams
from tunescope.training.rows import LongestFirst, TokenRows


@dataclass
class Job:
    """What a trainer works on.

    Attributes:
        classifier: Saved at checkpoints; trained as a whole, or through ``trained``.
        trained: The module whose parameters are trained: the classifier, or its head on features.
        train: Train rows.
        validation: Validation rows, or None.
        options: What the training is told.
        prepared: Arguments for transformers.
    """

    classifier: Classifier
    trained: nn.Module
    train: TokenRows
    validation: TokenRows | None
    options: TrainOptions
    prepared: Prepared


class HeadOnFeatures(nn.Module):
    """A classifier's head as a model of its own, fed with features that were computed once.

    Args:
        head: Module from pooled vectors [B, D] to logits [B, C].
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C] of features [B, D]."""
        return self.head(features)


class ClassifierTrainer(Trainer):
    """Trains a :class:`Classifier` by the mean cross entropy of its logits.

    Batches hold rows of about equal length, in an order that is a function of (seed, epoch). Checkpoints are
    model folders that transformers opens, with checksums; continuing from one gives the same weights exactly.

    Args:
        job: What to train on.
        callbacks: What happens beside the optimiser.
    """

    # The loss below is the sum over a batch divided by the rows of all accumulated batches.
    loss_is_scaled_for_ga = True

    def __init__(self, job: Job, callbacks: list[TrainerCallback]) -> None:
        self.job = job
        self.stop = next(one for one in callbacks if isinstance(one, StopCleanly))
        self.folder = Path(str(job.prepared.arguments.output_dir))
        self.session_start = time.monotonic()
        self.seconds_before = 0.0
        super().__init__(
            model=job.trained, args=job.prepared.arguments, train_dataset=job.train,
            eval_dataset=job.validation, data_collator=job.train.collate,
            compute_metrics=_accuracy_and_loss, callbacks=callbacks,
        )  # fmt: skip
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes transformers count the rows of accumulated batches

    # ---- batches ----

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = train_dataset if isinstance(train_dataset, TokenRows) else self.job.train
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(rows.lengths, size, streams(self.job.options.seed)["order"])

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        rows = eval_dataset if isinstance(eval_dataset, TokenRows) else self.job.validation
        assert rows is not None
        return LongestFirst(rows.lengths)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return batches of the validation rows, collated by the rows themselves."""
        rows = eval_dataset if isinstance(eval_dataset, TokenRows) else self.job.validation
        assert rows is not None
        before = self.data_collator
        self.data_collator = rows.collate
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = before

    # ---- loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the cross entropy of a batch, as its share of the mean over all accumulated rows."""
        inputs = {name: value for name, value in inputs.items() if name != "positions"}
        labels = inputs.pop("labels")
        logits = model(**inputs).float()
        smoothing = self.job.prepared.label_smoothing
        total = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        loss = total / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        return (loss, logits) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return logits and labels of a batch; the loss is taken from them over all rows at once."""
        inputs = {name: value.to(self.args.device) for name, value in inputs.items() if name != "positions"}
        labels = inputs.pop("labels")
        with torch.no_grad():
            return None, model(**inputs).float(), labels

    # ---- checkpoints ----

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers trains a step too many when it continues what had reached max_steps inside an epoch
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.folder)
        options = self.job.options
        self.job.classifier.save(
            folder, {**options.record, "seed": options.seed, "steps": self.state.global_step}
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.folder
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        with disk_errors(checkpoint):
            super()._save_checkpoint(model, trial)
            notes = {
                "seconds": self.seconds(), "loss_sum": self._tr_loss.item(),
                "loss_total": self._total_loss_scalar, "last_logged": self._globalstep_last_logged,
            }  # fmt: skip
            seal(checkpoint, self.job.options.fingerprint, notes)
        rotate(folder, self.job.prepared.keep, self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self.job.classifier, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        restore(self.job.classifier, Path(self.state.best_model_checkpoint or ""))

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.stop.asked and self.state.global_step < self.state.max_steps:
            folder = self.folder
            if not any(step_of(one) == self.state.global_step for one in all_checkpoints(folder)):
                self._save_checkpoint(self.job.trained, None)
            raise Interrupted(
                f"Stopped by Ctrl-C after step {self.state.global_step} of {self.state.max_steps}; "
                "a checkpoint was saved.",
                hint="Run the same command again: it continues from there, with the same result.",
            )
        return super()._finalize_training(*args, **kwargs)

    def seconds(self) -> float:
        """Return the wall time of this session and those before it."""
        return round(self.seconds_before + time.monotonic() - self.session_start, 3)


class RestoreLoss(TrainerCallback):
    """Puts back the loss summed since the last logged event, so that the log continues exactly."""

    def __init__(self, notes: dict[str, Any], trainer: Callable[[], ClassifierTrainer]) -> None:
        self.notes, self.trainer = notes, trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the sums of transformers' Trainer."""
        trainer = self.trainer()
        trainer._tr_loss += self.notes["loss_sum"]
        trainer._total_loss_scalar = self.notes["loss_total"]
        trainer._globalstep_last_logged = self.notes["last_logged"]


def restore(classifier: Classifier, folder: Path) -> None:
    """Fill a classifier with the weights of a checkpoint folder of the same architecture, exactly."""
    saved = load(str(folder))
    classifier.model.load_state_dict(saved.model.state_dict(), strict=True)


def _accuracy_and_loss(prediction: EvalPrediction) -> dict[str, float]:
    logits = torch.as_tensor(np.asarray(prediction.predictions))
    labels = torch.as_tensor(np.asarray(prediction.label_ids))
    return {
        "loss": float(functional.cross_entropy(logits.double(), labels)),
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
    }
