"""The order of training rows: random, grouped by length, and the same again after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

BATCHES_PER_POOL = 50  # rows are sorted by length within pools of this many batches, as in transformers


class LengthGroupedSampler(Sampler[int]):
    """Yields every row once, so that consecutive batches hold rows of about equal length.

    The order is a pure function of seed and epoch: it neither reads nor moves any global generator, so an
    interrupted epoch continues with the rows it had not seen. (The grouping of transformers does not, from
    the second epoch on.) Batches are shuffled; rows that do not fill a batch come last.

    Args:
        lengths: Tokens per row [N].
        batch_size: Rows per batch; the data loader must cut batches of this size.
        seed: Another seed gives another order.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose order the next iteration yields."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, generator: np.random.Generator) -> np.ndarray:
        """Return the positions of an epoch in random order, int64 [N]."""
        return generator.permutation(len(self.lengths))

    def order(self) -> np.ndarray:
        """Return the positions of this epoch in the order of its batches, int64 [N]."""
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        shuffled = self.rows(generator)
        full = len(shuffled) - len(shuffled) % self.batch_size
        pool = self.batch_size * BATCHES_PER_POOL
        grouped = []
        for start in range(0, full, pool):
            rows = shuffled[start : min(start + pool, full)]
            grouped.append(rows[np.argsort(-self.lengths[rows], kind="stable")].reshape(-1, self.batch_size))
        whole = np.concatenate(grouped) if grouped else np.zeros((0, self.batch_size), dtype=np.int64)
        generator.shuffle(whole)  # the order of the batches
        return np.concatenate([whole.reshape(-1), shuffled[full:]])

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())


class BalancedSampler(LengthGroupedSampler):
    """Yields N rows an epoch, as many of every class: small classes repeat their rows, large ones leave some out.

    Each class goes through its rows in random order and begins anew when it has seen them all, so no row is
    drawn twice before every row of its class was drawn once. Where N is no multiple of the number of classes, the
    classes that get one row more are drawn by lot. Everything else is as in :class:`LengthGroupedSampler`.

    Args:
        labels: Class indices of the rows, [N].
        lengths: Tokens per row, [N].
        batch_size: Rows per batch; the data loader must cut batches of this size.
        seed: Another seed gives another order.
    """

    def __init__(
        self, labels: np.ndarray, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int
    ) -> None:
        super().__init__(lengths, batch_size, seed)
        self.classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def rows(self, generator: np.random.Generator) -> np.ndarray:
        """Return the positions of an epoch in random order, int64 [N]."""
        whole, rest = divmod(len(self.lengths), len(self.classes))
        lucky = set(generator.permutation(len(self.classes))[:rest].tolist())
        drawn = []
        for number, members in enumerate(self.classes):
            wanted = whole + (number in lucky)
            rounds = [generator.permutation(members) for _ in range(-(-wanted // len(members)))]
            drawn.append(np.concatenate([members[:0], *rounds])[:wanted])
        return generator.permutation(np.concatenate(drawn))
