"""Intervals: against scipy and closed forms, and by simulation of their coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tunescope.errors import LensError
from tunescope.stats import (
    bootstrap_mean,
    bootstrap_means,
    jackknife,
    paired_bootstrap,
    percentile_interval,
    stratified_bootstrap,
    wilson,
)


def ends(interval):
    return interval.low, interval.high


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (3, 30), (917, 1000), (1, 25_000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(k, n, level):
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    interval = wilson(k, n, level)
    assert ends(interval) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.value == k / n
    assert (interval.low == 0.0) == (k == 0)
    assert (interval.high == 1.0) == (k == n)


def test_wilson_without_rows_is_undefined_in_words():
    interval = wilson(0, 0)
    assert (interval.value, interval.low, interval.high, interval.n) == (None, None, None, 0)
    assert interval.note == "undefined: no rows"
    with pytest.raises(ValueError, match="0 to 3 successes, found 4"):
        wilson(4, 3)


def wilson_coverage(n, share, repeats):
    hits = np.random.default_rng(n).binomial(n, share, repeats)
    intervals = {k: wilson(int(k), n) for k in np.unique(hits).tolist()}
    return np.mean([intervals[k].low <= share <= intervals[k].high for k in hits.tolist()])


def test_wilson_covers_small_shares_where_the_textbook_interval_does_not():
    n, share = 40, 0.03
    hits = np.random.default_rng(0).binomial(n, share, 4000) / n
    half = 1.96 * np.sqrt(hits * (1 - hits) / n)
    textbook = np.mean(np.abs(hits - share) <= half)
    assert textbook < 0.75
    assert wilson_coverage(n, share, 4000) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 50, 500, 5000])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.93])
def test_wilson_covers(n, share):
    assert 0.91 <= wilson_coverage(n, share, 100_000) <= 0.992


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("n", [12, 200])
def test_the_bootstrap_of_a_mean_is_scipys(method, n):
    values = np.random.default_rng(n).exponential(2.0, n)
    ours = bootstrap_mean(values, method=method, resamples=100_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method=method.replace("bca", "BCa"), n_resamples=100_000, rng=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ends(ours) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
    assert ours.value == pytest.approx(values.mean())
    assert ours.n == n
    assert method in ours.method


def test_bca_leans_to_the_long_tail():
    values = np.random.default_rng(0).exponential(2.0, 30)
    percentile, bca = (bootstrap_mean(values, method=m, resamples=5000) for m in ("percentile", "bca"))
    assert bca.low > percentile.low
    assert bca.high > percentile.high


def test_columns_share_their_resamples_and_equal_single_columns():
    table = np.random.default_rng(0).normal(size=(50, 3))
    table = np.c_[table, table[:, 0]]
    many = bootstrap_means(torch.tensor(table), seed=4)
    assert len(many) == 4
    assert ends(many[0]) == ends(many[3])
    for column, interval in enumerate(many):
        single = bootstrap_mean(table[:, column], seed=4)
        assert ends(interval) == pytest.approx(ends(single), rel=1e-12)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_chunks_of_resamples_are_all_filled():
    from tunescope.stats import intervals

    values = np.random.default_rng(0).normal(size=intervals.CHUNK // 300)  # 300 resamples at once
    interval = bootstrap_mean(values, resamples=700)
    error = values.std() / np.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_clusters_are_resampled_whole():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    values = generator.normal(size=40)[groups] + 0.1 * generator.normal(size=1000)
    naive, clustered = bootstrap_mean(values), bootstrap_mean(values, groups)
    assert naive.value == clustered.value == pytest.approx(values.mean())
    width, narrow = clustered.high - clustered.low, naive.high - naive.low
    assert width == pytest.approx(5 * narrow, rel=0.15)  # sqrt(25) rows a cluster
    assert clustered.n == 1000
    assert "of 40 groups" in clustered.method


def test_clusters_may_have_names_and_any_size_and_rows_in_any_order():
    generator = np.random.default_rng(0)
    groups = np.array([*["a"] * 60, *["bb"] * 40, "c", *map(str, generator.integers(0, 20, 199))])
    values = generator.normal(5.0, 1.0, 300)
    values[groups == "a"] += 2
    order = generator.permutation(300)
    first, second = bootstrap_mean(values, groups), bootstrap_mean(values[order], groups[order].tolist())
    assert ends(first) == pytest.approx(ends(second), rel=1e-12)
    alone = bootstrap_mean(values, np.arange(300))
    assert ends(alone) == pytest.approx(ends(bootstrap_mean(values)), rel=1e-12)
    # The mean of unequal clusters is that of rows: an independent resampling, cluster by cluster.
    names = np.unique(groups)
    draws = []
    for _ in range(4000):
        drawn = np.concatenate([values[groups == g] for g in generator.choice(names, len(names))])
        draws.append(drawn.mean())
    expected = np.quantile(draws, [0.025, 0.975])
    assert ends(first) == pytest.approx(tuple(expected), abs=0.08 * np.ptp(expected))


def test_too_little_is_undefined_in_words_and_equal_values_are_noted():
    none = bootstrap_mean([])
    assert (none.value, none.low, none.n, none.note) == (None, None, 0, "undefined: no rows")
    one = bootstrap_mean([3.0])
    assert (one.value, one.low, one.high) == (3.0, None, None)
    assert one.note == "undefined interval: it needs at least 2 rows"
    group = bootstrap_mean([3.0, 4.0], ["a", "a"])
    assert (group.value, group.low) == (3.5, None)
    assert group.note == "undefined interval: it needs at least 2 groups"
    equal = bootstrap_mean([0.1] * 30)
    assert (equal.value, equal.low, equal.high) == (0.1, 0.1, 0.1)
    assert "zero width: all values are equal" in equal.note
    assert bootstrap_mean([0.1] * 30, method="bca").high == 0.1
    assert bootstrap_mean([1.0, 2.0, 3.0]).note == "only 3 rows: the interval is likely too narrow"
    assert bootstrap_mean(np.arange(30.0)).note is None
    with pytest.raises(LensError, match="1 of 3 values are NaN"):
        bootstrap_mean([1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match="percentile or bca, found 'basic'"):
        bootstrap_mean([1.0], method="basic")
    with pytest.raises(ValueError, match=r"one group for each of 3 rows, found \(2,\)"):
        bootstrap_mean([1.0, 2.0, 3.0], [0, 1])


def test_paired_differences_are_narrower_than_two_samples():
    generator = np.random.default_rng(0)
    before = generator.normal(0, 5, 200)
    after = before + 0.3 + 0.1 * generator.normal(size=200)
    interval = paired_bootstrap(before, after)
    assert interval == bootstrap_mean(after - before)
    assert 0.27 < interval.low < 0.3 < interval.high < 0.33
    with pytest.raises(ValueError, match="equal shapes"):
        paired_bootstrap(before, after[1:])


def accuracy(labels, predictions):
    return float((labels == predictions).mean())


def test_the_stratified_bootstrap_keeps_classes_and_finds_the_binomial_spread():
    generator = np.random.default_rng(0)
    labels = np.r_[np.zeros(300, int), np.ones(100, int), 2]
    predictions = np.where(generator.random(401) < 0.8, labels, (labels + 1) % 3)
    seen = []

    def metric(y, p):
        seen.append(np.bincount(y, minlength=3).tolist())
        return accuracy(y, p)

    interval = stratified_bootstrap(metric, (labels, predictions), labels, resamples=1500)
    assert all(counts == [300, 100, 1] for counts in seen)
    assert len(seen) == 1501
    assert interval.value == accuracy(labels, predictions)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 401), rel=0.12)
    again = stratified_bootstrap(accuracy, (labels, predictions), labels, resamples=1500)
    assert again == interval


def test_the_stratified_bootstrap_says_what_is_undefined():
    assert stratified_bootstrap(accuracy, ([], []), []).note == "undefined: no rows"
    assert stratified_bootstrap(accuracy, ([1], [1]), [1]).low is None
    never = stratified_bootstrap(lambda y: float("nan"), ([1, 2],), [0, 0])
    assert (never.value, never.note) == (None, "undefined for these rows")
    values = np.arange(8)
    seldom = stratified_bootstrap(lambda x: float(x.mean()) if 7 in x else np.nan, (values,), np.zeros(8))
    assert "resamples, which were left out" in seldom.note
    assert seldom.low < seldom.value < seldom.high
    with pytest.raises(ValueError, match="expected 2 rows in every array, found"):
        stratified_bootstrap(accuracy, ([1], [1, 2]), [0, 0])


def test_percentiles_of_equal_draws_are_noted_and_mostly_undefined_draws_refused():
    assert "all resamples are equal" in percentile_interval(1.0, np.ones(100), 5, "m").note
    mostly = percentile_interval(1.0, np.r_[np.full(60, np.nan), np.arange(40.0)], 5, "m")
    assert (mostly.low, mostly.high) == (None, None)
    assert mostly.note == "undefined interval: the metric was undefined in 60 of 100 resamples"


def test_the_jackknife_of_a_mean_is_students_t():
    values = np.random.default_rng(0).normal(size=20)
    without = (values.sum() - values) / 19
    low, high = jackknife(values.mean(), without, np.ones(20))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    with pytest.raises(ValueError, match="at least 2 groups, found 1"):
        jackknife(values.mean(), without[:1], np.ones(1))


def test_the_jackknife_of_unequal_groups_finds_the_spread():
    sizes = np.random.default_rng(1).integers(2, 40, 60)
    groups = np.repeat(np.arange(60), sizes)
    n = len(groups)
    widths = []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=n)
        sums = np.bincount(groups, values)
        low, high = jackknife(values.mean(), (values.sum() - sums) / (n - sizes), sizes)
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(2 * stats.t.ppf(0.975, 59) / np.sqrt(n), rel=0.05)


def bootstrap_coverage(n, repeats, draw, truth, **options):
    hits = 0
    for seed in range(repeats):
        values, groups = draw(np.random.default_rng(seed), n)
        interval = bootstrap_mean(values, groups, resamples=600, seed=seed, **options)
        hits += interval.low <= truth <= interval.high
    return hits / repeats


def normal(generator, n):
    return generator.normal(1.0, 2.0, n), None


def skewed(generator, n):
    return generator.exponential(1.0, n), None


def clustered(generator, n):
    groups = generator.integers(0, n // 5, n)
    return 1 + generator.normal(size=n)[groups] + generator.normal(size=n), groups


@pytest.mark.parametrize("draw", [normal, skewed, clustered])
def test_bootstrap_intervals_cover(draw):
    assert 0.90 <= bootstrap_coverage(150, 300, draw, 1.0) <= 0.985


def test_ignoring_clusters_does_not_cover():
    assert bootstrap_coverage(150, 200, lambda g, n: (clustered(g, n)[0], None), 1.0) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("draw", [normal, skewed, clustered])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_intervals_cover_in_many_draws(draw, method):
    assert 0.93 <= bootstrap_coverage(400, 2500, draw, 1.0, method=method) <= 0.965
