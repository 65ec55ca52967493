"""How far intervals can be trusted: the simulated coverage that ships with the package.

`benchmarks/interval_coverage.py` writes the table, ``docs/coverage.md`` shows it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from tunescope.stats.intervals import Interval

PAGE = "docs/coverage.md"
SHARES = ("accuracy", "majority_accuracy", "precision", "recall", "selection_rate")
LOSSES = ("log_loss", "brier_score_loss")
FEWER = 0.7  # with this share of the fewest rows that were simulated, the simulations say nothing


@dataclass(frozen=True)
class Cell:
    """One simulated place of a metric.

    Attributes:
        n: Rows of each sample.
        informative: Rows that the metric hangs on: of the rarest class, or all.
        value: The true value.
        coverage: The share of samples whose interval held it.
    """

    n: int
    informative: float
    value: float
    coverage: float


@dataclass(frozen=True)
class Coverage:
    """The simulated coverage of intervals of nominally 95 %.

    Attributes:
        low: Below this coverage an interval is not trusted.
        high: Above this coverage it is wider than it says.
        cells: The simulated places by metric.
    """

    low: float
    high: float
    cells: dict[str, tuple[Cell, ...]]


@cache
def coverage_table() -> Coverage:
    """Return the table that ships with the package."""
    text = resources.files("tunescope.evaluation").joinpath("coverage.json").read_text(encoding="utf-8")
    content = json.loads(text)
    cells: dict[str, tuple[Cell, ...]] = {}
    for each in content["cells"]:
        metric = each.pop("metric")
        cells[metric] = (*cells.get(metric, ()), Cell(**each))
    low, high = content["trusted"]
    return Coverage(low, high, cells)


def with_trust(
    interval: Interval, metric: str, informative: float, table: Coverage | None = None
) -> Interval:
    """Return the interval, with a note where its coverage in simulations was not the nominal one.

    The simulation whose rows and value are nearest is asked. A metric that was not simulated gets no note.

    Args:
        interval: An interval of nominally 95 %.
        metric: The metric's name.
        informative: How many rows it hangs on: all for a share of rows, those of the rarest class for most.
        table: The simulations; those that ship with the package unless told.
    """
    known = table or coverage_table()
    cells = known.cells.get("proportion" if metric in SHARES else metric, ())
    if interval.low is None or interval.value is None or not cells:
        return interval
    rows = interval.n if metric in SHARES else informative
    note = _note(metric, rows, interval.value, cells, known)
    if note is None:
        return interval
    return replace(interval, note=f"{interval.note}; {note}" if interval.note else note)


def _note(metric: str, rows: float, value: float, cells: tuple[Cell, ...], table: Coverage) -> str | None:
    fewest = min(cell.informative for cell in cells)
    what = "rows" if metric in SHARES or metric.endswith("_weighted") else "rows of the rarest class"
    if rows < FEWER * fewest:
        said = f"{rows:.0f}" if rows >= 1 or rows == 0 else "less than 1"
        return f"interval not to be trusted: {said} {what}, fewer than the {fewest:.0f} of any simulation ({PAGE})"

    def distance(cell: Cell) -> float:
        size = math.log(max(rows, 1.0) / cell.informative)
        return abs(size) + abs(_place(metric, value) - _place(metric, cell.value))

    nearest = min(cells, key=distance)
    if table.low <= nearest.coverage <= table.high:
        return None
    mirrored = metric in SHARES and value < 0.5
    true = 1 - nearest.value if mirrored else nearest.value
    fault = "is likely too narrow" if nearest.coverage < table.low else "is wider than it says"
    return (
        f"the 95 % interval {fault}: with {nearest.informative:.0f} {what} and a true value of {true:.2f} "
        f"such intervals held it in {100 * nearest.coverage:.1f} % of simulations ({PAGE})"
    )


def _place(metric: str, value: float) -> float:
    """Return a value on the scale on which the simulations' values are compared."""
    if metric in LOSSES:
        return math.log(max(value, 1e-3))
    share = (value + 1) / 2 if metric == "matthews_corrcoef" else value
    if metric in SHARES:
        share = max(share, 1 - share)  # Wilson's interval of a share and of its complement mirror each other
    share = min(max(share, 0.01), 0.99)
    return math.log(share / (1 - share))
