"""The numbers of a run folder that a rule may be about, found by what they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.config.expect import NumberOf
from tunescope.config.problems import unknown
from tunescope.files import read_json
from tunescope.stats.results import Result

# A lens's paired difference beside a number: a number of its own, whose metric ends in _difference.
DIFFERENCE = ("difference", "difference_low", "difference_high")
ROUNDING = 1e-9  # a bound is not broken by the last digits of a float


@dataclass(frozen=True)
class Number:
    """One number of a run that a rule may be about.

    Attributes:
        axes: What it is about: arm, seed, split, metric, label and so on.
        value: The number; None where it is undefined.
        low: The lower end of its interval; None where it has none.
        high: The upper end.
        n: How many rows it is made of; None where that is not known.
        note: What the reader must know.
    """

    axes: Mapping[str, Any]
    value: float | None
    low: float | None
    high: float | None
    n: int | None = None
    note: str | None = None


class NothingMatchesError(Exception):
    """A rule is about something that the run does not have; the text says what, with the nearest name."""


class RunNumbers:
    """The numbers of a run folder, read when first asked for."""

    def __init__(self, folder: Path, tables: Mapping[str, pl.DataFrame] | None = None) -> None:
        """Read from a run folder; ``tables`` are those of the lenses, where ``results/`` is yet to be written."""
        self.folder = folder
        self.tables = tables
        self._found: dict[str, list[Number]] = {}

    def _once(self, key: str, read: Callable[[], list[Number]]) -> list[Number]:
        if key not in self._found:
            self._found[key] = read()
        return self._found[key]

    def arms(self) -> list[Number]:
        """Return the metrics of every training."""
        return self._once("arms", lambda: _metrics(self.folder / "arms", "arms/*/seed-*", "arm"))

    def baselines(self) -> list[Number]:
        """Return the metrics of every baseline."""
        return self._once("baselines", lambda: _metrics(self.folder / "baselines", "baselines/*", "baseline"))

    def differences(self) -> list[Number]:
        """Return the paired differences of arms, in both directions."""
        return self._once("differences", lambda: _differences(self.folder / "comparison.json"))

    def lenses(self) -> list[str]:
        """Return the names of the lenses that have a result."""
        if self.tables is not None:
            return sorted(self.tables)
        return sorted(path.stem for path in (self.folder / "results").glob("*.parquet"))

    def lens(self, name: str) -> list[Number]:
        """Return the numbers that a lens found."""

        def table() -> pl.DataFrame:
            if self.tables is not None:
                return self.tables[name]
            return Result.load(self.folder / "results", name).table

        return self._once(f"lens {name}", lambda: _of_lens(table()))


def _metrics(folder: Path, pattern: str, kind: str) -> list[Number]:
    numbers: list[Number] = []
    for path in sorted(folder.parent.glob(f"{pattern}/metrics.json")):
        document = read_json(path)
        place = path.parent.name if kind == "baseline" else path.parent.parent.name
        own = {kind: document.get(kind, place), "seed": document.get("seed")}
        for record in [*document.get("records", []), *document.get("slices", [])]:
            axes = {**own, **{key: record.get(key) for key in ("split", "metric", "column")}}
            axes |= {"label": record.get("class"), "group": _text(record.get("group"))}
            numbers.append(_number(axes, record))
        for metric, value in {**document, **(document.get("cost") or {})}.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and metric != "seed":
                axes = {**own, "split": None, "metric": metric, "column": None, "label": None, "group": None}
                numbers.append(Number(axes, float(value), None, None))
    return numbers


def _differences(path: Path) -> list[Number]:
    if not path.is_file():
        return []
    document = read_json(path)
    numbers = []
    for record in [*document.get("pairs", []), *document.get("against_baselines", [])]:
        axes = {"metric": document["metric"], "split": document["split"], "seed": None}
        numbers.append(_number({**axes, "arm": record["first"], "against": record["second"]}, record))
        turned = {
            "value": _minus(record["value"]), "low": _minus(record["high"]), "high": _minus(record["low"]),
            "n": record.get("n"), "note": record.get("note"),
        }  # fmt: skip
        numbers.append(_number({**axes, "arm": record["second"], "against": record["first"]}, turned))
    return numbers


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _of_lens(table: pl.DataFrame) -> list[Number]:
    table = table.rename({"class": "label"}) if "class" in table.columns else table
    values = ("value", "low", "high", "n", "note", "p", "q", *DIFFERENCE)
    numbers = []
    for record in table.iter_rows(named=True):
        axes = {key: value for key, value in record.items() if key not in values}
        numbers.append(_number(axes, record))
        if record.get("difference") is not None:
            value, low, high = (record.get(key) for key in DIFFERENCE)
            named = {**axes, "metric": f"{axes['metric']}_difference"}
            numbers.append(Number(named, value, low, high, record.get("n")))
    return numbers


def _number(axes: Mapping[str, Any], record: Mapping[str, Any]) -> Number:
    return Number(axes, *(record.get(key) for key in ("value", "low", "high", "n", "note")))


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def numbers_of(run: RunNumbers, rule: NumberOf) -> list[Number]:
    """Return the numbers that a rule is about.

    Raises:
        NothingMatchesError: There are none; the text says at which word of the rule they ran out.
    """
    if rule.lens is not None:
        return _narrow(_lens_numbers(run, rule), _lens_axes(rule))
    split = rule.split or "test"
    if rule.against is not None:
        found = run.differences()
        if not found:
            raise NothingMatchesError("the run compares no arms (no comparison.json)")
        arm = [("arm", rule.arm)] if rule.arm is not None else []
        return _narrow(found, [*arm, ("against", rule.against), ("metric", rule.metric), ("split", split)])
    found = run.arms() if rule.baseline is None else run.baselines()
    if not found:
        raise NothingMatchesError(
            f"the run has no metrics of any {'arm' if rule.baseline is None else 'baseline'}"
        )
    axes: list[tuple[str, Any]] = [
        (key, getattr(rule, key)) for key in ("arm", "baseline", "seed") if getattr(rule, key) is not None
    ]
    axes.append(("metric", rule.metric))
    narrowed = _narrow(found, axes)
    if all(number.axes["split"] is None for number in narrowed) and rule.split is None:
        return narrowed  # a cost, which has no split
    sliced: list[tuple[str, Any]] = [("column", None)]
    if rule.slice is not None:
        sliced = [("column", rule.slice.column), ("group", _text(rule.slice.group))]
    return _narrow(narrowed, [("split", split), *sliced, ("label", rule.label)])


def _lens_numbers(run: RunNumbers, rule: NumberOf) -> list[Number]:
    assert rule.lens is not None
    if rule.lens not in run.lenses():
        raise NothingMatchesError(unknown("lens", rule.lens, run.lenses()))
    return run.lens(rule.lens)


def _lens_axes(rule: NumberOf) -> list[tuple[str, Any]]:
    named = [("metric", rule.metric)]
    for key in ("arm", "seed", "model", "site", "layer", "head"):
        if getattr(rule, key) is not None:
            named.append((key, getattr(rule, key)))
    return [*named, *rule.where.items(), ("label", rule.label)]


def _narrow(numbers: list[Number], axes: Sequence[tuple[str, Any]]) -> list[Number]:
    """Keep the numbers that have every value, and say where they ran out."""
    for key, wanted in axes:
        if numbers and all(key not in number.axes for number in numbers):
            raise NothingMatchesError(unknown("column", key, sorted({k for n in numbers for k in n.axes})))
        kept = [number for number in numbers if _equal(number.axes.get(key), wanted)]
        if not kept:
            there = sorted({str(n.axes[key]) for n in numbers if n.axes.get(key) is not None}, key=_natural)
            if wanted is None:
                raise NothingMatchesError(
                    f"there is no such number over all {key}s; name one of: {', '.join(there)}"
                )
            raise NothingMatchesError(unknown(key, wanted, there))
        numbers = kept
    return numbers


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def _equal(found: Any, wanted: Any) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if isinstance(found, bool) or isinstance(wanted, bool):
        return _text(found) == _text(wanted)
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return abs(found - wanted) <= ROUNDING
    return str(found) == str(wanted)
