"""Which method should I pick: quality against what it costs, what it forgets and whom it treats differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from tunescope.report import arms
from tunescope.report.figures.select import only, over_seeds, values
from tunescope.report.of_method import of_method
from tunescope.report.quality import Strip, record_of, strip
from tunescope.report.read import RunFolder
from tunescope.report.text import Estimate, listed, number, plural, signed

# Suites whose pairs differ in the person a text is about. A suite that names its groups (an orientation such as
# "male to female") counts too; typos and synonyms do not.
GROUP_SUITES = ("gender", "race", "religion", "nationality", "age", "eec", "winobias")
REWRITTEN = "original to rewritten"
FORGETTING = ("forgetting", "general_loss_change", "loss_change_on_general_text")
NOISE = 0.05  # times and memory closer together than this share are the same: another run would turn them
LEAST = 2  # arms with a quality, below which there is nothing to choose


@dataclass(frozen=True)
class Option:
    """One arm as a choice.

    Attributes:
        arm: Its name.
        about: Its method and model.
        colour: Its place among the colours.
        quality: Over its seeds: the mean, with an interval for other seeds and rows.
        drawn: The same as a small drawing; the tick is the majority baseline.
        learned: Whether it learned the task; None where that is not known.
        seconds: Training time.
        memory: Peak memory in bytes.
        trained: Trained parameters.
        parameters: All parameters.
        forgetting: What tuning cost on general text, more is worse; unknown where it was not measured.
        bias: The largest mean change of the margin between groups of people, in logits; unknown where not measured.
        bias_suite: The suite that ``bias`` is of.
        dominated_by: Arms that are at least as good in everything that both have measured, and better in something.
    """

    arm: str
    about: str
    colour: int | None
    quality: Estimate
    drawn: Strip | None
    learned: bool | None
    seconds: float | None
    memory: float | None
    trained: float | None
    parameters: float | None
    forgetting: Estimate
    bias: Estimate
    bias_suite: str
    dominated_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The options, best first, and what may be said of them.

    Attributes:
        metric: What quality is.
        split: The rows it was measured on.
        options: The arms.
        sentence: Which arms are worth weighing, and which differences are not resolved.
        notes: What was not measured, and what dominated means.
    """

    metric: str
    split: str
    options: tuple[Option, ...]
    sentence: str
    notes: tuple[str, ...]

    def knows(self, what: str) -> bool:
        """Whether any arm has this cost, so that the table has a column for it."""
        found = [getattr(option, what) for option in self.options]
        return any(one.known if isinstance(one, Estimate) else one is not None for one in found)


def choice(run: RunFolder) -> Choice | None:
    """Return the arms as choices; None below two arms whose quality was measured.

    An arm is *dominated* where another is at least as good in quality, time, memory, trained parameters, forgetting
    and bias gap (those that both have measured) and better in one of them, by the estimates; times and memory within
    5 % and bias gaps whose intervals overlap count as equal. A dominated arm may still be the better one where the
    difference of quality is not resolved; the sentence says which are not.
    """
    shown = arms.arms(run)
    rows = [row for row in shown.rows if row.accuracy.known]
    if len(rows) < LEAST:
        return None
    metric = _metric(run)
    lower = bool((run.comparison or {}).get("lower_is_better")) and metric != "accuracy"
    options = [_option(run, row, metric) for row in rows]
    options.sort(key=lambda one: (one.quality.value or 0.0) * (1 if lower else -1))
    marked = [replace(one, dominated_by=_dominating(one, options, lower)) for one in options]
    chosen = Choice(metric.replace("_", " "), str(run.split or ""), tuple(marked), "", ())
    return replace(chosen, sentence=_sentence(run, chosen), notes=_notes(chosen))


def _metric(run: RunFolder) -> str:
    """Return what the run compares its arms by; accuracy where it holds no comparison."""
    found = run.comparison or {}
    known = {
        str(record.get("metric"))
        for item in run.arms
        for record in (item.metrics or {}).get("records", [])
        if record.get("split") == run.split and record.get("class") is None
    }
    wanted = str(found.get("metric") or "accuracy")
    return wanted if wanted in known else "accuracy"


def _option(run: RunFolder, row: arms.ArmRow, metric: str) -> Option:
    quality = row.accuracy if metric == "accuracy" else _quality(run, row.name, metric)
    bias, suite = _bias(run, row.name)
    return Option(
        arm=row.name, about=row.about, colour=row.colour, quality=quality,
        drawn=row.drawn if metric == "accuracy" else strip(quality), learned=row.learned,
        seconds=row.cost.get("seconds"), memory=row.cost.get("peak_memory_bytes"), trained=row.trained,
        parameters=row.parameters, forgetting=_forgetting(run, row.name), bias=bias, bias_suite=suite,
    )  # fmt: skip


def _quality(run: RunFolder, arm: str, metric: str) -> Estimate:
    return of_method(
        run, arm, [record_of(item.metrics, run.split, metric) for item in run.of(arm) if item.metrics], metric
    )


def _forgetting(run: RunFolder, arm: str) -> Estimate:
    """Return what an arm's metrics say of the loss on general text after tuning minus before."""
    records = [
        record
        for item in run.of(arm)
        for record in (item.metrics or {}).get("records", [])
        if record.get("metric") in FORGETTING and record.get("class") is None
    ]
    return over_seeds(records)


