"""Coverage: the published table is that of the package, a quick simulation agrees, and warnings follow it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from tunescope.evaluation import classification_metrics, metrics_from_confusion
from tunescope.evaluation.coverage import Cell, Coverage, coverage_table, with_trust
from tunescope.stats import Interval, wilson
from tunescope.stats.clustered import wilson_clustered

PROJECT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location(
        "coverage_bench", PROJECT / "benchmarks" / "interval_coverage.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_bench"] = module
    spec.loader.exec_module(module)
    return module


def test_a_quick_simulation_covers(bench):
    bench.POPULATION = 60_000
    population = bench.Population((0.5, 0.5), 1.0)
    cells = bench.of_metrics(population, 200, "rows", 120, 1)
    cells += bench.of_differences(200, 0.1, 0.1, 400, 2)
    for n, share in ((100, 0.5), (872, 0.8), (872, 0.93)):
        cells += bench.of_shares(n, share, 4000, 3)
    assert len({cell.metric for cell in cells}) > 12
    for cell in cells:
        if cell.metric != "expected_calibration_error":
            assert 0.88 <= cell.coverage <= 0.995, cell


def test_ignoring_groups_does_not_cover_and_the_robust_interval_does(bench):
    bench.POPULATION = 60_000
    population = bench.Population((0.5, 0.5), 1.0, 1.0, 1.0)
    found = {
        cell.interval: cell
        for cell in bench.of_groups(population, 200, 5, 120, 1)
        if cell.metric == "proportion"
    }
    assert found["wilson, groups ignored"].coverage < found["wilson, cluster-robust"].coverage
    assert found["wilson, cluster-robust"].coverage >= 0.88


def test_the_simulated_coverage_of_a_share_is_the_exact_one(bench):
    for n, share in ((10, 0.98), (100, 0.93), (872, 0.5)):
        (cell,) = bench.of_shares(n, share, 40_000, 0)
        assert cell.coverage == pytest.approx(bench.exact_wilson(n, share), abs=0.006)


def test_the_table_in_the_docs_is_the_one_that_ships(bench):
    table = coverage_table()
    assert (table.low, table.high) == (0.93, 0.97)
    content = json.loads((PROJECT / "src/tunescope/evaluation/coverage.json").read_text(encoding="utf-8"))
    assert content["repetitions"] >= 2000
    page = (PROJECT / "docs" / "coverage.md").read_text(encoding="utf-8")
    for metric, cells in table.cells.items():
        assert f"## {metric}\n" in page
        section = page.split(f"## {metric}\n")[1].split("\n## ")[0]
        for cell in cells:
            shown = bench.share_of(cell.coverage)
            shown = shown if table.low <= cell.coverage <= table.high else f"**{shown}**"
            assert f"| {cell.n} |" in section
            assert f"| {cell.value:.3f} | {shown} |" in section, (metric, cell)


def test_the_named_grid_covers_as_it_says():
    table = coverage_table()
    places = {(cell.n, cell.value): cell.coverage for cell in table.cells["proportion"]}
    for n in (100, 872):
        for share in (0.5, 0.8, 0.93):
            assert 0.93 <= places[n, share] <= 0.975  # n = 100, p = .93 is 97.2 % in closed form
    for metric in ("f1", "roc_auc_ovr", "average_precision", "balanced_accuracy", "matthews_corrcoef"):
        for cell in table.cells[metric]:
            if cell.n >= 200 and cell.informative >= 80:
                assert 0.925 <= cell.coverage <= 0.97, (metric, cell)


TABLE = Coverage(0.93, 0.97, {
    "f1": (Cell(100, 10, 0.8, 0.85), Cell(200, 20, 0.8, 0.94), Cell(200, 20, 0.1, 0.99)),
    "proportion": (Cell(10, 10, 0.98, 0.9), Cell(100, 100, 0.98, 0.95), Cell(100, 100, 0.8, 0.95)),
})  # fmt: skip


def noted(value, metric="f1", informative=20.0, n=200, low=0.1, note=None):
    return with_trust(Interval(value, low, 0.9, n, "m", note), metric, informative, TABLE).note


def test_the_nearest_simulation_decides_the_warning():
    assert noted(0.8) is None
    assert noted(0.8, informative=9) == (
        "the 95 % interval is likely too narrow: with 10 rows of the rarest class and a true value of 0.80 such "
        "intervals held it in 85.0 % of simulations (docs/coverage.md)"
    )
    assert "is wider than it says" in noted(0.05)
    assert noted(0.8, informative=3, note="other") == (
        "other; interval not to be trusted: 3 rows of the rarest class, fewer than the 10 of any simulation "
        "(docs/coverage.md)"
    )
    assert noted(0.8, low=None, informative=3) is None
    assert noted(0.8, "unheard_of", 1) is None
    assert "likely too narrow" in noted(0.99, "recall", 500, 12)
    assert noted(0.99, "recall", 12, 500) is None  # shares hang on their own rows
    assert "a true value of 0.02" in noted(0.01, "accuracy", 12, 12)  # as far from one half as .99


def test_few_positive_rows_are_said_in_the_metrics():
    matrix = [[960, 10], [3, 3]]
    f1 = {r["class"]: r for r in metrics_from_confusion(matrix, ["no", "yes"]) if r["metric"] == "f1"}
    assert "docs/coverage.md" in f1["yes"]["note"]
    labels = np.arange(1000) % 2
    logits = np.random.default_rng(0).normal(size=(1000, 2)) + np.eye(2)[labels]
    many = {r["metric"]: r for r in classification_metrics(labels, logits, ["a", "b"], "test")}
    assert many["accuracy"]["note"] is None
    assert many["f1_macro"]["note"] is None


def test_one_row_a_group_is_wilson_and_copies_change_nothing():
    hits = np.random.default_rng(0).random(60) < 0.8
    alone = wilson_clustered(hits, np.arange(60))
    plain = wilson(int(hits.sum()), 60)
    assert alone.value == plain.value
    width = plain.high - plain.low
    assert alone.high - alone.low == pytest.approx(width, rel=0.05)  # Student's t and G / (G - 1)
    assert alone.high - alone.low > width
    copies = wilson_clustered(np.repeat(hits, 5), np.repeat(np.arange(60), 5))
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
    assert copies.n == 300
    assert copies.method == "wilson, cluster-robust: 60 groups, 59 effective rows"
    low, high = proportion_confint(hits.sum(), 60, method="wilson")
    assert (plain.low, plain.high) == pytest.approx((low, high))


def test_the_effective_number_is_that_of_the_cluster_robust_variance():
    import statsmodels.api as sm

    generator = np.random.default_rng(1)
    groups = generator.integers(0, 50, 400)
    hits = generator.random(400) < np.where(generator.random(50) < 0.5, 0.95, 0.6)[groups]
    fit = sm.OLS(hits.astype(float), np.ones(400)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    variance = fit.bse[0] ** 2 * 50 / 49
    share = hits.mean()
    expected = share * (1 - share) / variance
    assert f"{expected:.0f} effective rows" in wilson_clustered(hits, groups).method
    assert expected < 250


def test_groups_that_say_nothing_are_said():
    assert wilson_clustered([], []).note == "undefined: no rows"
    one = wilson_clustered([True, False], ["a", "a"])
    assert (one.value, one.low) == (0.5, None)
    assert one.note == "undefined interval: it needs at least 2 groups"
    alike = wilson_clustered(np.ones(40), np.repeat(np.arange(20), 2))
    assert alike.low < wilson(20, 20).low  # as 20 rows, with Student's t
    assert wilson_clustered([1, 0, 1], [0, 1, 2]).note == "only 3 groups: the interval is likely too narrow"
