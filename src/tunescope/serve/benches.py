"""Open benches, bounded in memory: the one that was asked least recently leaves first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from tunescope.lenses.bench import Bench


class Benches:
    """The benches that are open, by key.

    Args:
        most_bytes: What the parameters of all open models may take together; the newest always stays.
    """

    def __init__(self, most_bytes: float) -> None:
        self.most_bytes = most_bytes
        self._open: OrderedDict[Hashable, Bench] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Bench | None:
        """Return an open bench and count it as asked just now, or None."""
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
            return self._open.get(key)

    def put(self, key: Hashable, bench: Bench) -> list[Hashable]:
        """Keep a bench, and return the keys of those that had to leave."""
        with self._lock:
            self._open[key] = bench
            self._open.move_to_end(key)
            left = []
            while len(self._open) > 1 and sum(map(bytes_of, self._open.values())) > self.most_bytes:
                left.append(self._open.popitem(last=False)[0])
            return left

    def keys(self) -> list[Hashable]:
        """Return what is open, least recently asked first."""
        with self._lock:
            return list(self._open)


def bytes_of(bench: Bench) -> int:
    """Return the bytes of all parameters of a bench's models; what they share counts once."""
    models = (bench.subject.base, bench.subject.tuned)
    tensors = {
        one.data_ptr(): one.numel() * one.element_size() for model in models for one in model.parameters()
    }
    return sum(tensors.values())