def _bias(run: RunFolder, arm: str) -> tuple[Estimate, str]:
    """Return the largest mean change of the margin between groups of people in the tuned model, and its suite."""
    result = run.results.get("behaviour")
    if result is None or not {"suite", "part", "metric", "model"} <= set(result.table.columns):
        return Estimate(None), ""
    table = only(result.table, arm=arm, model="tuned", part="all", metric="margin_change")
    gaps: list[tuple[float, Estimate, str]] = []
    for suite in values(_of_people(result.table, table), "suite"):
        gap = over_seeds(only(table, suite=suite).to_dicts())
        if gap.value is not None:
            gaps.append((abs(gap.value), gap, str(suite)))
    if not gaps:
        return Estimate(None), ""
    _, gap, suite = max(gaps, key=lambda one: one[0])
    return gap, suite


def _of_people(whole: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of invariance suites that exchange people: by their name, or by the groups they name."""
    if "kind" in table.columns:
        table = only(table, kind="invariance")
    named: set[str] = set()
    if "orientation" in whole.columns:
        told = whole.filter(pl.col("orientation").is_not_null() & (pl.col("orientation") != REWRITTEN))
        named = {str(suite) for suite in values(told, "suite")}
    known = [
        suite
        for suite in values(table, "suite")
        if suite in named or str(suite).split("-")[0] in GROUP_SUITES
    ]
    return table.filter(pl.col("suite").is_in(known))


def _dominating(one: Option, options: Sequence[Option], lower: bool) -> tuple[str, ...]:
    return tuple(other.arm for other in options if other is not one and _dominates(other, one, lower))


def _dominates(other: Option, one: Option, lower: bool) -> bool:
    """Whether ``other`` is nowhere worse than ``one`` and somewhere better, by the estimates."""
    if other.learned is False or other.quality.value is None or one.quality.value is None:
        return False
    sign = -1.0 if lower else 1.0
    quality = sign * (one.quality.value - other.quality.value)
    signs = [
        (quality > 0) - (quality < 0),
        _more(other.seconds, one.seconds, NOISE),
        _more(other.memory, one.memory, NOISE),
        _more(other.trained, one.trained),
        _more(other.forgetting.value, one.forgetting.value),
        _wider(other.bias, one.bias),
    ]
    return max(signs) <= 0 and min(signs) < 0


def _more(theirs: float | None, ours: float | None, noise: float = 0.0) -> int:
    """Return 1 where they cost more, -1 where less, 0 where it is the same or not known."""
    if theirs is None or ours is None or abs(theirs - ours) <= noise * max(abs(theirs), abs(ours)):
        return 0
    return 1 if theirs > ours else -1


def _wider(theirs: Estimate, ours: Estimate) -> int:
    """Return 1 where their gap is wider and the intervals of the two sizes are apart, -1 where narrower, else 0."""
    (low, high), (least, most) = _ends(theirs), _ends(ours)
    return (low > most) - (high < least)


def _ends(gap: Estimate) -> tuple[float, float]:
    """Return between what the size of a gap lies; everywhere where it was not measured."""
    if gap.low is None or gap.high is None:
        return 0.0, float("inf")
    return max(gap.low, -gap.high, 0.0), max(abs(gap.low), abs(gap.high))


def _sentence(run: RunFolder, found: Choice) -> str:
    """Return the one sentence under the title: who is worth weighing, and what is not resolved."""
    free = [one for one in found.options if not one.dominated_by and one.learned is not False]
    if not free:
        return "No arm has learned the task, so there is nothing to choose."
    best = free[0]
    said = f"{best.arm} has the best {found.metric}, {best.quality}"
    others = [_against(one, best) for one in free[1:4]]
    if others:
        said += f"; {'; '.join(others)}"
    if len(free) > 4:
        said += f"; {plural(len(free) - 4, 'more arm')} cost less in something"
    lost = [one.arm for one in found.options if one.dominated_by and one.learned is not False]
    if lost:
        said += f"; {listed(lost[:4])}{f' and {len(lost) - 4} more' if len(lost) > 4 else ''} "
        said += f"{'is' if len(lost) == 1 else 'are'} dominated"
    return f"{said}. {arms.unresolved(run) or 'Differences between arms were not tested in this run.'}"


def _against(one: Option, best: Option) -> str:
    """Return in what an arm that is not dominated beats the best one."""
    parts = []
    for name, own, theirs in (
        ("time", one.seconds, best.seconds),
        ("memory", one.memory, best.memory),
        ("trained parameters", one.trained, best.trained),
    ):
        if own is not None and theirs and _more(own, theirs, NOISE) < 0:
            parts.append(
                f"{100 * (1 - own / theirs):.0f} % less {name}".replace("less trained", "fewer trained")
            )
    if _wider(one.bias, best.bias) < 0:
        parts.append("a smaller bias gap")
    if (
        one.forgetting.known
        and best.forgetting.known
        and (one.forgetting.value or 0) < (best.forgetting.value or 0)
    ):
        parts.append("less forgetting")
    gain = signed((one.quality.value or 0.0) - (best.quality.value or 0.0))
    return f"{one.arm} ({gain}) has {listed(parts)}" if parts else f"{one.arm} ({gain}) is not dominated"


def _notes(found: Choice) -> tuple[str, ...]:
    notes = [
        "Dominated: another arm is nowhere worse and somewhere better, by the estimates (times and memory within "
        "5 %, and bias gaps whose intervals overlap, count as equal). Where the difference of "
        f"{found.metric} is not resolved, that order may turn."
    ]
    missing = [
        name
        for what, name in (("forgetting", "forgetting of general text"), ("bias", "the bias gap"))
        if not found.knows(what)
    ]
    if missing:
        notes.append(f"Not measured in this run: {listed(missing)}.")
    if found.knows("bias"):
        suites = listed(dict.fromkeys(one.bias_suite for one in found.options if one.bias_suite))
        notes.append(
            f"Bias gap: the largest mean change of the margin between groups of people, in logits ({suites}); "
            f"{number(0)} is none."
        )
    return tuple(notes)
