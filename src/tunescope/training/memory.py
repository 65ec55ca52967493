"""How much memory a training takes, and what running out of it looks like."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch

MOST_POINTS = 200
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a graphics processor or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "DefaultCPUAllocator: can't allocate memory" in said
    )


def _resident(field: str) -> int | None:
    """Return a field of this process's status in bytes (VmRSS now, VmHWM at most), or None outside Linux."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


class MemoryCourse:
    """The course of memory during one training: resident memory of the process, or allocated on CUDA.

    Args:
        device: Where the training computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = time.monotonic()
        self.points: list[list[float]] = []
        self.highest: int | None = None
        self._every, self._calls = 1, 0
        self._peak_is_ours = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            with contextlib.suppress(OSError):  # Linux counts the highest resident memory anew after this
                _CLEAR.write_text("5", encoding="ascii")
                self._peak_is_ours = True

    def now(self) -> int | None:
        """Return the bytes in use, or None where they cannot be read."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        return _resident("VmRSS") if self.device.type == "cpu" else None

    def sample(self) -> None:
        """Note the memory in use; the course is thinned so that it stays short."""
        self._calls += 1
        if self._calls % self._every:
            return
        value = self.now()
        if value is None:
            return
        self.highest = max(self.highest or 0, value)
        self.points.append([round(time.monotonic() - self.start, 3), value])
        if len(self.points) > MOST_POINTS:
            self.points, self._every = self.points[::2], self._every * 2

    def peak(self) -> int | None:
        """Return the largest memory since the course began, in bytes, or None where it cannot be read."""
        if self.device.type == "cuda":
            return max(int(torch.cuda.max_memory_allocated(self.device)), self.highest or 0)
        known = [self.highest] if self.highest is not None else []
        ours = _resident("VmHWM") if self._peak_is_ours else None
        return max(known if ours is None else [*known, ours], default=None)

    def notes(self) -> dict[str, Any]:
        """Return what a checkpoint must remember."""
        return {"points": self.points, "highest": self.peak(), "every": self._every}

    def remember(self, notes: dict[str, Any], seconds: float) -> None:
        """Take up an earlier session's course, which lasted ``seconds``."""
        self.points, self.highest, self._every = list(notes["points"]), notes["highest"], notes["every"]
        self.start = time.monotonic() - seconds
