"""The training benchmark: its rows stand for the data's, and it times both sides."""

from __future__ import annotations

import gc
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from tunescope.training import session

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "training.py"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("training_bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "training_bench", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SHARED", tmp_path / "nowhere")
    monkeypatch.setattr(session.ClassifierTrainer, "train", session.ClassifierTrainer.train)
    yield module
    gc.unfreeze()


@pytest.mark.parametrize("name", ["emotion", "imdb"])
@pytest.mark.parametrize(("rows", "within"), [(64, 0.1), (640, 0.03)])
def test_rows_have_the_mean_length_of_the_data_and_stand_in_batches_of_equal_length(
    bench, tmp_path, name, rows, within
):
    few, every = bench.material(name, tmp_path, rows), bench.material(name, tmp_path, 1600)
    assert len(few.tokens) == rows
    assert few.tokens.kept.mean() == pytest.approx(every.tokens.kept.mean(), rel=within)
    batches = few.tokens.kept.reshape(-1, bench.BATCH)
    assert np.ptp(batches, axis=1).mean() < 0.2 * np.ptp(every.tokens.kept)


def test_both_sides_are_timed_on_the_same_rows(bench, tmp_path, monkeypatch):
    write = bench.write_model
    monkeypatch.setattr(bench, "write_model", lambda folder, **_: write(folder, layers=1, heads=2, width=16))
    bench.time_training()
    what = bench.material("emotion", tmp_path, 32)
    (figure,) = bench.compare("tweets", what, tmp_path, 1e9, 1, {"dynamic padding": (2.0, {})})
    assert figure["figure"] == "(a) tweets: against dynamic padding"
    assert figure["ratio"] > 0
    assert figure["met"] == (figure["ratio"] >= 2.0) or abs(figure["ratio"] - 2.0) < 0.01
    assert figure["real_texts"] is False
    assert not bench.CLOCK
