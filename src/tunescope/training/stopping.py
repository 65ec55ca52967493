"""What is measured on validation rows while training, and ending when it gets no better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunescope.config.fitting import VALIDATION_METRICS, EarlyStoppingConfig


def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return the metrics of :data:`tunescope.config.fitting.VALIDATION_METRICS` of all validation rows.

    ``loss`` is the plain mean cross entropy, without weights, smoothing or adjustment, so that arms that were
    trained with different losses are compared by one. Averages over classes run over those that occur among the
    labels; ``mcc`` is 0 where it is undefined, as in scikit-learn.
    """
    logits = torch.as_tensor(np.asarray(prediction.predictions))
    labels = torch.as_tensor(np.asarray(prediction.label_ids))
    loss = float(functional.cross_entropy(logits.double(), labels))
    return {"loss": loss, **confusion_metrics(_confusion(logits, labels))}


def _confusion(logits: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    n = logits.shape[1]
    return torch.bincount(labels * n + logits.argmax(1), minlength=n * n).reshape(n, n).cpu().numpy()


def confusion_metrics(counts: np.ndarray) -> dict[str, float]:
    """Return accuracy, f1_macro, balanced_accuracy and mcc of a confusion matrix [true, predicted]."""
    counts = counts.astype(np.float64)
    hits, true, predicted = np.diagonal(counts), counts.sum(1), counts.sum(0)
    n, there = counts.sum(), true > 0
    top = hits.sum() * n - (true * predicted).sum()
    bottom = math.sqrt((n**2 - (predicted**2).sum()) * (n**2 - (true**2).sum()))
    return {
        "accuracy": float(hits.sum() / n),
        "f1_macro": float((2 * hits[there] / (true + predicted)[there]).mean()),
        "balanced_accuracy": float((hits[there] / true[there]).mean()),
        "mcc": float(top / bottom) if bottom > 0 else 0.0,
    }


class EarlyStopping(TrainerCallback):
    """Ends a training when its metric has not got better for a number of evaluations.

    Args:
        config: Metric, patience and least change.
    """

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self.config = config
        self.best: float | None = None
        self.waited = 0

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return self.waited >= self.config.patience

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"best": self.best, "waited": self.waited}

    def remember(self, notes: dict[str, Any]) -> None:
        """Take up what a checkpoint remembers."""
        self.best, self.waited = notes["best"], notes["waited"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """End at once what had run out of patience before it was interrupted."""
        if self.stopped:
            control.should_training_stop = True
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Compare with the best value so far; what was measured before the first step does not count."""
        if state.global_step == 0:
            return control
        value = float(kwargs["metrics"][f"eval_{self.config.metric}"])
        sign = 1.0 if VALIDATION_METRICS[self.config.metric] else -1.0
        if self.best is None or sign * (value - self.best) > self.config.least_change:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if self.stopped:
            control.should_training_stop = True
        return control
