"""A thin subclass of transformers' Trainer: our model, our batches, checkpoints that continue exactly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback

from tunescope.data.sampler import BalancedSampler, LengthGroupedSampler
from tunescope.errors import Interrupted
from tunescope.folders import disk_errors
from tunescope.models.packed import packed_attention
from tunescope.training.callbacks import StepStream, StopCleanly
from tunescope.training.checkpoints import (
    all_checkpoints,
    keep_only_best,
    restore,
    restore_best,
    rotate,
    save_best,
    save_state,
    seal,
    step_of,
)  # fmt: skip
from tunescope.training.job import Job, choices
from tunescope.training.meter import Meter
from tunescope.training.microbatches import MicroBatches
from tunescope.training.options import streams
from tunescope.training.rows import LongestFirst, TokenRows
from tunescope.training.stopping import EarlyStopping, validation_metrics


class ClassifierTrainer(Trainer):
    """Trains a :class:`Classifier` by the cross entropy of its logits.

    Batches hold rows of about equal length, in an order that is a function of (seed, epoch). Checkpoints are
    model folders that transformers opens, with checksums; continuing from one gives the same weights exactly.

    Args:
        job: What to train on.
        callbacks: What happens beside the optimiser.
    """

    # The loss below is the sum over a batch divided by the weight of the rows of all accumulated batches.
    loss_is_scaled_for_ga = True

    def __init__(self, job: Job, callbacks: list[TrainerCallback]) -> None:
        self.job = job
        self.stop = next(one for one in callbacks if isinstance(one, StopCleanly))
        self.stopping = next((one for one in callbacks if isinstance(one, EarlyStopping)), None)
        stream = next(one for one in callbacks if isinstance(one, StepStream))
        self.folder = Path(str(job.prepared.arguments.output_dir))
        self.session_start = time.monotonic()
        self.seconds_before = 0.0
        self.meter = Meter(job.prepared.arguments.device)
        self.micro = MicroBatches(job.train, job.loss, job.variance, stream, job.classifier.head)
        super().__init__(
            model=job.trained, args=job.prepared.arguments, train_dataset=job.train,
            eval_dataset=job.validation, data_collator=job.train.collate,
            compute_metrics=validation_metrics, callbacks=callbacks,
        )  # fmt: skip
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes transformers count the rows of accumulated batches

    # ---- batches ----

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        rows = train_dataset if isinstance(train_dataset, TokenRows) else self.job.train
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        seed = streams(self.job.options.seed)["order"]
        if self.job.prepared.fitting.sampling == "balanced":
            return BalancedSampler(rows.tokens.labels, rows.lengths, size, seed)
        padded = self.job.classifier.pooling == "last_padded"  # as published: rows of any length in one batch
        return LengthGroupedSampler(np.ones_like(rows.lengths) if padded else rows.lengths, size, seed)

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

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        # the batches of one step are known here, before the first of them is computed
        self.meter.step_begins()
        return self.micro.begin(batch_samples)

    # ---- loss ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute loss and gradients of one micro-batch, in smaller parts where memory runs out.

        Raises:
            RunError: The loss is not a number, or memory does not suffice for a single row.
        """

        def one(part: dict[str, torch.Tensor]) -> torch.Tensor:
            # the class is named because a nested function has no bare super()
            return super(ClassifierTrainer, self).training_step(model, part, num_items_in_batch)

        # activations that are computed again in the backward pass need the attention of the forward pass
        unpadded = "lengths" in inputs and self.job.prepared.recompute
        with packed_attention(self.job.classifier.model) if unpadded else contextlib.nullcontext():
            loss = self.micro.step(model, inputs, one)
        self.micro.refuse_not_finite(model, loss, inputs, self.state.global_step + 1)
        self.meter.count(inputs)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the cross entropy of a batch, as its share of the weighted mean over all rows of the step."""
        labels = inputs["labels"]
        logits, pooled = self.micro.forward(model, inputs)
        mass = self.job.loss.mass(labels) if num_items_in_batch is None else num_items_in_batch
        loss = self.job.loss.total(logits, labels) / mass
        if self.job.variance is not None:
            loss = loss + self.job.variance.part(pooled, self.micro.moments(model, pooled))
        self.meter.memory.sample()  # the activations of this micro-batch are all held now
        return (loss, logits) if return_outputs else loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        # A fused optimiser divides gradients while it reads them, which spares a pass over all of them.
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        if self.accelerator.scaler is not None or not optimizer.defaults.get("fused"):
            return super()._clip_grad_norm(model)
        norm = get_total_norm([one.grad for one in model.parameters() if one.grad is not None])
        factor = (norm + 1e-6) / self.args.max_grad_norm  # as in torch.nn.utils.clip_grads_with_norm_
        optimizer.grad_scale = factor if float(factor) > 1.0 else None
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None:  # fp16 skips such a step itself and scales the loss down
            self.micro.refuse_gradient(norm, self.state.global_step + 1)
        return norm

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return logits and labels of a batch; the loss is taken from them over all rows at once."""
        assert self.job.validation is not None
        logits = self.micro.predict(model, inputs, self.job.validation, self.args.device)
        return None, logits, inputs["labels"].to(self.args.device)

    # ---- checkpoints ----

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.meter.step_ends()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers trains a step too many when it continues what had reached max_steps inside an epoch
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        save_state(self.job.classifier, Path(output_dir or self.folder), self._record())

    def _record(self) -> dict[str, Any]:
        options = self.job.options
        return {**options.record, "seed": options.seed, "steps": self.state.global_step}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.folder
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        with disk_errors(checkpoint):
            super()._save_checkpoint(model, trial)
            notes = {
                "seconds": self.seconds(), "loss_sum": self._tr_loss.item(),
                "loss_total": self._total_loss_scalar, "last_logged": self._globalstep_last_logged,
                "meter": self.meter.notes(), "parts": self.micro.parts,
                "dimensions": None if self.job.variance is None else self.job.variance.dimensions.tolist(),
                "stopping": None if self.stopping is None else self.stopping.notes(),
                "best": self.state.best_global_step if self.job.prepared.keeps_best else None,
            }  # fmt: skip
            seal(checkpoint, self.job.options.fingerprint, {**notes, "identity": self.job.identity})
        rotate(folder, self.job.prepared.keep)
        keep_only_best(folder, self.state.best_global_step)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = bool(super()._determine_best_metric(metrics, trial))
        if is_best and self.job.prepared.keeps_best:
            self.state.best_global_step = self.state.global_step
            save_best(self.job.classifier, self.folder, self.state.global_step, self._record())
        return is_best

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        restore(self.job.classifier, Path(resume_from_checkpoint))

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.stop.asked and self.state.global_step < self.state.max_steps:
            folder = self.folder
            if not any(step_of(one) == self.state.global_step for one in all_checkpoints(folder)):
                self._save_checkpoint(self.job.trained, None)
            raise Interrupted(
                f"Stopped by {self.stop.by} after step {self.state.global_step} of {self.state.max_steps}; "
                "a checkpoint was saved.",
                hint="Run the same command again: it continues from there, with the same result.",
            )
        result = super()._finalize_training(*args, **kwargs)
        if self.job.prepared.keeps_best and self.state.best_global_step:
            restore_best(self.job.classifier, self.folder, self.state.best_global_step)
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an event; trackers also get the throughput and the memory of the moment."""
        super().log({**logs, **self.meter.moment()}, start_time)

    def choices(self) -> dict[str, Any]:
        """Return what was worked out from the rows and the machine before training."""
        return choices(self.job)

    def seconds(self) -> float:
        """Return the wall time of this session and those before it."""
        return round(self.seconds_before + time.monotonic() - self.session_start, 3)

    def remember(self, notes: dict[str, Any]) -> None:
        """Take up what a checkpoint remembers beside the state of transformers' Trainer."""
        self.seconds_before = float(notes["seconds"])
        self.meter.remember(notes["meter"], self.seconds_before)
        self.micro.parts = int(notes["parts"])
        if self.stopping is not None:
            self.stopping.remember(notes["stopping"])


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
