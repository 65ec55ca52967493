"""A look-up table from a column's values to the label: how much the column alone gives away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELLS_AT_ONCE = 200_000


@dataclass(frozen=True)
class LookupTable:
    """The labels that were seen with each value.

    The table answers with the label seen most often with a value. A tie, and a value never seen, go to the
    label that is most frequent over all rows (of those that tie), then to the first class.

    Attributes:
        counts: Rows per value and class, int64 [V, C].
    """

    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, labels: np.ndarray, n_values: int, n_classes: int) -> LookupTable:
        """Count rows.

        Args:
            values: Value index of each row [N], 0 to ``n_values - 1``.
            labels: Class index of each row [N], 0 to ``n_classes - 1``.
            n_values: The number of values.
            n_classes: The number of classes.
        """
        flat = np.bincount(values.astype(np.int64) * n_classes + labels, minlength=n_values * n_classes)
        return cls(flat.reshape(n_values, n_classes).astype(np.int64))

    def predict(self, values: np.ndarray) -> np.ndarray:
        """Return the class for each value index; -1 stands for a value never seen, int64 [N]."""
        total = self.counts.sum(axis=0)
        answers = np.append(_answers(self.counts, total[None, :]), int(np.argmax(total)))
        return answers[np.asarray(values, dtype=np.int64)]

    def leave_one_out(self) -> int:
        """Count the rows that the table of all *other* rows gets right.

        The row's own label is taken out of its value's counts and of the overall counts. So a value seen once
        is never known to the table: its row is right only if its label is the most frequent of the other rows.
        """
        total = self.counts.sum(axis=0)
        values, classes = np.nonzero(self.counts)
        right = 0
        for start in range(0, len(values), CELLS_AT_ONCE):
            value, label = values[start : start + CELLS_AT_ONCE], classes[start : start + CELLS_AT_ONCE]
            own = np.zeros((len(value), len(total)), dtype=np.int64)
            own[np.arange(len(value)), label] = 1
            answers = _answers(self.counts[value] - own, total[None, :] - own)
            right += int(self.counts[value, label][answers == label].sum())
        return right

    @property
    def sizes(self) -> np.ndarray:
        """Rows per value, int64 [V]."""
        return self.counts.sum(axis=1)

    @property
    def pure(self) -> np.ndarray:
        """Whether all rows of a value have one label, bool [V]; a value seen once is trivially pure."""
        return self.counts.max(axis=1, initial=0) == self.sizes


def _answers(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return for each row of counts [M, C] the most frequent class; ties by ``total``, then the first class."""
    tied = counts == counts.max(axis=1, keepdims=True)
    return np.where(tied, total, -1).argmax(axis=1)
