"""The interval of several trainings of which only their own intervals are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tunescope.report.figures.select import over_seeds
from tunescope.stats.multiboot import few_seeds_note, metric_ends, multi_bootstrap, of_trainings


def test_it_is_students_t_of_the_seeds_and_the_rows_by_hand():
    found = of_trainings([(0.90, 0.88, 0.93), (0.86, 0.84, 0.87)])
    spread = stats.t.ppf(0.975, 1) * 0.04 / np.sqrt(2) / np.sqrt(2)
    assert found.value == pytest.approx(0.88)
    assert found.low == pytest.approx(0.88 - np.hypot(0.02, spread))
    assert found.high == pytest.approx(0.88 + np.hypot(0.02, spread))
    assert "2 seeds tell little" in found.note
    same = of_trainings([(0.5, 0.4, 0.7)] * 5)
    assert (same.low, same.high, same.note) == (pytest.approx(0.4), pytest.approx(0.7), None)
    with pytest.raises(ValueError, match="of 2 or more trainings"):
        of_trainings([(0.5, 0.4, 0.6)])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_is_hardly_ever_narrower_than_the_bootstrap_of_seeds_and_rows_and_holds_the_truth(seeds):
    held, ratios = [], []
    for repetition in range(150):
        generator = np.random.default_rng([3, seeds, repetition])
        rows = 200
        hard = generator.normal(0, 0.3, rows)  # rows that are hard for every training
        right = np.array([
            generator.normal(0.7, 0.02) + hard + generator.normal(0, 0.3, rows) for _ in range(seeds)
        ])  # fmt: skip
        weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=400).T / rows
        drawn, value = right @ weights, right.mean(axis=1)
        own = np.quantile(drawn, [0.025, 0.975], axis=1)
        found = of_trainings(list(zip(value, own[0], own[1], strict=True)))
        known = multi_bootstrap(value, drawn, rows, seed=repetition).interval
        ratios.append((found.high - found.low) / (known.high - known.low))
        held.append(found.low <= 0.7 <= found.high)
    assert np.mean(held) >= 0.93
    assert np.mean(ratios) >= 0.97  # the bootstrap draws its t, so that single ones scatter


def test_records_of_a_report_are_cut_where_the_metric_ends():
    records = [
        {"value": 0.98, "low": 0.95, "high": 1.0, "n": 40},
        {"value": 0.9, "low": 0.85, "high": 0.95, "n": 40},
    ]
    found = over_seeds(records, "f1_macro")
    assert (found.value, found.high, found.n) == (pytest.approx(0.94), 1.0, 40)
    assert found.low < 0.85
    assert over_seeds(records).high > 1.0
    assert over_seeds(records[:1], "f1_macro").low == 0.95
    bare = over_seeds([{"value": 0.9}, {"value": 0.8, "low": 0.7, "high": 0.9}])
    assert (bare.value, bare.low, bare.high) == (pytest.approx(0.85), 0.7, 0.9)
    assert metric_ends("matthews_corrcoef") == (-1.0, 1.0)
    assert metric_ends("log_loss") == (0.0, float("inf"))
    assert few_seeds_note(5) is None
