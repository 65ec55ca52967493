"""Two classifiers without a text: the most frequent class, and a look-up table of one other column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tunescope.data.rows import RESERVED

TRACE = 1e-6  # keeps the logarithm of a class without rows finite, and changes no prediction
MISSING = "\0missing"


def class_shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the share of every class, `[C]`."""
    counts = np.bincount(labels, minlength=classes)
    return counts / max(len(labels), 1)


def as_logits(weights: np.ndarray) -> np.ndarray:
    """Return logarithms of weights `[n, C]` as shares, so that their softmax is those shares."""
    filled = weights + TRACE
    logits: np.ndarray = np.log(filled / filled.sum(axis=1, keepdims=True))
    return logits


def possible_columns(frame: pl.DataFrame) -> list[str]:
    """Return the source's other columns that a look-up can use: single values, not lists or mappings."""
    nested = (pl.List, pl.Array, pl.Struct, pl.Object, pl.Binary)
    return [
        name for name, kind in frame.schema.items() if name not in RESERVED and not isinstance(kind, nested)
    ]


def values_of(frame: pl.DataFrame, column: str) -> np.ndarray:
    """Return a column as text, with a missing value as a value of its own."""
    found: np.ndarray = frame[column].cast(pl.String).fill_null(MISSING).to_numpy().astype(object)
    return found


@dataclass(frozen=True)
class Lookup:
    """For each value of a column, the most frequent class of its train rows; unseen values: of all train rows.

    Attributes:
        column: The column.
        table: Rows of each class `[C]` per value.
        shares: The share of each class in train, `[C]`: decides ties and unseen values.
        right: Train rows that are right when each is left out in turn.
        rows: Train rows.
    """

    column: str
    table: dict[str, np.ndarray]
    shares: np.ndarray
    right: int
    rows: int

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` for values `[n]`."""
        none = np.zeros(len(self.shares))
        return as_logits(
            np.array([self.table.get(v, none) for v in values]).reshape(-1, len(none)) + self.shares
        )

    def unseen(self, values: np.ndarray) -> int:
        """Count values that no train row has."""
        return sum(value not in self.table for value in values)


def leave_one_out(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return logits `[n, C]` of the look-up for each row when that row is left out of it."""
    _, index = np.unique(values.astype(str), return_inverse=True)
    counts = np.zeros((int(index.max(initial=-1)) + 1, classes))
    np.add.at(counts, (index, labels), 1)
    own = np.eye(classes)[labels]
    shares = (np.bincount(labels, minlength=classes) - own) / max(len(labels) - 1, 1)
    return as_logits(counts[index] - own + shares)


def fit_lookup(frame: pl.DataFrame, labels: np.ndarray, classes: int, columns: Sequence[str]) -> Lookup:
    """Choose the column that predicts train rows best when each is left out; of equals, that of fewest values.

    Args:
        frame: Train rows.
        labels: `[n]` class indices of them.
        classes: C.
        columns: The columns to choose from, at least one.
    """
    best: tuple[int, int, str] | None = None
    for column in columns:
        values = values_of(frame, column)
        right = int((leave_one_out(values, labels, classes).argmax(axis=1) == labels).sum())
        order = (-right, len(np.unique(values.astype(str))), column)
        best = order if best is None or order[:2] < best[:2] else best
    assert best is not None
    column = best[2]
    values = values_of(frame, column)
    table = {value: np.bincount(labels[values == value], minlength=classes) for value in set(values)}
    return Lookup(column, table, class_shares(labels, classes), -best[0], len(labels))
