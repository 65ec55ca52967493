"""Mergeable statistics, intervals, tests and result tables."""

from __future__ import annotations

from tunescope.stats.cka import CKAMatrix
from tunescope.stats.clustered import wilson_clustered
from tunescope.stats.equivalence import Equivalence, equivalent_draws, equivalent_shares
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
from tunescope.stats.multiboot import MultiBootstrap, multi_bootstrap, seed_spread
from tunescope.stats.paired import Agreement, agreement, shared_bootstrap, tango
from tunescope.stats.power import Detectable, mcnemar_power, paired_detectable, unpaired_detectable
from tunescope.stats.results import (
    COLUMNS,
    VERDICTS,
    Finding,
    Result,
    load_findings,
    result_table,
    save_findings,
)
from tunescope.stats.scaled import scaled_interval
from tunescope.stats.states import Histogram, Mean, Moments
from tunescope.stats.tests import benjamini_hochberg, holm, mcnemar_exact, mcnemar_range, sign_flip_p

__all__ = [
    "COLUMNS",
    "VERDICTS",
    "Agreement",
    "BlockHSIC",
    "CKAMatrix",
    "Detectable",
    "Equivalence",
    "Estimate",
    "Finding",
    "Histogram",
    "Interval",
    "Intervals",
    "Mean",
    "Moments",
    "MultiBootstrap",
    "Result",
    "agreement",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_means",
    "cka",
    "equivalent_draws",
    "equivalent_shares",
    "holm",
    "hsic_biased",
    "hsic_unbiased",
    "jackknife",
    "load_findings",
    "mcnemar_exact",
    "mcnemar_power",
    "mcnemar_range",
    "multi_bootstrap",
    "paired_bootstrap",
    "paired_detectable",
    "percentile_interval",
    "result_table",
    "save_findings",
    "scaled_interval",
    "seed_spread",
    "shared_bootstrap",
    "sign_flip_p",
    "stratified_bootstrap",
    "tango",
    "unpaired_detectable",
    "wilson",
    "wilson_clustered",
]
