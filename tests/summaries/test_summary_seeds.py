"""Summaries of several seeds: every metric's interval is one of seeds and rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tunescope.stats.multiboot import multi_bootstrap
from tunescope.study.summarise import LOSS
from tunescope.study.summary_evidence import _over_seeds
from tunescope.summaries.metrics import METRICS


def wrote(tmp_path, seeds, rows=60):
    """Write what an arm scored, seed by seed: rows in another order each time, one of them without METEOR."""
    scores = {}
    for seed in seeds:
        generator = np.random.default_rng([5, seed])
        order = generator.permutation(rows)
        table = {"row_id": [f"r{index:03d}" for index in range(rows)], "split": "test"}
        table |= {metric: generator.beta(2, 5, rows) + 0.01 * seed for metric in (*METRICS, LOSS)}
        frame = pl.DataFrame(table).with_columns(
            pl.when(pl.col("row_id") == "r007").then(None).otherwise(pl.col("meteor")).alias("meteor")
        )
        folder = tmp_path / "arms" / "tuned" / f"seed-{seed}"
        folder.mkdir(parents=True)
        frame[order].write_parquet(folder / "predictions.parquet")
        scores[seed] = frame
    study = SimpleNamespace(
        seeds=list(seeds), arms=[SimpleNamespace(name="tuned")],
        summarise_of=lambda arm: SimpleNamespace(splits=["test"]),
    )  # fmt: skip
    return SimpleNamespace(study=study, path=tmp_path), scores


def test_rouge_has_the_interval_of_seeds_and_rows_on_the_rows_of_all_seeds(tmp_path):
    context, scores = wrote(tmp_path, (0, 1, 2))
    found = {one["metric"]: one for one in _over_seeds(context)}
    assert set(found) == {*METRICS, LOSS}
    each = np.array([frame["rouge1"].to_numpy() for frame in scores.values()])
    weights = np.random.default_rng(11).multinomial(60, np.full(60, 1 / 60), size=4000).T / 60
    wanted = multi_bootstrap(each.mean(axis=1), each @ weights, 60).interval
    own = found["rouge1"]
    assert own["value"] == pytest.approx(each.mean())
    assert (own["low"], own["high"]) == (
        pytest.approx(wanted.low, abs=0.01),
        pytest.approx(wanted.high, abs=0.01),
    )
    assert (own["n"], found["meteor"]["n"]) == (60, 59)
    assert "3 seeds tell little of their spread" in own["note"]
    assert own["method"].startswith("Multi-bootstrap over 3 seeds")


def test_the_interval_ends_at_zero(tmp_path):
    context, _ = wrote(tmp_path, (0, 9))
    assert all(one["low"] >= 0 for one in _over_seeds(context))
