"""What a comparison allows to be said, and what it does not, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunescope.evaluation.comparison.arms import ComparisonOptions

ONE_SEED = "One seed each: this is about these trained models; of the methods nothing is decided before several seeds."
CORRECTION_WORDS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


def number(value: float | None) -> str:
    """Return a metric with three digits, or a word."""
    return "undefined" if value is None else f"{value:.3f}".replace("-", "−")


def p_value(p: float) -> str:
    """Return ``p = .012``, or ``p < .001``."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def pair(record: dict[str, Any], options: ComparisonOptions, family: int) -> str:
    """Return what can and cannot be concluded from one pair."""
    first, second = record["first"], record["second"]
    if record["value"] is None:
        return f"{first} and {second} cannot be compared by {options.metric}: {record['note']}."
    if record["verdict"] == "task not learned":
        lost = record["not_learned"]
        who = f"{lost[0]} has not" if len(lost) == 1 else f"Neither {lost[0]} nor {lost[1]} has"
        return (
            f"{who} learned the task: the accuracy interval does not clear the majority baseline, so the difference "
            f"of {first} and {second}, {number(record['value'])}, says nothing.{_one_training(record)}"
        )
    gap = f"{number(record['value'])} {_interval(record)}".rstrip()
    tested = _tested(record, options, family)
    margin = f"±{options.equivalent_within:g}"
    if record["verdict"] == "found":
        better = record["better"]
        worse = second if better == first else first
        here = "As trained here, " if record["scope"] == "checkpoints" else ""
        text = f"{here}{better} is better than {worse}: {first} minus {second} is {gap} in {options.metric} ({tested})."
        lost = "".join(f" {name} has not learned the task." for name in record["not_learned"])
        return f"{text}{lost} {_scope(record)}"
    if record["verdict"] == "equivalent":
        q = record["equivalence"]["q"]
        here = "As trained here, " if record["scope"] == "checkpoints" else ""
        return (
            f"{here}{first} and {second} are equivalent within {margin} of {options.metric}: their difference is {gap} "
            f"(two one-sided tests, {p_value(q)}). {_scope(record)}"
        )
    return (
        f"Whether {first} or {second} is better cannot be said: {first} minus {second} is {gap} in "
        f"{options.metric} ({tested}). Nor are they shown to be equivalent within {margin}.{_missed(record)}"
        f"{_one_training(record)}"
    )


def _interval(record: dict[str, Any]) -> str:
    return "" if record["low"] is None else f"[{number(record['low'])}, {number(record['high'])}]"


def _tested(record: dict[str, Any], options: ComparisonOptions, family: int) -> str:
    if record["q"] is None:
        return f"n = {record['n']:,}; no test could be made"
    over = f", {CORRECTION_WORDS[options.correction]} over {family} comparisons" if family > 1 else ""
    return f"n = {record['n']:,}; {record['test']}{over}: {p_value(record['q'])}"


def _missed(record: dict[str, Any]) -> str:
    found = record["detectable"]
    if found["value"] is None:
        return f" {found['note'][:1].upper()}{found['note'][1:]}." if found["note"] else ""
    return (
        f" A true difference of {number(found['value'])} would be found here in {found['power']:.0%} of cases; "
        "smaller ones would more often be missed."
    )


def _scope(record: dict[str, Any]) -> str:
    said = _one_training(record).strip()
    return said or "This is about the methods: it holds for other rows and for other seeds."


def _one_training(record: dict[str, Any]) -> str:
    """Return that one training tells nothing of its method; nothing where there are several."""
    if record["scope"] != "checkpoints":
        return ""
    because = record["methods"]["because"]
    if because == "one seed":  # an arm against a baseline, which is not drawn by a seed
        return (
            " This is about this trained model, on other rows; what the method does with other seeds is undecided "
            "(one seed) and needs several."
        )
    which = "these two trained models" if because == "one seed each" else "these very trainings"
    return (
        f" This is about {which}, on other rows; whether the methods differ is undecided ({because}) and needs "
        "several seeds of each."
    )


def ranking(
    arms: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], options: ComparisonOptions
) -> str:
    """Return what order of the arms the comparisons allow."""
    if len(arms) < 2:
        return "There is one arm, and nothing to rank."
    order = _ranking(arms, pairs, options)
    told = any(one["verdict"] in ("found", "equivalent") for one in pairs if one["scope"] == "checkpoints")
    return f"{order} {ONE_SEED}" if told else order


def _ranking(
    arms: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], options: ComparisonOptions
) -> str:
    failed = [arm["arm"] for arm in arms if arm["learned"] is False]
    lost = f" Task not learned: {_listed(failed)}." if failed else ""
    if len(failed) == len(arms):
        return f"No ranking can be drawn: no arm has learned the task.{lost}"
    decided = [one for one in pairs if one["verdict"] == "found"]
    same = [one for one in pairs if one["verdict"] == "equivalent"]
    judged = f"by {options.metric} on {options.split}"
    equal = "".join(
        f" {one['first']} and {one['second']} are equivalent within ±{options.equivalent_within:g}."
        for one in same
    )
    if not decided:
        if len(same) == len(pairs):
            every = "both arms" if len(arms) == 2 else f"all {len(arms)} arms"
            return f"No ranking {judged}: {every} are equivalent within ±{options.equivalent_within:g}.{lost}"
        many = (
            "the one comparison does not show"
            if len(pairs) == 1
            else f"none of {len(pairs)} comparisons shows"
        )
        return f"No ranking can be drawn {judged}: {many} a difference.{equal}{lost}"
    order = _order(arms, decided)
    if len(decided) == len(pairs) and order is not None:
        return f"Ranking {judged}, every step decided: {' > '.join(order)}.{lost}"
    over: dict[str, list[str]] = {}
    for one in decided:
        worse = one["second"] if one["better"] == one["first"] else one["first"]
        over.setdefault(one["better"], []).append(worse)
    said = "; ".join(f"{better} is better than {_listed(worse)}" for better, worse in over.items())
    rest = [f"{one['first']} and {one['second']}" for one in pairs if one["verdict"] == "undecided"]
    open_ = f" Undecided: {'; '.join(rest)}." if rest else ""
    return f"Decided {judged}: {said}.{equal}{open_}{lost}"


def _order(arms: Sequence[dict[str, Any]], decided: Sequence[dict[str, Any]]) -> list[str] | None:
    """Return the arms from best to worst where every pair is decided and no circle is left."""
    wins = {arm["arm"]: sum(one["better"] == arm["arm"] for one in decided) for arm in arms}
    ordered = sorted(wins, key=lambda arm: -wins[arm])
    return ordered if len(set(wins.values())) == len(arms) else None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
