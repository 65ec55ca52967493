"""Verdicts on published claims by the rules that a recipe states: bounds on numbers of the run, first match counts.

A condition holds where the whole interval of its number keeps the bounds, or the value alone where the rule says so. A
number without an interval is no evidence for a rule that asks for one: the claim is then not testable. The difference
of two numbers has the interval from ``low - other high`` to ``high - other low``, which is never too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tunescope.config.claims import (
    NOT_REPRODUCED,
    NOT_TESTABLE,
    UNLEARNED,
    ClaimConfig,
    ClaimNumber,
    Condition,
)
from tunescope.lenses.claims.rules import Judged, said

AXES = ("lens", "arm", "baseline", "against", "split", "label", "model", "site", "layer", "head")


class Found(Protocol):
    """One number of a run, as whoever looks it up returns it."""

    @property
    def axes(self) -> Mapping[str, Any]:
        """What it is about."""

    @property
    def value(self) -> float | None:
        """The number."""

    @property
    def low(self) -> float | None:
        """The lower end of its interval, or None."""

    @property
    def high(self) -> float | None:
        """The upper end, or None."""

    @property
    def n(self) -> int | None:
        """How many rows it is made of."""


Find = Callable[[ClaimNumber], Sequence[Found]]
"""Looks up the numbers that a selection means; raises LookupError with a sentence where there are none."""


@dataclass(frozen=True)
class Measured:
    """A number with its interval; the interval's ends are None where it has none."""

    value: float
    low: float | None
    high: float | None
    n: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        known = self.low is not None and self.high is not None
        return (self.low, self.high) if known else (self.value, self.value)  # type: ignore[return-value]


def measure(number: ClaimNumber, find: Find) -> Measured:
    """Return the one number that a selection means.

    Raises:
        LookupError: There is none, it is undefined, or there are several and ``take`` says only one.
    """
    found = [
        one for one in find(number)
        if not any(_same(one.axes.get(key), value) for key, value in number.without.items())
    ]  # fmt: skip
    known = [Measured(float(one.value), one.low, one.high, one.n) for one in found if one.value is not None]
    if not known:
        raise LookupError(f"{name_of(number)} is undefined")
    if number.take == "only":
        if len(known) > 1:
            raise LookupError(f"{len(known)} numbers are {name_of(number)}, and the rule means one")
        return known[0]
    if number.take == "mean":
        ends = list(zip(*(one.ends for one in known), strict=True))
        mean = [sum(side) / len(known) for side in ([one.value for one in known], *ends)]
        return Measured(mean[0], mean[1], mean[2], known[0].n)
    key: Callable[[Measured], float] = (
        (lambda one: abs(one.value)) if number.take == "largest" else (lambda one: one.value)
    )
    return (min if number.take == "least" else max)(known, key=key)


def _same(found: Any, wanted: Any) -> bool:
    return found is not None and (found == wanted or str(found) == str(wanted))


def name_of(number: ClaimNumber) -> str:
    """Return what a number is about, in words."""
    parts = [f"{key} {value}" for key in AXES if (value := getattr(number, key)) is not None]
    parts += [f"{key} {value}" for key, value in number.where.items()]
    parts += [f"without {key} {value}" for key, value in number.without.items()]
    take = "" if number.take == "only" else f"{number.take} "
    return f"{take}{number.metric}" + (f" ({', '.join(parts)})" if parts else "")


def words_of(condition: Condition) -> str:
    """Return a condition in words, for the rule that stands beside a verdict."""
    words = "the number" if condition.number is None else name_of(condition.number)
    if condition.minus is not None:
        times = "" if condition.times == 1 else f"{condition.times:g} times "
        words += f" minus {times}{name_of(condition.minus)}"
    words = f"the size of {words}" if condition.size else words
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("at least", condition.lower), ("at most", condition.upper))
        if bound is not None
    ]
    return f"{words} {' and '.join(bounds)}"


def rule_of(claim: ClaimConfig) -> str:
    """Return the rules of a claim in words."""
    if claim.not_testable is not None:
        return "none: it cannot be tested here"
    rules = [f"{one.verdict}: {' and '.join(words_of(part) for part in one.when)}" for one in claim.verdicts]
    return "; ".join([*rules, f"otherwise {NOT_REPRODUCED}"])


