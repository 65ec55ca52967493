"""When to look: often at first, then evenly, and never for more than a share of the training's time."""

from __future__ import annotations

from dataclasses import dataclass

from tunescope.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Steps at which to look, and the share of the training's time that looking may take.

    Attributes:
        every: Look at every multiple of this step; None divides the training into twenty parts.
        early: Also at steps 1, 2, 5, 10, 20, 50 and so on, where most of a tuning happens.
        most_time: Greatest share of the time since training began that may have gone into looking; a look that
            would go beyond it is left out, the first and the last excepted. 1 leaves none out.
    """

    every: int | None = None
    early: bool = True
    most_time: float = 0.1

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ConfigError(f"every must be 1 step or more, got {self.every}.")
        if not 0 < self.most_time <= 1:
            raise ConfigError(f"most_time is a share above 0 and up to 1, got {self.most_time}.")

    def due(self, step: int, last: int) -> bool:
        """Whether to look after ``step`` of ``last`` steps, time permitting."""
        if step in (0, last):
            return True
        every = self.every or max(1, last // 20)
        return step % every == 0 or (self.early and step in _ONE_TWO_FIVE)

    def affordable(self, spent: float, one_look: float, training: float, done: float) -> bool:
        """Whether one more look stays within the share, going by what the looks so far took.

        Half of what the whole training will allow, at its pace so far, may be used in advance: most of a tuning
        happens early.

        Args:
            spent: Seconds that looks have taken.
            one_look: Seconds that the latest took.
            training: Seconds that training has taken, looks not included.
            done: Share of the steps that are done, above 0.
        """
        if self.most_time == 1:
            return True
        counted = max(training, training / done / 2)
        return spent + one_look <= self.most_time / (1 - self.most_time) * counted


_ONE_TWO_FIVE = frozenset(digit * 10**power for power in range(9) for digit in (1, 2, 5))
