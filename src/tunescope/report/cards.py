"""The findings as cards: what was found, what was shown to be small, and what stays open, each with its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.ablation import SIGNIFICANT
from tunescope.report.figures.select import estimate, only
from tunescope.report.quality import Strip, strip
from tunescope.report.read import LensResult, RunFolder, reading
from tunescope.report.text import Estimate, finite, listed, number, plural
from tunescope.report.written import differences

FIRST_SCREEN = 5  # cards that stand on the first screen; the others follow on demand
VERDICTS = {
    "found": "found",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "task not learned": "unlearned",
}
SIMILARITIES = ("cka", "rsa_cosine", "rsa_correlation", "rsa_whitened", "procrustes")


@dataclass(frozen=True)
class Card:
    """One finding as a card.

    Attributes:
        sentence: What was found, in words.
        arm: The arm it is about; empty where it is about several or none.
        colour: The arm's place among the colours, as everywhere on the page; None without an arm.
        lens: What measured it: a lens, or ``comparison`` of arms.
        effect: The effect with its interval and n.
        drawn: The same as a small drawing; the tick is where nothing changed.
        control: What it was held against.
        verdict: found, equivalent, undecided or task not learned.
        style: The verdict's class in the style sheet.
        bound: Where nothing was found, how large an effect could still be; else empty.
        seed: Whose training it is about, where the run has several seeds; else None.
    """

    sentence: str
    arm: str
    colour: int | None
    lens: str
    effect: Estimate
    drawn: Strip | None
    control: str
    verdict: str
    style: str
    bound: str = ""
    seed: int | None = None


def cards(run: RunFolder) -> tuple[Card, ...] | None:
    """Return the findings as cards, the most important first; None where nothing was tested at all.

    Findings of the lenses and differences between arms take turns. Where no lens has found anything, a card a lens
    says so, with the bound that its intervals set: "no effect found" is a finding too.
    """
    compared = [*_pairs(run), *differences(run)]
    if run.findings is None and not compared:
        return None
    found = [*compared, *(run.findings or [])]
    made = [_card(run, item) for item in by_importance(found)]
    silent = [
        result for lens, result in run.results.items() if lens not in {str(one.get("lens")) for one in found}
    ]
    return (*made, *(card for card in map(_nothing, silent) if card is not None))


def by_importance(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return findings in turns: the first of every lens, then the second of every lens, and so on.

    Within a lens those that were found come before the others, and the first of every metric before the second of
    any; else the order stays. So no lens with many sentences crowds another off the first screen.
    """
    seen: dict[tuple[Any, Any, bool], int] = {}
    ranked = []
    for item in found:
        open_ = item.get("verdict") != "found"
        kind = (item.get("lens"), item.get("metric"), open_)
        ranked.append((open_, seen.get(kind, 0), item))
        seen[kind] = seen.get(kind, 0) + 1
    decided = [item for _, _, item in sorted(ranked, key=lambda one: one[:2])]
    turn: dict[str, int] = {}
    keyed = []
    for item in decided:
        lens = str(item.get("lens") or "")
        keyed.append((turn.get(lens, 0), item))
        turn[lens] = turn.get(lens, 0) + 1
    return [item for _, item in sorted(keyed, key=lambda one: one[0])]


def _pairs(run: RunFolder) -> list[dict[str, Any]]:
    """Return the differences between arms as findings."""
    found = run.comparison
    if not found or not found.get("done", True):
        return []
    with reading(run.folder, "comparison.json"):
        return [
            {
                **{key: one.get(key) for key in ("value", "low", "high", "n", "verdict", "sentence")},
                "lens": "comparison", "metric": one["metric"], "control": _held(one),
            }
            for one in found["pairs"]
        ]  # fmt: skip


def one_training(pair: Mapping[str, Any]) -> bool:
    """Whether a pair of arms was compared by trained models alone: nothing is decided about their methods."""
    # "rows" is what files of earlier versions say, of one training each as of few.
    return pair.get("scope") in ("checkpoints", "rows")


