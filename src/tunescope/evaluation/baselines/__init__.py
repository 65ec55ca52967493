"""Baselines for every table: what a model must beat before its number means anything."""

from __future__ import annotations

from tunescope.evaluation.baselines.crossvalidation import cross_validate
from tunescope.evaluation.baselines.table import Baseline, cheap, lookup, majority, probe, tfidf

__all__ = ["Baseline", "cheap", "cross_validate", "lookup", "majority", "probe", "tfidf"]
