"""What a checkpoint from elsewhere says of its training, and what its answers say of its labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment

from tunescope.evaluation.metrics import confusion_matrix

SHARP = 0.10  # a relabelling that gains this much accuracy is worth a sentence


def logged_metrics(path: str) -> dict[str, Any] | None:
    """Return the last evaluation that a checkpoint's ``trainer_state.json`` logged, or None.

    A folder without one is searched for its newest ``checkpoint-N``.
    """
    folder = Path(path)
    states = [folder / "trainer_state.json"]
    steps = [child for child in folder.glob("checkpoint-*") if child.name.rpartition("-")[2].isdigit()]
    states += [c / "trainer_state.json" for c in sorted(steps, key=lambda c: -int(c.name.rpartition("-")[2]))]
    for state in states:
        if not state.is_file():
            continue
        try:
            history = json.loads(state.read_text(encoding="utf-8")).get("log_history", [])
        except ValueError:
            continue  # a damaged log is no reason to refuse a model
        evaluations = [entry for entry in history if "eval_loss" in entry]
        if evaluations:
            last = evaluations[-1]
            kept = {
                k: v
                for k, v in last.items()
                if k.startswith("eval_") and not k.endswith(("runtime", "second"))
            }
            return {"step": last.get("step"), **kept}
    return None


def same_weights(first: str, second: str) -> bool:
    """Whether two local folders hold the same tensors, head included; hub ids are the same if their names are."""
    folders = [Path(path) for path in (first, second)]
    if not all(folder.is_dir() for folder in folders):
        return first == second
    files = [sorted(folder.glob("*.safetensors")) for folder in folders]
    ours, theirs = ({k: v for file in group for k, v in load_file(file).items()} for group in files)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def label_doubt(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> str | None:
    """Say so if another assignment of label names would raise accuracy sharply; it is never applied.

    Args:
        labels: True class indices, [N].
        predictions: Predicted class indices, [N].
        names: Class names.
    """
    matrix = np.array(confusion_matrix(labels, predictions, len(names)))
    rows, columns = linear_sum_assignment(-matrix)
    now, best = np.trace(matrix) / matrix.sum(), matrix[rows, columns].sum() / matrix.sum()
    if best - now < SHARP:
        return None
    swaps = ", ".join(f"{names[c]} means {names[r]}" for r, c in zip(rows, columns, strict=True) if r != c)
    return (
        f"Labels may be permuted: accuracy is {now:.3f}, and would be {best:.3f} if {swaps} (model's name first). "
        "Nothing was changed; if that is so, say it with --label-map."
    )
