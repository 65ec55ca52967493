"""Running the checks: each in a folder of its own, on one thread, with whatever goes wrong counted as a miss."""

from __future__ import annotations

import contextlib
import datetime
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunescope import __version__
from tunescope.config.problems import unknown
from tunescope.doctor.check import Bench, Check, Line
from tunescope.errors import ConfigError, Interrupted, TunescopeError
from tunescope.progress import SILENT, Progress

MET, MISSED, NOT_INSTALLED = "met", "missed", "not installed"


@dataclass(frozen=True)
class Outcome:
    """What one check showed.

    Attributes:
        name: Its name.
        title: What it shows, in a few words.
        lines: Planted beside measured.
        seconds: How long it took.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    seconds: float

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` where any line is, or ``not installed`` where nothing could be measured."""
        if any(line.met is False for line in self.lines):
            return MISSED
        return MET if any(line.met for line in self.lines) else NOT_INSTALLED


@dataclass(frozen=True)
class Examination:
    """What an examination showed.

    Attributes:
        outcomes: One a check, in order.
        whole: Whether every check was asked for.
        about: Version, machine, date and seconds.
    """

    outcomes: tuple[Outcome, ...]
    whole: bool
    about: Mapping[str, Any]

    @property
    def missed(self) -> list[str]:
        """Return the names of the checks that missed."""
        return [one.name for one in self.outcomes if one.verdict == MISSED]

    @property
    def passed(self) -> bool:
        """Whether no check missed."""
        return not self.missed

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        checks = [
            {
                "name": one.name,
                "title": one.title,
                "verdict": one.verdict,
                "seconds": round(one.seconds, 2),
                "lines": [asdict(line) for line in one.lines],
            }
            for one in self.outcomes
        ]
        return {**self.about, "passed": self.passed, "whole": self.whole, "checks": checks}


def examine(
    only: Sequence[str] = (),
    progress: Progress = SILENT,
    checks: Mapping[str, Check] | None = None,
    seed: int = 0,
) -> Examination:
    """Run the checks and return what they showed; an error inside a check is a miss of that check.

    Args:
        only: Names of checks; none means all.
        progress: Where to report.
        checks: The checks to choose from; None means :data:`tunescope.doctor.checks.CHECKS`.
        seed: Seeds everything that is drawn.

    Raises:
        ConfigError: There is no check of a name.
    """
    if checks is None:
        from tunescope.doctor.checks import CHECKS

        checks = CHECKS
    names = list(dict.fromkeys(only)) or list(checks)
    for name in names:
        if name not in checks:
            raise ConfigError(
                f"--only: {unknown('check', name, list(checks))}.",
                hint="`tunescope doctor` alone runs all of them.",
            )
    start = time.monotonic()
    outcomes = []
    with (
        _one_thread(),
        tempfile.TemporaryDirectory(prefix="tunescope-doctor-") as folder,
        progress.task("planted against measured", len(names), "checks") as task,
    ):
        for name in names:
            own = Path(folder) / name
            own.mkdir()
            outcomes.append(_outcome(name, checks[name], Bench(own, seed)))
            last = outcomes[-1]
            progress.say(f"  {name}: {last.verdict} ({last.seconds:.1f} s)")
            task.advance(1)
    about = {
        "version": __version__,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start, 1),
    }
    return Examination(tuple(outcomes), not only, about)


def machine() -> str:
    """Return this machine in words: processor, system, Python."""
    from tunescope.doctor.environment import processor

    return f"{processor()}; {platform.platform()}; Python {platform.python_version()}"


def _outcome(name: str, check: Check, bench: Bench) -> Outcome:
    start = time.monotonic()
    lines: list[Line] = []
    missing = check.missing()
    if missing:
        lines.append(Line(check.title, "optional", f"{', '.join(missing)} not installed", None))
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lines.extend(check.run(bench))
        except Interrupted:
            raise
        except TunescopeError as error:
            lines.append(_broken(error.message))
        except Exception as error:  # a broken instrument fails in any way; the doctor must live to say so
            lines.append(_broken(f"{type(error).__name__}: {error}"))
    return Outcome(name, check.title, tuple(lines), time.monotonic() - start)


def _broken(what: str) -> Line:
    return Line("the check itself", "runs to its end", f"error: {what}", False)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread inside the block: for models this small, threads only wait for one another."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
