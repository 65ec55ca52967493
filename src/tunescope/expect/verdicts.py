"""Verdicts on rules: met, not met or undecided, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tunescope.config.expect import ExpectRule
from tunescope.expect.numbers import ROUNDING, Number

Outcome = Literal["met", "not met", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("met", "not met", "undecided")
WORST_FIRST = {"not met": 0, "undecided": 1, "met": 2}


@dataclass(frozen=True)
class Verdict:
    """What became of one rule for one arm and seed.

    Attributes:
        rule: The place of the rule in the list, from 0.
        name: The rule's name, or what it is about in words.
        verdict: met, not met or undecided.
        arm: The arm, or None.
        seed: The seed, or None.
        value: The number; of several that match, the one that decides the verdict.
        low: The lower end of its interval.
        high: The upper end.
        n: How many rows it is made of.
        lower: The least that it may be, or None.
        upper: The most that it may be, or None.
        numbers: How many numbers of this arm and seed the rule is about.
        broken: How many of them are not met.
        source: Where the expectation comes from, or None.
        sentence: All of that in words.
    """

    rule: int
    name: str
    verdict: Outcome
    arm: str | None
    seed: int | None
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    lower: float | None
    upper: float | None
    numbers: int
    broken: int
    source: str | None
    sentence: str

    def record(self) -> dict[str, Any]:
        """Return the verdict as a mapping for ``expect.json``."""
        return asdict(self)


def by_training(numbers: Sequence[Number]) -> dict[tuple[str | None, int | None], list[Number]]:
    """Return numbers by arm (or baseline) and seed, in order of first appearance."""
    groups: dict[tuple[str | None, int | None], list[Number]] = {}
    for number in numbers:
        arm = number.axes.get("arm") or number.axes.get("baseline")
        groups.setdefault((arm, number.axes.get("seed")), []).append(number)
    return groups


def decide(number: Number, rule: ExpectRule) -> Outcome:
    """Return the verdict on one number: its interval against the rule's bounds, or its value alone.

    The value alone counts where the rule says so (``judge: value``) and where the number has no interval.
    """
    if number.value is None:
        return "undecided"
    low, high = number.value, number.value
    if rule.judge == "interval" and number.low is not None and number.high is not None:
        low, high = number.low, number.high
    lower, upper = rule.bounds
    slack = ROUNDING * max(1.0, abs(number.value))
    if (lower is not None and high < lower - slack) or (upper is not None and low > upper + slack):
        return "not met"
    kept = (lower is None or low >= lower - slack) and (upper is None or high <= upper + slack)
    return "met" if kept else "undecided"


def judge(
    index: int, rule: ExpectRule, arm: str | None, seed: int | None, numbers: Sequence[Number]
) -> Verdict:
    """Judge the numbers of one training; the worst decides."""
    outcomes = [(decide(number, rule), number) for number in numbers]
    outcome, number = min(outcomes, key=lambda pair: (WORST_FIRST[pair[0]], -_distance(pair[1], rule)))
    lower, upper = rule.bounds
    broken = sum(one == "not met" for one, _ in outcomes)
    return Verdict(
        rule=index, name=rule.name or subject(rule), verdict=outcome, arm=arm, seed=seed, value=number.value,
        low=number.low, high=number.high, n=number.n, lower=lower, upper=upper, numbers=len(numbers),
        broken=broken, source=rule.source, sentence=_sentence(rule, outcome, arm, seed, number, outcomes),
    )  # fmt: skip


def _distance(number: Number, rule: ExpectRule) -> float:
    """Return how far a value lies outside the bounds; below 0 inside."""
    if number.value is None:
        return 0.0
    lower, upper = rule.bounds
    gaps = [] if lower is None else [lower - number.value]
    return max([*gaps, *([] if upper is None else [number.value - upper])])


def subject(rule: ExpectRule) -> str:
    """Return what a rule is about, without arm and seed."""
    parts = [rule.metric] if rule.lens is None else [f"{rule.lens} {rule.metric}"]
    parts += [f"of {rule.label!r}"] if rule.label else []
    parts += [f"minus that of {rule.against}"] if rule.against else []
    for key in ("model", "site", "layer", "head"):
        if getattr(rule, key) is not None:
            parts.append(f"{key} {getattr(rule, key)}")
    parts += [f"{key} {value}" for key, value in rule.where.items()]
    parts += [f"on {rule.split or 'test'}"] if rule.lens is None else []
    parts += [f"where {rule.slice.column} is {rule.slice.group}"] if rule.slice else []
    return " ".join(parts)


def _bound(rule: ExpectRule) -> str:
    if rule.equals is not None:
        return f"{rule.equals:g}" + (f" ± {rule.tolerance:g}" if rule.tolerance else "")
    if rule.lower is not None and rule.upper is not None:
        return f"{rule.lower:g} to {rule.upper:g}"
    return f"at least {rule.lower:g}" if rule.lower is not None else f"at most {rule.upper:g}"


def _sentence(
    rule: ExpectRule,
    outcome: Outcome,
    arm: str | None,
    seed: int | None,
    number: Number,
    outcomes: Sequence[tuple[Outcome, Number]],
) -> str:
    who = "" if arm is None else f"{arm}{'' if seed is None else f' (seed {seed})'}: "
    about = f"{rule.name} ({subject(rule)})" if rule.name else subject(rule)
    interval = "" if number.low is None or number.high is None else f" [{number.low:.4g}, {number.high:.4g}]"
    if number.value is None:
        note = number.note or "no reason given"
        found = note if note.startswith("undefined") else f"undefined ({note})"
    else:
        found = f"{number.value:.4g}{interval}"
        if interval and rule.judge == "value":
            found += ", judged by its value"
    source = f" ({rule.source})" if rule.source else ""
    many = ""
    if len(outcomes) > 1:
        same = sum(one == outcome for one, _ in outcomes)
        many = f"; {same} of {len(outcomes)} such numbers are {outcome}, this is the farthest"
    return f"{outcome}: {who}{about} is {found}; expected {_bound(rule)}{source}{many}."
