"""The claims of a study judged for the models of a run, by the rules that the recipe states.

Each claim has what was reported, the same number for these models with its interval, and a verdict that follows from
both by a rule that is written beside it. No verdict is given by hand, and none where a model did not learn its task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from tunescope.config.claims import NOT_TESTABLE, ClaimConfig, ClaimNumber
from tunescope.lenses.claims.judge import Find, Found, judge, rule_of, unless_unlearned
from tunescope.lenses.claims.rules import (
    Arm,
    Judged,
    agreed,
    bow_tie_claim,
    few_dimensions_claim,
    last_half_claim,
    one_dimension_claim,
    said,
    same_place_claim,
)
from tunescope.lenses.look import LensOutput
from tunescope.stats.results import result_table

NAME = "claims"
WHAT = (
    "What the study claimed, what it reported, the same number for these models, and a verdict by a rule that is "
    "written beside it."
)
Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class NamedRule:
    """A rule that is code.

    Attributes:
        lens: The lens whose table it needs.
        words: The rule in words.
        judge: Judges one arm from its rows of every table, with the options of the claim.
        options: The names of its options.
        across: Whether it compares arms, and so is judged once for every pair of a decoder and an encoder.
    """

    lens: str
    words: str
    judge: Callable[..., Judged]
    options: tuple[str, ...] = ()
    across: bool = False


def _one_dimension(own: Tables, **options: float) -> Judged:
    return one_dimension_claim(own["dimensions"], **options)


RULES: dict[str, NamedRule] = {
    "bow_tie": NamedRule(
        "cka",
        "reproduced: the change of the bow-tie lies above 0, also at equal distance in depth and with standardised "
        "dimensions; artefact: it lies above 0, but not in one of these",
        lambda own: bow_tie_claim(own["cka"]),
    ),
    "last_half": NamedRule(
        "cka",
        "reproduced: base and tuned are less alike in the last half of the blocks than in the first, by CKA and by "
        "standardised CKA; artefact: by CKA alone, or no less alike anywhere than two seeds of the recipe are",
        lambda own: last_half_claim(own["cka"]),
    ),
    "same_place": NamedRule(
        "spread",
        "reproduced: the stated share of the loudest dimensions or more is shared with a model of another task, and "
        "more than the untuned base shares with it; artefact of pretraining: the base shares as many",
        lambda own, **options: same_place_claim(own.get("other_models"), own.get("spread"), **options),
        ("shared",),
    ),
    "one_dimension": NamedRule(
        "dimensions",
        "reproduced: the loudest dimension loses no more than the stated part of the model's accuracy, and its "
        "interval lies above the best random direction; artefact of any direction: it loses no more, but a random "
        "direction does as well",
        _one_dimension,
        ("loss",),
    ),
    "few_dimensions": NamedRule(
        "dimensions",
        "reproduced: removing all but the same share of the loudest loses no more than 2 points, and a random choice "
        "of as many loses more; artefact: a random choice loses no more",
        lambda own, **options: few_dimensions_claim(own["dimensions"], **options),
        ("kept",),
    ),
    "encoder_loses_more": NamedRule(
        "dimensions",
        "reproduced: the loudest dimension loses a greater part of the accuracy in the encoder than in the decoder, "
        "intervals apart",
        _one_dimension,
        ("loss",),
        across=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What claims are judged on.

    Attributes:
        tables: The tables of the lenses, over all arms and seeds.
        arms: What is known of each arm that was trained (or prompted).
        seeds: The seeds of the study.
        find: Looks up numbers of the run; raises LookupError with a sentence where there are none.
    """

    tables: Tables
    arms: Mapping[str, Arm]
    seeds: Sequence[int]
    find: Find


def claims(wanted: Sequence[ClaimConfig], evidence: Evidence) -> LensOutput | None:
    """Judge every claim; None where there are none.

    Returns:
        One row for each claim and arm (or pair of arms): ``claim``, ``statement``, ``theirs``, ``source``,
        ``published``, ``arms``, ``ours``, ``value`` with its interval, ``verdict``, ``why``, ``rule``, ``lower`` and
        ``upper`` (the expected band), ``outside`` (whether the number lies outside it), ``needed``, ``set_after``
        (which numbers were known when its bounds were set).
    """
    if not wanted:
        return None
    records = [
        {**_stated(claim), "arms": names, "arm": names if names in evidence.arms else None, "model": "tuned",
         **_record(claim, one)}
        for claim in wanted
        for names, one in _judged(claim, evidence)
    ]  # fmt: skip
    return LensOutput(
        NAME, result_table(records), None, [], {"what": WHAT, "rows": {}, "options": {}, "notes": []}
    )


def _stated(claim: ClaimConfig) -> dict[str, Any]:
    rule = RULES[claim.rule].words if claim.rule is not None else rule_of(claim)
    return {
        "metric": "claim", "claim": claim.claim, "statement": claim.statement, "theirs": claim.reported,
        "source": claim.source, "published": claim.published, "rule": rule, "needed": claim.needed,
        "set_after": claim.set_after if claim.verdicts else None,
        "lower": claim.lower, "upper": claim.upper,
    }  # fmt: skip


