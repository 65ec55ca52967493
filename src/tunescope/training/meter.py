"""What a training costs: real tokens, padding, seconds of its steps, and memory."""

from __future__ import annotations

import time
from typing import Any

import torch

from tunescope.training.memory import MemoryCourse
from tunescope.training.rows import token_counts


class Meter:
    """Counts while a training works.

    Args:
        device: Where it computes.

    Attributes:
        real_tokens: Tokens of the rows of all steps.
        places: Token places that went through the model, padding included.
        step_seconds: Seconds that steps took; evaluating and saving lie between them.
    """

    def __init__(self, device: torch.device) -> None:
        self.memory = MemoryCourse(device)
        self.real_tokens = self.places = 0
        self.step_seconds = 0.0
        self._since: float | None = None

    def step_begins(self) -> None:
        """Start the clock of a step."""
        self._since = time.monotonic()

    def step_ends(self) -> None:
        """Stop the clock of a step."""
        if self._since is not None:
            self.step_seconds += time.monotonic() - self._since
            self._since = None

    def count(self, inputs: dict[str, Any]) -> None:
        """Count the tokens of a micro-batch."""
        real, places = token_counts(inputs)
        self.real_tokens += real
        self.places += places

    @property
    def tokens_per_second(self) -> float:
        """Real tokens by the seconds of the steps."""
        return self.real_tokens / self.step_seconds if self.step_seconds > 0 else 0.0

    @property
    def padding_share(self) -> float:
        """Share of padding in all token places."""
        return 1 - self.real_tokens / self.places if self.places else 0.0

    def moment(self) -> dict[str, float]:
        """Return what trackers show beside the loss."""
        memory = self.memory.now()
        shown = {"tokens_per_second": self.tokens_per_second}
        return shown if memory is None else {**shown, "memory_bytes": float(memory)}

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {
            "real_tokens": self.real_tokens, "places": self.places, "step_seconds": self.step_seconds,
            "memory": self.memory.notes(),
        }  # fmt: skip

    def remember(self, notes: dict[str, Any], seconds: float) -> None:
        """Take up what an earlier session of ``seconds`` counted."""
        self.real_tokens, self.places = int(notes["real_tokens"]), int(notes["places"])
        self.step_seconds = float(notes["step_seconds"])
        self.memory.remember(notes["memory"], seconds)
