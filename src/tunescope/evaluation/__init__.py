"""Predictions, and how good they are."""

from __future__ import annotations

from tunescope.evaluation.calibration import Binning, expected_calibration_error, reliability_curve
from tunescope.evaluation.comparison import ComparisonOptions, compare_arms, compare_published
from tunescope.evaluation.fairness import fairness_metrics
from tunescope.evaluation.metrics import (
    MetricOptions,
    classification_metrics,
    confusion_matrix,
    margin,
    measure,
    metrics_from_confusion,
)
from tunescope.evaluation.predict import logits_of, predict, probabilities_of
from tunescope.evaluation.prior import PriorEstimate, correct_prior, estimate_prior
from tunescope.evaluation.prior_shift import PriorRows, effective_prior, prior_shift
from tunescope.evaluation.slices import (
    SliceOptions,
    length_bins,
    measure_slices,
    slice_metrics,
    standard_columns,
)
from tunescope.evaluation.thresholds import Scored, Threshold, best_threshold, tune_thresholds

__all__ = [
    "Binning",
    "ComparisonOptions",
    "MetricOptions",
    "PriorEstimate",
    "PriorRows",
    "Scored",
    "SliceOptions",
    "Threshold",
    "best_threshold",
    "classification_metrics",
    "compare_arms",
    "compare_published",
    "confusion_matrix",
    "correct_prior",
    "effective_prior",
    "estimate_prior",
    "expected_calibration_error",
    "fairness_metrics",
    "length_bins",
    "logits_of",
    "margin",
    "measure",
    "measure_slices",
    "metrics_from_confusion",
    "predict",
    "prior_shift",
    "probabilities_of",
    "reliability_curve",
    "slice_metrics",
    "standard_columns",
    "tune_thresholds",
]
