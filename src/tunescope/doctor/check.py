"""What a check is: something planted, what was measured of it, and whether the two agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OFTEN = 0.9  # of the trials: what "nine times in ten" means


@dataclass(frozen=True)
class Line:
    """One planted truth beside what was measured.

    Attributes:
        what: What is looked at.
        planted: The truth, in words and numbers.
        measured: What tunescope says.
        met: Whether they agree; None where an optional library is not installed, so that nothing was measured.
        smallest: The smallest effect that is found nine times in ten, with the share found at every size tried; None
            for lines of another kind.
    """

    what: str
    planted: str
    measured: str
    met: bool | None
    smallest: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bench:
    """What a check may use.

    Attributes:
        folder: An empty folder that is thrown away afterwards.
        seed: Seeds everything that a check draws.
    """

    folder: Path
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """One check of the doctor.

    Attributes:
        title: What it shows, in a few words.
        run: Yields its lines.
        lenses: The lenses whose truth it plants.
        needs: Optional libraries; where one is missing the check says so and is no miss.
    """

    title: str
    run: Callable[[Bench], Iterable[Line]]
    lenses: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the libraries that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def near(what: str, planted: float, measured: float | None, within: float) -> Line:
    """Return a line that is met where a number lies within a distance of what was planted."""
    met = measured is not None and abs(measured - planted) <= within
    shown = "nothing" if measured is None else number(measured)
    return Line(what, f"{number(planted)} (within {number(within)})", shown, bool(met))


def same(what: str, planted: Any, measured: Any) -> Line:
    """Return a line that is met where two values are equal."""
    return Line(what, str(planted), str(measured), bool(planted == measured))


def at_most(what: str, bound: float, measured: float) -> Line:
    """Return a line that is met where the size of a number does not exceed a bound; NaN is a miss."""
    return Line(what, f"at most {number(bound)}", number(measured), bool(abs(measured) <= bound))


def number(value: float) -> str:
    """Return a number in four digits; integers and zero as they are."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def smallest_found(
    what: str, unit: str, sizes: Sequence[float], trials: int, found: Callable[[float, int], bool]
) -> Line:
    """Return the smallest effect of a rising grid that is found in nine of ten trials.

    The grid is halved, as what finds a small effect finds a larger one; a size is given up as soon as too many trials
    have missed. It is a miss if no size of the grid is found so often.

    Args:
        what: What is to be found.
        unit: The effect's unit, with the sample's size.
        sizes: The grid, rising.
        trials: Trials at each size; each trial has rows, noise and seeds of its own.
        found: From a size and the number of a trial to whether it was found.
    """
    shares: dict[float, float | None] = {}
    low, high = 0, len(sizes)  # the answer's place: from low to high, which stands for none
    while low < high:
        middle = (low + high) // 2
        shares[sizes[middle]] = share = _share(found, sizes[middle], trials)
        low, high = (low, middle) if share is not None else (middle + 1, high)
    smallest = sizes[high] if high < len(sizes) else None
    told = ", ".join(
        f"{number(size)}: {'less often' if share is None else f'{share:.0%}'}"
        for size, share in sorted(shares.items())
    )
    shown = "none of the grid" if smallest is None else f"{number(smallest)} {unit}"
    about = {"effect": smallest, "unit": unit, "trials": trials, "tried": sorted(shares)}
    return Line(
        f"smallest effect found 9 times in 10: {what}",
        f"one of {', '.join(map(number, sizes))}; {trials} trials each",
        f"{shown} (found at {told})",
        smallest is not None,
        about,
    )


def _share(found: Callable[[float, int], bool], size: float, trials: int) -> float | None:
    """Return the share of trials that found it, or None once it must lie below nine in ten."""
    missed = 0
    for trial in range(trials):
        missed += not found(size, trial)
        if missed > (1 - OFTEN) * trials + 1e-9:
            return None
    return (trials - missed) / trials
