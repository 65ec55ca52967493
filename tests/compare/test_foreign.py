"""What is said about checkpoints from elsewhere."""

from __future__ import annotations

import json

import numpy as np

from tunescope.foreign import arm_names, label_doubt, logged_metrics


def test_names_are_short_unique_and_safe():
    paths = [
        "runs/x/arms/full/seed-0/model",
        "out/checkpoint-500",
        "out/checkpoint-1000",
        "gpt2",
        "./gpt2/",
        "a b/ü!",
    ]
    names = arm_names(paths)
    assert names[:4] == ["full-seed-0-model", "out-checkpoint-500", "out-checkpoint-1000", "gpt2"]
    assert names[4] == "gpt2-again-1"
    assert len(set(names)) == len(names)
    assert all(name and name.isascii() and " " not in name for name in names)


def test_the_newest_checkpoint_by_number_gives_the_logged_metric(tmp_path):
    for step, loss in ((200, 0.5), (1000, 0.3)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        log = [{"loss": 1.0, "step": 1}, {"eval_loss": loss, "eval_runtime": 3.0, "step": step}]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    assert logged_metrics(str(tmp_path)) == {"step": 1000, "eval_loss": 0.3}
    assert logged_metrics(str(tmp_path / "nowhere")) is None


def test_a_permutation_is_reported_only_where_it_gains_sharply():
    labels = np.array([0, 1, 2] * 20)
    assert label_doubt(labels, labels, ["a", "b", "c"]) is None
    doubt = label_doubt(labels, (labels + 1) % 3, ["a", "b", "c"])
    assert doubt is not None
    assert "accuracy is 0.000, and would be 1.000 if b means a, c means b, a means c" in doubt
    noisy = labels.copy()
    noisy[:3] = [1, 0, 2]
    assert label_doubt(labels, noisy, ["a", "b", "c"]) is None
