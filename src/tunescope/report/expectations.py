"""The section on expectations: every rule, the number it is about, and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, finite, number, plural

STYLES = {"met": "met", "not met": "unmet", "undecided": "undecided"}
ORDER = {"not met": 0, "undecided": 1, "met": 2}
SHOWN_UNMET = 3


@dataclass(frozen=True)
class Expectation:
    """What became of one rule for one arm and seed."""

    name: str
    arm: str
    seed: str
    value: Estimate
    bound: str
    drawn: Strip | None
    verdict: str
    style: str
    sentence: str
    source: str


@dataclass(frozen=True)
class Expectations:
    """All verdicts, what is not met first, and the sentence that says so loudly."""

    rows: tuple[Expectation, ...]
    counts: Mapping[str, int]

    @property
    def summary(self) -> str:
        """How many are met, not met and undecided."""
        said = [
            f"{self.counts[key]} {key}" for key in ("met", "not met", "undecided") if self.counts.get(key)
        ]
        return f"{plural(len(self.rows), 'expectation')}: {', '.join(said)}." if said else ""

    @property
    def alarm(self) -> str:
        """One sentence on what is not met; empty where nothing is."""
        broken = [row for row in self.rows if row.verdict == "not met"]
        if not broken:
            return ""
        named = "; ".join(
            f"{row.name}{_who(row, broken)} is {row.value}, expected {row.bound}"
            for row in broken[:SHOWN_UNMET]
        )
        more = f"; and {len(broken) - SHOWN_UNMET} more" if len(broken) > SHOWN_UNMET else ""
        verb = "is" if len(broken) == 1 else "are"
        return f"{len(broken)} of {plural(len(self.rows), 'expectation')} {verb} not met: {named}{more}."


def _who(row: Expectation, others: Sequence[Expectation]) -> str:
    """Return the arm of an expectation in brackets, with its seed where another seed fails it too."""
    if not row.arm:
        return ""
    many = sum((one.name, one.arm) == (row.name, row.arm) for one in others) > 1
    return f" ({row.arm}{f', seed {row.seed}' if many and row.seed else ''})"


def expectations(run: RunFolder) -> Expectations | None:
    """Return the section, or None where the run holds no expect.json."""
    if run.expect is None:
        return None
    with reading(run.folder, "expect.json"):
        rows = sorted(map(_row, run.expect["verdicts"]), key=lambda row: ORDER.get(row.verdict, 1))
        counts: dict[str, int] = {}
        for row in rows:
            counts[row.verdict] = counts.get(row.verdict, 0) + 1
        return Expectations(tuple(rows), counts)


def _row(one: Mapping[str, Any]) -> Expectation:
    value = estimate(dict(one))
    lower, upper = finite(one.get("lower")), finite(one.get("upper"))
    bounds = [bound for bound in (lower, upper) if bound is not None]
    known = [bound for bound in (*bounds, value.value, value.low, value.high) if bound is not None]
    room = 0.1 * ((max(known) - min(known)) or abs(known[0]) or 1.0) if known else 1.0
    verdict = str(one["verdict"])
    return Expectation(
        name=str(one["name"]),
        arm=str(one.get("arm") or ""),
        seed="" if one.get("seed") is None else str(one["seed"]),
        value=value,
        bound=_bound(lower, upper),
        drawn=strip(value, bounds, (min(known) - room, max(known) + room)) if known else None,
        verdict=verdict,
        style=STYLES.get(verdict, "undecided"),
        sentence=str(one.get("sentence") or ""),
        source=str(one.get("source") or ""),
    )


def _bound(lower: float | None, upper: float | None) -> str:
    if lower is not None and upper is not None:
        return _plain(lower) if lower == upper else f"{_plain(lower)} to {_plain(upper)}"
    return f"at least {_plain(lower)}" if lower is not None else f"at most {_plain(upper)}"


def _plain(bound: float | None) -> str:
    """Return a bound as somebody wrote it: whole numbers without decimals."""
    return number(int(bound)) if bound is not None and bound.is_integer() else number(bound)
