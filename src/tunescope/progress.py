"""Progress with rate and time left: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class Task(Protocol):
    """What a piece of long work tells about itself."""

    def advance(self, steps: float = 1) -> None:
        """Say that ``steps`` more units are done."""


class _SilentTask:
    def advance(self, steps: float = 1) -> None:
        """Say nothing."""


class _LineTask:
    """Prints a line at most every ten seconds, and one at the end."""

    def __init__(self, name: str, total: float, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0.0
        self.start = self.last = time.monotonic()

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            self._print()

    def _print(self) -> None:
        elapsed = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / elapsed
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        note = f", {left:.0f} s left" if self.done < self.total else f" in {elapsed:.1f} s"
        print(
            f"  {self.name}: {self.done:.0f}/{self.total:.0f} {self.unit}, {rate:.1f}/s{note}",
            file=sys.stderr,
        )

    def finish(self) -> None:
        """Print the last line."""
        self._print()


class _RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: RichTask) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.1f}/s", style="progress.data.speed")


class _BarTask:
    def __init__(self, bar: RichProgress, name: str, total: float, unit: str) -> None:
        self.bar = bar
        self.identifier = bar.add_task(name, total=total, unit=unit)

    def advance(self, steps: float = 1) -> None:
        self.bar.advance(self.identifier, steps)


class Progress:
    """Where long work reports to.

    Args:
        quiet: Say nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)

    def say(self, line: str) -> None:
        """Print one line to standard error, unless quiet."""
        if not self.quiet:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, name: str, total: float, unit: str = "") -> Iterator[Task]:
        """Open a task of ``total`` units; call ``advance`` on what it yields."""
        if self.quiet:
            yield _SilentTask()
        elif self.console.is_terminal:
            columns = (
                TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"), _RateColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            with RichProgress(*columns, console=self.console, transient=False) as bar:
                yield _BarTask(bar, name, total, unit)
        else:
            line = _LineTask(name, total, unit)
            yield line
            line.finish()


SILENT = Progress(quiet=True)
