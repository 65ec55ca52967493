"""The section on comparison: every pair of arms, what can be said of it, and what cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.report.cards import VERDICTS, one_training
from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, finite, number, percent, plural, probability, signed

LEAST_FOR_MATRIX = 4
COUNTED = {
    "found": "different", "equivalent": "equivalent", "undecided": "undecided",
    "task not learned": "where no arm has learned the task",
}  # fmt: skip
MODELS_ONLY = "these trained models"
CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


@dataclass(frozen=True)
class Pair:
    """One pair: the difference first minus second, how it was tested, and what may be said.

    Attributes:
        first: An arm.
        second: Another arm, or a baseline.
        difference: Of the metric, with interval.
        drawn: The same as a small drawing, the tick zero.
        test: The test that ``p`` is of, with the rows on which only one is right, seed by seed.
        mcnemar: The exact McNemar p, the least and the most over seeds where there are several.
        p: Of the test.
        q: Corrected over all pairs of the table.
        detectable: The smallest true difference that would be found, with its power, or the reason why there is none.
        verdict: found, equivalent, undecided or task not learned.
        style: The verdict's class in the style sheet.
        sentence: What can and cannot be concluded.
        better: The better one where they differ, else empty.
        about: What the verdict is about where that is not the methods: the trained models.
    """

    first: str
    second: str
    difference: Estimate
    drawn: Strip | None
    test: str
    mcnemar: str
    p: str
    q: str
    detectable: str
    verdict: str
    style: str
    sentence: str
    better: str
    about: str = ""


@dataclass(frozen=True)
class Spread:
    """How a metric varies over the seeds of one arm."""

    arm: str
    seeds: tuple[tuple[str, float | None], ...]
    mean: float | None
    least: float | None
    most: float | None
    deviation: Estimate
    note: str


@dataclass(frozen=True)
class Cell:
    """One cell of the overview: the row's arm minus the column's; ``style`` is better, worse, quiet or empty."""

    shown: str
    style: str
    about: str


@dataclass(frozen=True)
class Comparison:
    """The section: the order that may be drawn, the pairs, the baselines, the seeds."""

    lead: str
    ranking: str
    pairs: tuple[Pair, ...]
    against: tuple[Pair, ...]
    spreads: tuple[Spread, ...]
    notes: tuple[str, ...]
    undone: str = ""
    matrix: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    counts: str = ""

    @property
    def other_tests(self) -> bool:
        """Whether any p is of another test than the exact McNemar, so that the table needs a column for it."""
        return any(pair.p != pair.mcnemar for pair in (*self.pairs, *self.against))


def comparison(run: RunFolder) -> Comparison | None:
    """Return the section, or None where the run holds no comparison.json."""
    found = run.comparison
    if found is None:
        return None
    if not found.get("done", True):
        reason = str(found.get("reason") or "no reason is recorded")
        return Comparison("", "", (), (), (), (), f"Arms were not compared: {reason}.")
    with reading(run.folder, "comparison.json"):
        pairs, against = _pairs(found["pairs"]), _pairs(found.get("against_baselines") or [])
        arms = [one for one in found["arms"] if one.get("spread")]
        several = any(len(one["seeds"]) > 1 for one in arms)
        return Comparison(
            lead=_lead(found),
            ranking=str(found.get("ranking") or ""),
            pairs=pairs,
            against=against,
            spreads=tuple(map(_spread, arms)) if several else (),
            notes=tuple(_notes(found, several)),
            matrix=_matrix([str(one["arm"]) for one in found["arms"]], pairs),
            counts=_counts(pairs),
        )


def _counts(pairs: Sequence[Pair]) -> str:
    """Return how many pairs have which verdict."""
    told = {name: sum(pair.verdict == name for pair in pairs) for name in COUNTED}
    said = [f"{count} {COUNTED[name]}" for name, count in told.items() if count]
    return f"{plural(len(pairs), 'pair')}: {', '.join(said)}." if pairs else ""


def _matrix(arms: Sequence[str], pairs: Sequence[Pair]) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    """Return every arm against every other, where there are enough of them for an overview."""
    if len(arms) < LEAST_FOR_MATRIX:
        return ()
    known = {(pair.first, pair.second): pair for pair in pairs}
    return tuple((row, tuple(_cell(row, column, known) for column in arms)) for row in arms)


def _cell(row: str, column: str, known: Mapping[tuple[str, str], Pair]) -> Cell:
    turned = (row, column) not in known
    pair = known.get((column, row) if turned else (row, column))
    if pair is None or pair.difference.value is None:
        return Cell("", "empty", "")
    value = (-pair.difference.value if turned else pair.difference.value) + 0.0  # never minus zero
    if pair.verdict == "equivalent":
        return Cell("≈", "quiet", pair.verdict)
    # What is better is said by the file, not by the sign: of a loss, less is better.
    better = pair.better == row
    return Cell(
        signed(value), ("better" if better else "worse") if pair.verdict == "found" else "quiet", pair.verdict
    )


def _lead(found: Mapping[str, Any]) -> str:
    unit = (
        "" if found.get("groups") is None else f" in {plural(int(found['groups']), 'group')}, resampled whole"
    )
    correction = CORRECTIONS.get(str(found["correction"]), str(found["correction"]))
    level = percent(found["level"], 0)
    return (
        f"Difference of {found['metric']} on the same {plural(int(found['n']), str(found['split']) + ' row')}{unit}, "
        f"first minus second, with {level} interval. q: p corrected over the table ({correction}). Detectable: the "
        "smallest true difference that this number of rows would show."
    )


def _pairs(records: Sequence[Mapping[str, Any]]) -> tuple[Pair, ...]:
    found = [estimate(dict(one)) for one in records]
    bounds = [bound for one in found for bound in (one.value, one.low, one.high) if bound is not None]
    reach = 1.08 * max((abs(bound) for bound in bounds), default=1.0) or 1.0
    return tuple(
        _pair(one, own, strip(own, [0.0], (-reach, reach))) for one, own in zip(records, found, strict=True)
    )


def _pair(one: Mapping[str, Any], difference: Estimate, drawn: Strip | None) -> Pair:
    verdict = str(one["verdict"])
    seeds = one.get("mcnemar") or []
    p_values = [value for value in (finite(item.get("p")) for item in seeds) if value is not None]
    mcnemar = probability(min(p_values)) if p_values else "–"
    if p_values and probability(max(p_values)) != mcnemar:
        mcnemar += f" to {probability(max(p_values))}"
    split = [f"{number(item['only_first'])} : {number(item['only_second'])}" for item in seeds[:3]]
    rows = f"only one is right, rows {'; '.join(split)}{' …' if len(seeds) > 3 else ''}" if split else ""
    detectable = one.get("detectable") or {}
    smallest = finite(detectable.get("value"))
    power = finite(detectable.get("power"))
    return Pair(
        first=str(one["first"]),
        second=str(one["second"]),
        difference=difference,
        drawn=drawn,
        test="; ".join(part for part in (str(one.get("test") or ""), rows) if part),
        mcnemar=mcnemar,
        p=probability(one.get("p")),
        q=probability(one.get("q")),
        detectable=("none" if detectable.get("note") else "–")  # the pair's sentence says why
        if smallest is None
        else number(smallest) + ("" if power is None else f" ({percent(power, 0)})"),
        verdict=verdict,
        style=VERDICTS.get(verdict, "undecided"),
        sentence=str(one.get("sentence") or ""),
        better=str(one.get("better") or ""),
        about=MODELS_ONLY if one_training(one) and verdict in ("found", "equivalent") else "",
    )


def _spread(one: Mapping[str, Any]) -> Spread:
    spread = one["spread"]
    return Spread(
        arm=str(one["arm"]),
        seeds=tuple((str(item["seed"]), finite(item["value"])) for item in one["seeds"]),
        mean=finite(spread.get("mean")),
        least=finite(spread.get("least")),
        most=finite(spread.get("most")),
        deviation=Estimate(
            finite(spread.get("standard_deviation")), finite(spread.get("low")), finite(spread.get("high"))
        ),
        note=str(spread.get("note") or ""),
    )


def _notes(found: Mapping[str, Any], several: bool) -> list[str]:
    notes = []
    if not several and found.get("arms"):
        notes.append(
            "One seed each: how much another seed would change a value is not known. A difference is one of these "
            "trained models; whether the methods differ is undecided and needs several seeds."
        )
    unpaired = found.get("unpaired_detectable") or {}
    if finite(unpaired.get("value")) is not None:
        notes.append(
            f"Against a figure published on other rows of this number, a difference of accuracy below "
            f"{number(unpaired['value'])} would mostly be missed (unpaired, "
            f"{percent(unpaired.get('power'), 0)} power)."
        )
    return notes


def undecided(run: RunFolder) -> list[str]:
    """Return what the comparison leaves open, for the limits."""
    found = run.comparison
    if not found or not found.get("done", True):
        return []
    with reading(run.folder, "comparison.json"):
        pairs = [one for one in found["pairs"] if one["verdict"] == "undecided"]
        if not pairs:
            return []
        seeds = {one["scope"] for one in pairs if one.get("scope")}
    scope = "" if "rows and seeds" in seeds else " Other seeds were not asked."
    names = "; ".join(f"{one['first']} or {one['second']}" for one in pairs[:5])
    more = f" (and {len(pairs) - 5} more pairs)" if len(pairs) > 5 else ""
    return [f"Which is better by {found['metric']} cannot be said: {names}{more}.{scope}"]
