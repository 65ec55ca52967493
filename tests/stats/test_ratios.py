"""Ratios of sums: against a loop over resamples, where they are undefined, and coverage on a known ratio."""

from __future__ import annotations

import numpy as np
import pytest

from tunescope.errors import LensError
from tunescope.stats.ratios import bootstrap_ratio_differences, bootstrap_ratios


def test_it_is_the_percentile_interval_of_resampled_groups():
    generator = np.random.default_rng(0)
    below = generator.uniform(1, 3, 40)
    above = np.column_stack([0.4 * below + generator.normal(0, 0.2, 40), below])
    groups = np.arange(40) // 2
    found = bootstrap_ratios(above, below, groups, resamples=4000, seed=1)
    assert found.value == pytest.approx(above.sum(0) / below.sum())
    draws = []
    for _ in range(4000):
        picked = np.concatenate([np.flatnonzero(groups == g) for g in generator.integers(0, 20, 20)])
        draws.append(above[picked, 0].sum() / below[picked].sum())
    assert found.low[0] == pytest.approx(np.quantile(draws, 0.025), abs=0.01)
    assert found.high[0] == pytest.approx(np.quantile(draws, 0.975), abs=0.01)
    assert (found.low[1], found.high[1]) == (1, 1)
    assert "all values are equal" in found.notes[1]


def test_a_difference_of_two_ratios_is_paired():
    generator = np.random.default_rng(2)
    below = generator.uniform(1, 3, (60, 2))
    noise = generator.normal(0, 0.3, 60)  # shared by both ratios, so it cancels
    above = [0.7 * below[:, 0] + noise * below[:, 0], 0.4 * below[:, 0] + noise * below[:, 0]]
    first, second = ((own[:, None], below[:, 0]) for own in above)
    groups = np.arange(60) // 2
    found = bootstrap_ratio_differences(first, second, groups, seed=1)
    assert found.value == pytest.approx(0.3)
    assert (found.low[0], found.high[0]) == pytest.approx((0.3, 0.3))
    single = bootstrap_ratios(*first, groups, seed=1)
    assert single.high[0] - single.low[0] > 0.05  # unpaired it would be this wide at least
    other = (above[1][:, None], below[:, 1])
    found = bootstrap_ratio_differences(first, other, groups, resamples=4000, seed=1)
    draws = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in generator.integers(0, 30, 30)])
        draws.append(
            above[0][rows].sum() / below[rows, 0].sum() - above[1][rows].sum() / below[rows, 1].sum()
        )
    assert (found.low[0], found.high[0]) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    zero = bootstrap_ratio_differences(first, (np.ones((60, 1)), np.zeros(60)), groups)[0]
    assert (zero.value, zero.low) == (None, None)
    assert "denominators sum to 0" in zero.note


def test_what_is_undefined_is_said():
    zero = bootstrap_ratios(np.ones((12, 1)), np.zeros(12))[0]
    assert (zero.value, zero.low) == (None, None)
    assert "denominators sum to 0" in zero.note
    unsure = bootstrap_ratios(np.ones((12, 1)), np.array([1.0, -1.0] * 5 + [1.0, 0.0]))[0]
    assert unsure.value == pytest.approx(12)
    assert unsure.low is None
    assert "not clear of 0" in unsure.note
    assert bootstrap_ratios(np.ones((0, 2)), np.ones(0))[1].value is None
    assert "2 groups" in bootstrap_ratios(np.ones((3, 1)), np.ones(3), np.zeros(3))[0].note
    with pytest.raises(LensError, match="1 numbers are NaN"):
        bootstrap_ratios(np.array([[np.nan], [1.0]]), np.ones(2))


def test_the_interval_covers_the_true_ratio():
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        below = generator.normal(1, 0.6, 80)
        above = 0.3 * below + generator.normal(0, 0.5, 80)
        found = bootstrap_ratios(above[:, None], below, resamples=400, seed=trial)[0]
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 300 <= 0.98
