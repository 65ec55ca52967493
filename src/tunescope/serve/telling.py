"""Progress of loading, told to the page that waits for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from tunescope.progress import Progress, Task

SECONDS_BETWEEN = 0.2


class _Told:
    def __init__(self, tell: Callable[[dict[str, Any]], None], name: str, total: float) -> None:
        self.tell, self.name, self.total = tell, name, total
        self.done, self.last = 0.0, 0.0

    def advance(self, steps: float = 1) -> None:
        """Tell how far it is, not more often than a reader can see."""
        self.done += steps
        if time.monotonic() - self.last >= SECONDS_BETWEEN:
            self.last = time.monotonic()
            self.tell({"step": self.name, "share": round(min(1.0, self.done / max(self.total, 1)), 3)})


class TellingProgress(Progress):
    """Where loading reports to: a page.

    Args:
        tell: Takes ``step`` (what is done) and ``share`` (from 0 to 1).
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(quiet=True)
        self._tell = tell

    @contextlib.contextmanager
    def task(self, name: str, total: float, unit: str = "") -> Iterator[Task]:
        """Open a task that the page hears of."""
        self._tell({"step": name, "share": 0.0})
        yield _Told(self._tell, name, total)
