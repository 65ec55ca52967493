"""Choosing among prompts on folds of the train rows, and saying how much the choice matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.rows import Rows, text_hash
from tunescope.data.split import sample_rows
from tunescope.errors import DataError
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import wilson


@dataclass(frozen=True)
class Candidate:
    """One prompt with one calibration, and which train rows it answered rightly.

    Attributes:
        prompt: The template.
        calibrated: Whether ``shift`` is that of content-free inputs.
        shift: What is taken from the scores [C].
        right: Whether each row was answered rightly, bool [N].
    """

    prompt: str
    calibrated: bool
    shift: np.ndarray
    right: np.ndarray


def train_rows(rows: Rows, most: int, seed: int) -> Rows:
    """Return the labelled train rows, or ``most`` of them by hash of seed and id, each class in proportion.

    Raises:
        DataError: A row is of another split.
    """
    others = [split for split in rows.splits if split != "train"]
    if others:
        raise DataError(
            f"A prompt is chosen on train rows only, and rows of {' and '.join(others)} came.",
            hint="Call fit with rows.split('train').",
        )
    labelled = Rows(rows.frame.filter(pl.col("label").is_not_null()), rows.labels, rows.provenance)
    if len(labelled) <= most:
        return labelled
    keep = sample_rows(
        labelled.frame["row_id"].to_list(), labelled.label_array, most, derive_seed(seed, "prompt rows")
    )
    return Rows(labelled.frame.filter(pl.Series(keep)), rows.labels, rows.provenance)


def folds_of(rows: Rows, folds: int, seed: int) -> np.ndarray:
    """Deal rows to folds, int64 [N]: each class evenly, equal texts together, whatever their order in the file.

    With fewer texts than folds some folds stay empty.
    """
    hashes = [text_hash(f"{derive_seed(seed, 'prompt folds')}/{text}") for text in rows.frame["text"]]
    first_label: dict[str, int] = {}
    for mark, label in zip(hashes, rows.label_array.tolist(), strict=True):
        first_label[mark] = min(label, first_label.get(mark, label))
    fold_of: dict[str, int] = {}
    for number, mark in enumerate(sorted(first_label, key=lambda mark: (first_label[mark], mark))):
        fold_of[mark] = number % folds
    return np.array([fold_of[mark] for mark in hashes], dtype=np.int64)


def choose(candidates: Sequence[Candidate], folds: np.ndarray) -> tuple[int, dict[str, Any]]:
    """Take the most accurate candidate, the first of equal ones, and describe them all.

    Returns:
        Its place, and a mapping with ``candidates`` (``prompt``, ``calibration``, ``accuracy`` with its Wilson
        interval, ``folds``, ``chosen``), ``chosen_folds`` (the chosen one's), ``selection_accuracy`` (every fold
        answered by the candidate that is best on the others) and ``spread`` over the candidates. Without
        rows the accuracies are None.
    """
    n = len(folds)
    right = np.array([candidate.right for candidate in candidates], dtype=np.int64).reshape(
        len(candidates), n
    )
    best = int(right.sum(axis=1).argmax())
    numbers = sorted(set(folds.tolist()))
    described = [
        {
            "prompt": candidate.prompt,
            "calibration": "contextual" if candidate.calibrated else "none",
            "accuracy": wilson(int(row.sum()), n).record(),
            "folds": [_fold(row, folds, number) for number in numbers],
            "chosen": place == best,
        }
        for place, (candidate, row) in enumerate(zip(candidates, right, strict=True))
    ]
    shares = right.mean(axis=1) if n else np.zeros(0)
    spread = {
        "candidates": len(candidates),
        "lowest": float(shares.min()) if n else None,
        "highest": float(shares.max()) if n else None,
        "range": float(np.ptp(shares)) if n else None,
        "standard_deviation": float(shares.std(ddof=1)) if n and len(candidates) > 1 else None,
    }
    evidence = {
        "candidates": described,
        "chosen_folds": described[best]["folds"],
        "selection_accuracy": _selection(right, folds, numbers),
        "spread": spread,
    }
    return best, evidence


def _fold(right: np.ndarray, folds: np.ndarray, number: int) -> dict[str, Any]:
    inside = folds == number
    return {"fold": number, **wilson(int(right[inside].sum()), int(inside.sum())).record()}


def _selection(right: np.ndarray, folds: np.ndarray, numbers: list[int]) -> dict[str, Any]:
    """Score every fold with the candidate that is the most accurate on the other folds."""
    if len(numbers) < 2:
        return wilson(0, 0).record()
    total = 0
    for number in numbers:
        inside = folds == number
        winner = int(right[:, ~inside].sum(axis=1).argmax())
        total += int(right[winner, inside].sum())
    return wilson(total, len(folds)).record()
