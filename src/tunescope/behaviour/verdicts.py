"""Different, equivalent or inconclusive: what the mean changes of a suite allow to be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tunescope.behaviour.estimates import MeanChange
from tunescope.stats.intervals import FEW
from tunescope.stats.tests import holm

DIFFERENT, EQUIVALENT, INCONCLUSIVE = "different", "equivalent", "inconclusive"
LEVEL = 0.05
LEAST_GROUPS = (
    6  # with fewer no test by sign flips can reach 5 %: what cannot be seen must not be called absent
)


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        verdict: ``different``, ``equivalent`` or ``inconclusive``.
        why: In words.
        bound: The change that would not matter.
    """

    verdict: str
    why: str
    bound: float


def judge(
    signed: MeanChange | None, turned: Mapping[str, MeanChange], bound: float, way: str = ""
) -> Judgement:
    """Judge a suite by its mean changes of margin.

    A mean over pairs of both directions and all classes cancels a gap that favours one group in one class. So where a
    suite has opposite directions, the changes are turned to one direction and judged for each followed class apart.

    * *equivalent*: two one-sided tests at 5 % rule out every one of these means reaching the bound, each over 6 groups
      of pairs or more. All of them must pass, so no correction is needed (intersection-union). A mean that differs from
      0 by less than the bound is equivalent: it is seen, and does not matter by the study's own bound.
    * *different*: not equivalent, and at least one mean differs from 0 after Holm's correction over these means.
    * *inconclusive*: neither.

    Args:
        signed: Mean change of the followed class's margin; None where it may not be judged.
        turned: By followed class, the mean turned change; empty where the suite has no opposite directions.
        bound: The change that would not matter.
        way: The direction that changes are turned to, in words.
    """
    means = dict(turned)
    if signed is not None and not (
        turned and signed.cancels
    ):  # with both directions of every pair it is 0 anyway
        means["the followed class"] = signed
    known = {name: one for name, one in means.items() if one.interval.value is not None}
    if not known:
        return Judgement(INCONCLUSIVE, "too few pairs follow any one class", bound)
    labels, members = list(known), list(known.values())
    ruled_out = [_equivalent(one, bound) for one in members]
    if all(ruled_out):
        if all(one.is_constant and one.interval.value == 0 for one in members):
            return Judgement(EQUIVALENT, "no pair changes the margin", bound)
        return Judgement(EQUIVALENT, f"every mean change is shown to be within ±{bound:g}", bound)
    p = holm(np.array([np.nan if one.p is None else one.p for one in members]))
    apart = [place for place, value in enumerate(p) if value <= LEVEL]
    if apart:
        worst = max(apart, key=lambda place: abs(members[place].interval.value or 0.0))
        value = f"{members[worst].interval.value or 0.0:+.3f}".replace("-", "−")
        turn = f" from {way}" if way and labels[worst] in turned else ""
        return Judgement(DIFFERENT, f"the margin of {labels[worst]} moves by {value} on average{turn}", bound)
    open_ = [label for label, done in zip(labels, ruled_out, strict=True) if not done]
    return Judgement(
        INCONCLUSIVE, f"neither a change nor its absence is shown for the margin of {', '.join(open_)}", bound
    )


def _equivalent(one: MeanChange, bound: float) -> bool:
    if one.interval.value is None or abs(one.interval.value) >= bound:
        return False
    if one.groups < LEAST_GROUPS:
        return False
    if one.is_constant:  # nothing varies: only many groups of pairs that all say the same speak for others
        return one.groups >= FEW
    return one.equivalent_p is not None and one.equivalent_p <= LEVEL