def judge(claim: ClaimConfig, find: Find) -> Judged:
    """Judge one claim for one training.

    Args:
        claim: The claim, whose rules are ``verdicts`` (or which cannot be tested).
        find: Looks numbers up, for one arm and one seed.
    """
    if claim.number is None:
        return Judged(NOT_TESTABLE, str(claim.not_testable))
    try:
        own = measure(claim.number, find)
    except LookupError as error:
        return Judged(NOT_TESTABLE, claim.not_testable or str(error.args[0]))
    ours = "; ".join([_said(own), *(_beside(words, number, find) for words, number in claim.also.items())])
    try:
        verdict, why = (
            (NOT_TESTABLE, claim.not_testable) if claim.not_testable is not None else _first(claim, own, find)
        )
    except LookupError as error:
        verdict, why = NOT_TESTABLE, str(error.args[0])
    return Judged(verdict, why, ours, own.value, own.low, own.high, own.n)


def _beside(words: str, number: ClaimNumber, find: Find) -> str:
    try:
        return f"{words} {_said(measure(number, find))}"
    except LookupError:
        return f"{words} not measured"


def _first(claim: ClaimConfig, own: Measured, find: Find) -> tuple[str, str]:
    for rule in claim.verdicts:
        held = [_holds(condition, own, find) for condition in rule.when]
        if all(holds for holds, _ in held):
            return rule.verdict, f"{rule.because}: {'; '.join(text for _, text in held)}"
    return NOT_REPRODUCED, claim.otherwise


def _holds(condition: Condition, own: Measured, find: Find) -> tuple[bool, str]:
    """Return whether a condition holds, and the number that says so in words.

    Raises:
        LookupError: A number has no interval, and the rule asks for it.
    """
    one = own if condition.number is None else measure(condition.number, find)
    one = _size(one) if condition.size else one
    if condition.minus is not None:
        other = measure(condition.minus, find)
        one = _minus(one, _size(other) if condition.size else other, condition.times)
    if condition.judge == "interval" and (one.low is None or one.high is None):
        rows = "" if one.n is None else f" of {one.n} rows"
        raise LookupError(f"{words_of(condition)} is judged by an interval, and {_said(one)}{rows} has none")
    low, high = one.ends if condition.judge == "interval" else (one.value, one.value)
    holds = (condition.lower is None or low >= condition.lower) and (
        condition.upper is None or high <= condition.upper
    )
    return holds, f"{words_of(condition)} (measured {_said(one)})"


def _size(one: Measured) -> Measured:
    low, high = one.ends
    if one.low is None or one.high is None:
        return Measured(abs(one.value), None, None, one.n)
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Measured(abs(one.value), least, max(abs(low), abs(high)), one.n)


def _minus(one: Measured, other: Measured, times: float) -> Measured:
    ends = sorted(times * end for end in other.ends)
    low, high = one.ends
    value = one.value - times * other.value
    if None in (one.low, one.high, other.low, other.high):
        return Measured(value, None, None, one.n)
    return Measured(value, low - ends[1], high - ends[0], one.n)


def _said(one: Measured) -> str:
    """Return a number with its interval; one too small for three places is written with a power of ten."""
    if 0 < abs(one.value) < 0.001:
        ends = "" if one.low is None or one.high is None else f" [{one.low:.1e}, {one.high:.1e}]"
        return f"{one.value:.1e}{ends}"
    return said(Judged("", "", "", one.value, one.low, one.high), 3)


def unless_unlearned(judged: Judged, names: Sequence[str]) -> Judged:
    """Return a judgement, unless a model did not learn its task: then nothing it does says what tuning does."""
    if not names or judged.verdict.startswith(NOT_TESTABLE):
        return judged
    who = "its accuracy does not clear the majority's"
    why = who if len(names) == 1 else f"{', '.join(names)}: accuracy does not clear the majority's"
    return Judged(UNLEARNED, why, judged.ours, judged.value, judged.low, judged.high, judged.n)
