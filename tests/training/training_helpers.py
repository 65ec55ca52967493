from __future__ import annotations

import numpy as np
import torch

from tunescope.data.labels import LabelMap
from tunescope.data.tokens import Tokens

LABELS = LabelMap(("bad", "fine", "good"))


def make_tokens(n=48, seed=0, vocabulary=60, with_types=False) -> Tokens:
    """Rows whose label is told by one token that stands somewhere in them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    rows = []
    for label in labels:
        row = rng.integers(10, vocabulary, rng.integers(3, 20))
        row[rng.integers(len(row))] = 5 + label
        rows.append(row.astype(np.int32))
    types = [np.zeros(len(row), dtype=np.int32) for row in rows] if with_types else None
    ids = [f"row-{seed}-{n:03d}" for n in range(n)]
    return Tokens(ids, rows, types, labels.astype(np.int64), np.array([len(row) for row in rows]), 0)


def weights(classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in classifier.model.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
