"""Mergeable statistics, intervals, tests and result tables."""

from __future__ import annotations

from tunescope.stats.cka import CKAMatrix
from tunescope.stats.hsic import BlockHSIC
from tunescope.stats.intervals import (
    Interval,
    Intervals,
    bootstrap_mean,
    bootstrap_means,
    jackknife,
    paired_bootstrap,
    percentile_interval,
    stratified_bootstrap,
    wilson,
)
from tunescope.stats.kernels import Estimate, cka, hsic_biased, hsic_unbiased
from tunescope.stats.results import (
    COLUMNS,
    VERDICTS,
    Finding,
    Result,
    load_findings,
    result_table,
    save_findings,
)
from tunescope.stats.states import Histogram, Mean, Moments
from tunescope.stats.tests import benjamini_hochberg, mcnemar_exact, sign_flip_p

__all__ = [
    "COLUMNS",
    "VERDICTS",
    "BlockHSIC",
    "CKAMatrix",
    "Estimate",
    "Finding",
    "Histogram",
    "Interval",
    "Intervals",
    "Mean",
    "Moments",
    "Result",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_means",
    "cka",
    "hsic_biased",
    "hsic_unbiased",
    "jackknife",
    "load_findings",
    "mcnemar_exact",
    "paired_bootstrap",
    "percentile_interval",
    "result_table",
    "save_findings",
    "sign_flip_p",
    "stratified_bootstrap",
    "wilson",
]