def _record(claim: ClaimConfig, one: Judged) -> dict[str, Any]:
    outside = one.value is not None and (
        (claim.lower is not None and one.value < claim.lower)
        or (claim.upper is not None and one.value > claim.upper)
    )
    verdict = f"{NOT_TESTABLE} because {one.why}" if one.verdict == NOT_TESTABLE and one.why else one.verdict
    return {
        "value": one.value, "low": one.low, "high": one.high, "n": one.n, "ours": one.ours, "why": one.why,
        "verdict": verdict, "outside": outside,
    }  # fmt: skip


def _judged(claim: ClaimConfig, evidence: Evidence) -> Iterator[tuple[str, Judged]]:
    """Yield whom a claim is judged for, and the judgement."""
    if claim.rule is not None:
        yield from _by_rule(claim, RULES[claim.rule], evidence)
        return
    number = claim.number
    if number is None:
        yield "", judge(claim, evidence.find)
        return
    if number.arm is None and number.baseline is not None:
        yield number.baseline, judge(claim, evidence.find)
        return
    for arm in [number.arm] if number.arm is not None else _arms(claim, evidence):
        each: dict[int | None, Judged] = {
            seed: judge(claim, partial(_look, evidence.find, arm, seed)) for seed in evidence.seeds
        }
        about = evidence.arms.get(arm, Arm(None, None))
        unlearned = [arm] if about.learned is False and claim.learned else []
        yield arm, unless_unlearned(agreed(each), unlearned)


def _arms(claim: ClaimConfig, evidence: Evidence) -> list[str]:
    return list(claim.arms if claim.arms is not None else evidence.arms)


def _look(find: Find, arm: str, seed: int, number: ClaimNumber) -> Sequence[Found]:
    """Look a number up for one arm and seed, where it is about an arm and says neither itself."""
    if number.baseline is not None:
        return find(number)
    own: dict[str, Any] = {"arm": number.arm or arm}
    if number.against is None and number.seed is None:
        own["seed"] = seed
    return find(number.model_copy(update=own))


def _by_rule(claim: ClaimConfig, rule: NamedRule, evidence: Evidence) -> Iterator[tuple[str, Judged]]:
    options = dict(claim.options)
    if rule.across:
        yield from _across(claim, rule, evidence)
        return
    for arm in _arms(claim, evidence):
        own = {name: table.filter(pl.col("arm") == arm) for name, table in evidence.tables.items()}
        if rule.lens not in own or own[rule.lens].is_empty():
            yield arm, Judged(NOT_TESTABLE, f"the lens {rule.lens} was not run for it")
            continue
        about = evidence.arms.get(arm, Arm(None, None))
        unlearned = [arm] if about.learned is False and claim.learned else []
        yield arm, unless_unlearned(rule.judge(own, **options), unlearned)


def _across(claim: ClaimConfig, rule: NamedRule, evidence: Evidence) -> Iterator[tuple[str, Judged]]:
    """Yield the encoder's loss minus the decoder's, of every pair of such arms."""
    names = _arms(claim, evidence)
    known = {name: evidence.arms.get(name, Arm(None, None)) for name in names}
    decoders = [name for name in names if known[name].decoder]
    encoders = [name for name in names if known[name].decoder is False]
    if not decoders or not encoders or rule.lens not in evidence.tables:
        missing = "encoder" if decoders else "decoder"
        there = rule.lens in evidence.tables
        why = f"the study has no {missing}" if there else f"the lens {rule.lens} was not run"
        yield ", ".join(names), Judged(NOT_TESTABLE, why)
        return
    table = evidence.tables[rule.lens]
    for first in decoders:
        for second in encoders:
            both = [
                rule.judge({rule.lens: table.filter(pl.col("arm") == name)}, **dict(claim.options))
                for name in (first, second)
            ]
            unlearned = [name for name in (first, second) if known[name].learned is False]
            judged = unless_unlearned(_compared(both[0], both[1]), unlearned if claim.learned else [])
            yield f"{first} and {second}", judged


def _compared(decoder: Judged, encoder: Judged) -> Judged:
    ends = [decoder.value, encoder.value, decoder.low, encoder.high]
    if any(end is None for end in ends):
        return Judged(NOT_TESTABLE, "a loss is not known")
    first, second, low, high = (float(end) for end in ends if end is not None)
    ours = "of the accuracy, decoder " + ", encoder ".join(_loss(one) for one in (decoder, encoder))
    more = high < low  # losses are negative: the encoder loses more
    why = (
        "the encoder loses more, intervals apart"
        if more
        else "the encoder loses no more, or the intervals overlap"
    )
    verdict = "reproduced" if more else "not reproduced"
    return Judged(verdict, why, ours, second - first, n=decoder.n)


def _loss(one: Judged) -> str:
    return said(Judged("", "", "", one.value, one.low, one.high), 3, True)
