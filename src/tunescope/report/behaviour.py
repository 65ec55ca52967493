"""The section on behaviour: suites with verdicts, base against tuned, terms, ranked pairs, and states of the pairs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.behaviour_seeds import SeedPart, over_seeds
from tunescope.report.evidence import arm_seeds, checked, group_title
from tunescope.report.figures import behaviour as figures
from tunescope.report.figures import style
from tunescope.report.figures.mediation import SHOWN_DIMENSIONS, dimension_panels, mediation_panels
from tunescope.report.figures.select import estimate, only
from tunescope.report.read import LensResult, RunFolder, read_examples
from tunescope.report.text import Estimate, finite, number, probability, signed, visible

SHOWN_PAIRS = 6
SHOWN_STATES = 1  # pairs of each suite whose states are drawn: they are most of a page's bytes
SHOWN_CHARACTERS = 400
PAIR_COLUMNS = (
    "arm", "seed", "suite", "original", "rewritten", "followed", "margin_change_tuned", "prediction_tuned",
    "prediction_rewritten_tuned", "pair_id",
)  # fmt: skip
STATE_COLUMNS = (
    "arm",
    "seed",
    "suite",
    "pair_id",
    "model",
    "site",
    "layer",
    "place",
    "original",
    "rewritten",
    "outliers",
)
HOW_SUITES = (
    "Where the coloured dot lies right of the grey one, the tuned model moves more than its base; diamonds are "
    "controls on the same rows. Logits grow with training: compare the first panel with the other two."
)
HOW_CLASSES = (
    "Turned to one direction, so a dot right of 0 says that the class gains there. Filled: q ≤ 0.05."
)
HOW_TERMS = (
    "Filled: moves the margin more than the pairs without it, q ≤ 0.05 after correction over all terms."
)
HOW_DIMENSIONS = (
    "Filled: q ≤ 0.05 over all dimensions. A diamond beside its dot says that any other text would have moved it as "
    "far: a loud dimension, and not this exchange. Picked on the pairs that they are shown on."
)
HOW_STATES = (
    "A column that is dark in both texts alike says nothing about the exchange; look at the difference. Triangles mark "
    "outlier dimensions, loud in every text, which a map of raw states shows first."
)


@dataclass(frozen=True)
class Piece:
    """A piece of a text, and whether the rewrite changed it."""

    text: str
    changed: bool


@dataclass(frozen=True)
class Pair:
    """One pair with both texts and what it does."""

    original: tuple[Piece, ...]
    rewritten: tuple[Piece, ...]
    followed: str
    tuned: str
    base: str
    before: str
    after: str
    tokens: str = ""


@dataclass(frozen=True)
class Line:
    """One suite of one model in the table."""

    suite: str
    model: str
    n: str
    signed: Estimate
    size: Estimate
    flips: Estimate
    large: Estimate
    failures: Estimate
    controls: tuple[str, ...]
    tests: str
    accuracy: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Part:
    """What one arm and seed shows: its table, figures, ranked pairs by suite, and what tuning widened."""

    title: str
    main: bool
    lines: tuple[Line, ...]
    figures: tuple[style.Figure, ...]
    pairs: tuple[tuple[str, tuple[Pair, ...]], ...]


@dataclass(frozen=True)
class Behaviour:
    """The whole section."""

    what: str
    bound: str
    notes: tuple[str, ...]
    parts: tuple[Part, ...]
    seeds: tuple[SeedPart, ...] = ()


def behaviour(run: RunFolder) -> Behaviour | None:
    """Return the section on behaviour, or None where no suite was run."""
    result = run.results.get("behaviour")
    if result is None:
        return None
    table = checked(result, figures.COLUMNS)
    examples = read_examples(run, "behaviour", PAIR_COLUMNS)
    states = read_examples(run, "behaviour_states", STATE_COLUMNS)
    options = result.provenance.get("options") or {}
    removed = bool((options.get("inside") or {}).get("remove_outliers"))
    parts: list[Part] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        colour = style.arm_colour(run.arm_names, arm)
        drawn = [*_figures(rows, colour, len(parts)), *_mediation_figures(rows, colour, len(parts))]
        if states is not None and main:
            drawn += _state_figures(_of(states, arm, seed), examples, len(parts), removed)
        pairs = () if examples is None else _pairs(_of(examples, arm, seed))
        parts.append(Part(group_title(arm, seed, table), main, _lines(rows), tuple(drawn), pairs))
    what, again = str(result.provenance.get("what") or ""), over_seeds(table, run.arm_names)
    return Behaviour(what, _bound(result), _notes(result), tuple(parts), again)


def _bound(result: LensResult) -> str:
    options = result.provenance.get("options") or {}
    bound, reason = options.get("bound"), result.provenance.get("bound_reason")
    if bound is None:
        return ""
    return f"Equivalent means: a mean change of ±{number(bound)} logits or more is ruled out. Why that much: {reason}."


def _notes(result: LensResult) -> tuple[str, ...]:
    return tuple(str(note) for note in result.provenance.get("notes") or [])


def _of(table: pl.DataFrame, arm: str, seed: int) -> pl.DataFrame:
    own = table.filter(pl.col("arm") == arm)
    return own if own["seed"].null_count() == own.height else own.filter(pl.col("seed") == seed)


def _lines(rows: pl.DataFrame) -> tuple[Line, ...]:
    own = only(rows, part="all")
    found = []
    for suite in dict.fromkeys(own["suite"]):
        for model in ("tuned", "base", "tuned_minus_base"):
            mine = only(own, suite=suite, model=model)
            if mine.height:
                found.append(_line(suite, model, mine))
    return tuple(found)


def _line(suite: str, model: str, rows: pl.DataFrame) -> Line:
    def one(metric: str, **axes: Any) -> dict[str, Any]:
        records = only(rows, **{"class": None, "control": None, **axes}, metric=metric).to_dicts()
        return records[0] if records else {}

    margin, size, failures = one("margin_change"), one("absolute_margin_change"), one("failure_share")
    verdict = size if model == "tuned_minus_base" else failures or margin
    controls = []
    for record in only(rows, metric="excess_over_control").to_dicts():
        name, p = str(record["control"]).replace("_", " "), probability(record.get("p"))
        controls.append(f"beyond {name} {estimate(record)}, p\N{NO-BREAK SPACE}{p}")
    right = one("accuracy_change")
    accuracy = (
        f"accuracy {estimate(right)}, McNemar p\N{NO-BREAK SPACE}{probability(right.get('p'))}"
        if right
        else ""
    )
    return Line(
        suite=suite, model=model.replace("_", " "), n=number((margin or failures).get("n")), signed=estimate(margin),
        size=estimate(size), flips=estimate(one("flip_share")), large=estimate(one("large_change_share")),
        failures=estimate(failures), controls=tuple(controls), tests=_tests(margin), accuracy=accuracy,
        verdict=str(verdict.get("verdict") or ""),
        why=str(verdict.get("why") or ""),
    )  # fmt: skip


def _tests(margin: dict[str, Any]) -> str:
    """Return the tests of the mean change in words: against 0, of signs alone, and of equivalence."""
    names = {"p": "p", "sign_p": "sign test p", "equivalent_p": "equivalence p"}
    known = {
        said: probability(margin.get(key))
        for key, said in names.items()
        if finite(margin.get(key)) is not None
    }
    return ", ".join(f"{said}\N{NO-BREAK SPACE}{value}" for said, value in known.items())


def _figures(rows: pl.DataFrame, colour: str, key: int) -> list[style.Figure]:
    found = []
    panels = figures.suite_panels(rows, colour)
    if panels:
        caption = (
            "Every suite, base (grey) and tuned (coloured), means over pairs with 95 % intervals over groups."
        )
        found.append(style.Figure(f"behaviour-{key}", "Base against tuned", panels, caption, HOW_SUITES))
    panels = figures.class_panels(rows, colour)
    if panels:
        caption = "Mean change of every class's margin when the exchange goes in the direction named above each panel."
        found.append(
            style.Figure(f"behaviour-classes-{key}", "Which class gains", panels, caption, HOW_CLASSES)
        )
    panels = figures.term_panels(rows, colour)
    if panels:
        caption = f"The {figures.SHOWN_TERMS} terms of each suite that move the tuned model most, in 5 pairs or more."
        found.append(style.Figure(f"behaviour-terms-{key}", "Terms", panels, caption, HOW_TERMS))
    return found


def _mediation_figures(rows: pl.DataFrame, colour: str, key: int) -> list[style.Figure]:
    found = []
    panels, limit = mediation_panels(rows)
    if panels:
        caption = (
            "Share of the change of margin that appears when the original text is run with one component's value from "
            "the rewritten one, on the pairs of equal token count that move most. Hover: interval, q, and the same "
            "component from an unrelated text. Shares need not add up to 1."
        )
        scale = style.Scale("diverging", signed(-limit, 2), "0", signed(limit, 2))
        name = f"behaviour-mediation-{key}"
        found.append(style.Figure(name, "What carries the change", panels, caption, scale=scale))
    panels = dimension_panels(rows, colour)
    if panels:
        caption = (
            f"The {SHOWN_DIMENSIONS} dimensions of the stream whose value from the rewritten text alone moves the "
            "margin most, as shares of the whole change with 95 % intervals, on the same pairs. Diamonds: the same "
            "dimension from an unrelated text."
        )
        name = f"behaviour-dimensions-{key}"
        found.append(style.Figure(name, "Which dimensions carry the change", panels, caption, HOW_DIMENSIONS))
    return found


def _state_figures(
    states: pl.DataFrame, examples: pl.DataFrame | None, key: int, removed: bool
) -> list[style.Figure]:
    known = {}
    if examples is not None:
        known = {(r["suite"], r["pair_id"]): r["original"] for r in examples.iter_rows(named=True)}
    found: list[style.Figure] = []
    first = (
        states.select("suite", "pair_id").unique(maintain_order=True).group_by("suite", maintain_order=True)
    )
    kept = first.head(SHOWN_STATES)
    left_out = states["pair_id"].n_unique() > kept["pair_id"].n_unique()
    rest = " Other pairs and seeds: results/examples/behaviour_states.parquet." if left_out else ""
    states = states.join(kept, on=["suite", "pair_id"], how="semi", maintain_order="left")
    place = {suite: number for number, suite in enumerate(dict.fromkeys(states["suite"]))}
    order = pl.col("suite").replace_strict(place, return_dtype=pl.Int64)
    states = states.sort(order, pl.col("model") != "tuned", maintain_order=True)
    for (suite, pair, model), rows in states.group_by(["suite", "pair_id", "model"], maintain_order=True):
        panels, limit, outliers = figures.state_panels(rows, removed)
        record = rows.row(0, named=True)
        loud = f" {len(outliers)} outlier dimensions{' are left out' if removed else ' are marked'}."
        caption = (
            f"{record['site']}[{record['layer']}], the state of every token after that place of the network (no head, "
            f"no probability), {model} model. Tokens down, aligned; dimensions across. One colour scale for all three."
            f"{loud if outliers else ' No dimension is an outlier here.'}{rest}"
        )
        scale = style.Scale("diverging", signed(-limit, 2), "0", signed(limit, 2))
        text = visible(str(known.get((suite, pair), pair)), 60)
        title = f"{visible(str(suite), 40)}, {model}: states of “{text}”"
        name = f"behaviour-states-{key}-{len(found)}"
        found.append(style.Figure(name, title, panels, caption, HOW_STATES, scale, folded=True))
    return found


def _pairs(examples: pl.DataFrame) -> tuple[tuple[str, tuple[Pair, ...]], ...]:
    """Return the pairs of each suite that move the tuned model most, every pair of texts once."""
    found = []
    for suite in dict.fromkeys(examples["suite"]):
        own = examples.filter(pl.col("suite") == suite).unique(
            ["original", "rewritten"], keep="first", maintain_order=True
        )
        found.append(
            (str(suite), tuple(_pair(record) for record in own.head(SHOWN_PAIRS).iter_rows(named=True)))
        )
    return tuple(found)


def _pair(record: dict[str, Any]) -> Pair:
    rewritten = record["rewritten"] if record["rewritten"] is not None else record["original"]
    first, second = marked(record["original"], rewritten)
    own, base = signed(record["margin_change_tuned"]), finite(record.get("margin_change_base"))
    before, after = str(record["prediction_tuned"]), str(record["prediction_rewritten_tuned"])
    followed, other = str(record["followed"]), "" if base is None else signed(base)
    return Pair(first, second, followed, own, other, before, after, _token_counts(record))


def _token_counts(record: dict[str, Any]) -> str:
    """Return how many tokens the two texts have, in words; nothing where a run did not count them."""
    ours, theirs = record.get("original_tokens"), record.get("rewritten_tokens")
    if ours is None or theirs is None:
        return ""
    return f"{ours} tokens each" if ours == theirs else f"{ours} and {theirs} tokens"


def marked(first: str, second: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return two texts in pieces, with the words in which they differ marked; long texts are cut, and say so."""
    cut = [str(visible(text, SHOWN_CHARACTERS)) for text in (first, second)]
    ours, theirs = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in cut)
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    blocks = [(kind != "equal", ours[a:b], theirs[c:d]) for kind, a, b, c, d in matcher.get_opcodes()]
    return _pieces([(changed, one) for changed, one, _ in blocks]), _pieces(
        [(changed, other) for changed, _, other in blocks]
    )


def _pieces(blocks: Sequence[tuple[bool, Sequence[str]]]) -> tuple[Piece, ...]:
    return tuple(Piece("".join(words), changed) for changed, words in blocks if words)
