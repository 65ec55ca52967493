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

    def order(self) -> np.ndarray:
        """Return the positions of this epoch, int64 [N]."""
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        shuffled = generator.permutation(len(self.lengths))
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
