"""Internal curves against the validation metric: scipy's number, a common trend that goes, a log without the metric."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from tunescope.errors import RunError
from tunescope.stats.results import result_table
from tunescope.watch import Watched
from tunescope.watch.correlation import correlations


def watched(curve, loss, steps=None):
    steps = list(range(len(curve))) if steps is None else steps
    table = result_table([
        {"step": step, "lens": "attention", "metric": "entropy", "model": "tuned", "site": "attn_pattern",
         "layer": layer, "head": head, "value": value * (1 if layer else 0) + head}
        for step, value in zip(steps, curve, strict=True) for layer in (0, 1) for head in (0, 1)
    ])  # fmt: skip
    log = [{"step": step, "eval_loss": value} for step, value in zip(steps, loss, strict=True)]
    return Watched(table, [*log, {"step": 1, "loss": 2.0}], {})


def test_the_number_is_scipys_and_curves_that_do_not_move_are_left_out():
    generator = np.random.default_rng(0)
    curve, loss = generator.normal(size=12), generator.normal(size=12)
    found = correlations(watched(curve, loss))
    assert found["layer"].unique().to_list() == [1]  # layer 0 stays where it is
    levels = found.filter(of="levels").row(0, named=True)
    assert levels["value"] == pytest.approx(spearmanr(curve, loss).statistic)
    assert levels["low"] < levels["value"] < levels["high"]
    assert levels["n"] == 12
    changes = found.filter(of="changes").row(0, named=True)
    assert changes["value"] == pytest.approx(spearmanr(np.diff(curve), np.diff(loss)).statistic)


def test_a_common_trend_correlates_in_levels_alone():
    generator = np.random.default_rng(3)
    trend = np.arange(40.0)
    curve, loss = trend + generator.normal(size=40), -trend + generator.normal(size=40)
    found = {row["of"]: row for row in correlations(watched(curve, loss)).iter_rows(named=True)}
    assert found["levels"]["high"] < -0.9
    assert found["changes"]["low"] < 0 < found["changes"]["high"]


def test_a_metric_that_was_not_logged_is_refused_by_name():
    with pytest.raises(RunError, match=r"eval_f1 was logged at 0 of the steps .* holds eval_loss, loss"):
        correlations(watched(np.arange(8.0), np.arange(8.0)), "eval_f1")
    few = watched(np.arange(5.0), np.arange(5.0))
    assert few.table.height == 20
    with pytest.raises(RunError, match="logged at 5 of the steps"):
        correlations(few)
    assert isinstance(few.table, pl.DataFrame)
