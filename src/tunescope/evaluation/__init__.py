"""Predictions, and how good they are."""

from __future__ import annotations

from tunescope.evaluation.metrics import classification_metrics, confusion_matrix, margin
from tunescope.evaluation.predict import logits_of, predict, probabilities_of

__all__ = [
    "classification_metrics",
    "confusion_matrix",
    "logits_of",
    "margin",
    "predict",
    "probabilities_of",
]