def _held(pair: Mapping[str, Any]) -> str:
    rows = f"the same {plural(int(pair['n']), 'row')}"
    return f"{rows}; these trained models, not their methods: no other seeds" if one_training(pair) else rows


def _card(run: RunFolder, item: Mapping[str, Any]) -> Card:
    effect = estimate(dict(item))
    # What "nothing changed" means: one for a similarity, zero for an effect.
    similar = item.get("metric") in SIMILARITIES
    nothing = 1.0 if similar else 0.0
    bounds = [bound for bound in (0.0, nothing, effect.value, effect.low, effect.high) if bound is not None]
    room = 0.08 * ((max(bounds) - min(bounds)) or 1.0)
    verdict = str(item.get("verdict") or "undecided")
    arm = str(item.get("arm") or "")
    return Card(
        sentence=str(item.get("sentence", "")),
        arm=arm,
        colour=run.arm_names.index(arm) % len(style.ARM_COLOURS) if arm in run.arm_names else None,
        lens=str(item.get("lens") or ""),
        effect=effect,
        drawn=strip(effect, [nothing], (min(bounds) - room, max(bounds) + room)),
        control=said(item.get("control")),
        verdict=verdict,
        style=VERDICTS.get(verdict, "undecided"),
        bound="" if similar or verdict not in ("equivalent", "undecided") else _bound(effect),
        seed=_seed(run, item),
    )


def _seed(run: RunFolder, item: Mapping[str, Any]) -> int | None:
    """Return whose training a finding is about, where the run has several and the sentence does not say it."""
    seed = item.get("seed")
    said_already = str(item.get("sentence", "")).startswith(f"Seed {seed}:")
    return seed if isinstance(seed, int) and len(run.seeds) > 1 and not said_already else None


def _bound(effect: Estimate) -> str:
    """Return how large an effect could still be, by the farther end of an interval that holds zero."""
    if effect.low is None or effect.high is None or not effect.low <= 0.0 <= effect.high:
        return ""
    return f"beyond ±{number(max(abs(effect.low), abs(effect.high)))} ruled out"


def _nothing(result: LensResult) -> Card | None:
    """Return the card of a lens whose corrected tests found nothing, or None where some did or none were made."""
    table = result.table
    if not {"q", "low", "high", "metric"} <= set(table.columns) or not table["q"].dtype.is_numeric():
        return None
    if "control" in table.columns and table["control"].dtype == pl.String:
        table = table.filter(pl.col("control").is_null() | (pl.col("control") == "none"))
    tests = table.filter(pl.col("q").is_not_null() & pl.col("q").is_not_nan())
    if tests.is_empty() or tests.filter(pl.col("q") <= SIGNIFICANT).height:
        return None
    metric = str(tests["metric"].value_counts(sort=True, name="rows")["metric"][0])
    own = only(tests, metric=metric)
    ends = [finite(end) for end in (own["low"].min(), own["high"].max())]
    low, high = ends[0], ends[1]
    widest = Estimate(None, low, high)
    n = finite(own["n"].max()) if "n" in own.columns else None
    sentence = (
        f"No effect found by {result.lens}: of {plural(own.height, 'corrected test')} of {metric.replace('_', ' ')} "
        f"none has q ≤ {SIGNIFICANT}."
    )
    if low is not None and high is not None:
        sentence += f" All intervals lie within [{number(low)}, {number(high)}]."
    bound = _bound(widest)
    return Card(
        sentence, "", None, result.lens, Estimate(None, low, high, None if n is None else int(n)), None,
        "", "undecided", "undecided", bound,
    )  # fmt: skip


def said(value: Any) -> str:
    """Return a finding's test, control or rows, whatever they are, as one short text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (bool, int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return plural(len(value), "row") if len(value) > 4 else listed(said(item) for item in value)
    return str(value)
