"""One arm's trainings together: what a lens is given that compares the seeds of one recipe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import overload

import polars as pl

from tunescope.errors import LensError
from tunescope.lenses.subject import Subject

KEPT = 2  # subjects held in memory at a time: neighbours can be compared whatever the number of seeds


class SeveralSeeds(Sequence[Subject]):
    """The subjects of one arm in the order of their seeds, each loaded when it is asked for.

    At most two stay in memory, so go through neighbours and keep none. Their bases have no head (``base_head`` is
    ``none``): what is compared across seeds is what tuning gave.

    Args:
        arm: The arm.
        seeds: Its seeds, two or more; they are sorted.
        load: Returns the subject of a seed.
        table: The lens's own table of all these seeds, for what must be held against the comparison.
        examples: The same per example, or None.

    Raises:
        LensError: There are fewer than two seeds, or one came twice.
    """

    def __init__(
        self,
        arm: str,
        seeds: Sequence[int],
        load: Callable[[int], Subject],
        table: pl.DataFrame,
        examples: pl.DataFrame | None = None,
    ) -> None:
        if len(set(seeds)) < max(2, len(seeds)):
            raise LensError(
                f"{arm}: comparing seeds needs two seeds or more, each once; there are {list(seeds)}."
            )
        self.arm, self.seeds, self.table, self.examples = arm, tuple(sorted(seeds)), table, examples
        self._load = load
        self._kept: OrderedDict[int, Subject] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of seeds."""
        return len(self.seeds)

    @overload
    def __getitem__(self, index: int) -> Subject: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Subject]: ...

    def __getitem__(self, index: int | slice) -> Subject | Sequence[Subject]:
        """Return the subject of the seed at a place, loaded where it is not among the last two."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        seed = self.seeds[index]
        if seed in self._kept:
            self._kept.move_to_end(seed)
            return self._kept[seed]
        while len(self._kept) >= KEPT:
            self._kept.popitem(last=False)
        self._kept[seed] = self._load(seed)
        return self._kept[seed]
