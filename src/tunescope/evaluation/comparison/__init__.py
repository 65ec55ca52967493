"""Comparison of arms: what can be said about which is better, and what cannot."""

from __future__ import annotations

from tunescope.evaluation.comparison.arms import ComparisonOptions, compare_arms
from tunescope.evaluation.comparison.inputs import METRICS, Run
from tunescope.evaluation.comparison.published import compare_published

__all__ = ["METRICS", "ComparisonOptions", "Run", "compare_arms", "compare_published"]
