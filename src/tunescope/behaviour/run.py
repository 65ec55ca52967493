"""Suites measured on a tuned model and its base: the table, the ranked pairs and the findings of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from tunescope.behaviour.effects import Answers, Effects, Predict, effects_of, references, texts_of
from tunescope.behaviour.measures import Rules, difference_records, suite_records
from tunescope.behaviour.suite import Suite, require_pairs
from tunescope.behaviour.words import About, findings
from tunescope.config.problems import unknown
from tunescope.errors import DataError
from tunescope.stats.results import Finding, result_table

WHAT = (
    "How predictions move when words are exchanged: the change of the logit margin of the followed class (the true "
    "one, or where a pair has no label the one that the tuned model predicts for the original), of every probability, "
    "and the predictions that flip; every suite with intervals over groups of pairs, controls and a verdict."
)
AXES = (
    "part",
    "suite",
    "kind",
    "direction",
    "term",
    "control",
    "orientation",
    "why",
    "verdict",
    "note",
    "method",
)


@dataclass(frozen=True)
class Behaviour:
    """What suites found of one training.

    Attributes:
        table: The tidy result.
        examples: Every pair with both texts and its changes in both models, by suite, those that move most first.
        findings: Sentences.
        notes: What the reader must know.
    """

    table: pl.DataFrame
    examples: pl.DataFrame
    findings: list[Finding]
    notes: list[str]


@dataclass(frozen=True)
class Wish:
    """What is measured, and how it is said.

    Attributes:
        suites: The suites.
        names: Class names in the order of the logits.
        rules: Bound, cut, resamples.
        about: Arm, whether it learnt the task, and which rows.
        reason: Why a change within the bound would not matter.
        axes: Columns that every row of the table carries (arm, seed, base_head).
    """

    suites: Sequence[Suite]
    names: Sequence[str]
    rules: Rules
    about: About
    reason: str = ""
    axes: Mapping[str, Any] = field(default_factory=dict)


def measure(wish: Wish, tuned: Predict, base: Predict | None = None) -> Behaviour:
    """Measure suites on a tuned model, and on its base where it has logits.

    Only texts that stand in the suites are predicted, each once a model.

    Args:
        wish: What to measure.
        tuned: From texts to logits `[n, C]`.
        base: The same of the base under its base head, or None.

    Raises:
        DataError: A suite has no pairs, or expects a class that the model does not have.
    """
    models = {"tuned": Answers(tuned)} | ({} if base is None else {"base": Answers(base)})
    records: list[dict[str, Any]] = []
    examples: list[pl.DataFrame] = []
    notes: list[str] = []
    for suite in wish.suites:
        require_pairs(suite)
        _require_classes(suite, wish.names)
        texts = texts_of(suite)
        for answers in models.values():
            answers.ask(texts)
        reference, by_label = references(suite, models["tuned"], wish.names)
        found = {name: effects_of(suite, answers, reference, by_label) for name, answers in models.items()}
        for name, effects in found.items():
            own = suite_records(suite, effects, wish.names, wish.rules)
            records += [{**_axes(wish, name), **record} for record in own]
        if "base" in found:
            own = difference_records(suite, found["base"], found["tuned"], wish.names, wish.rules)
            records += [{**_axes(wish, "tuned_minus_base"), **record} for record in own]
        examples.append(_examples(suite, found, wish))
        notes += _notes(suite, by_label)
    said = findings(records, wish.about, wish.rules.settings.bound, wish.reason)
    return Behaviour(_table(records), pl.concat(examples), said, notes)


def _table(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the result table; every axis is there in every run, as text, so that rules can name it."""
    table = result_table(records)
    missing = [pl.lit(None, pl.String).alias(name) for name in AXES if name not in table.columns]
    return table.with_columns(missing).with_columns(pl.col(name).cast(pl.String) for name in AXES)


def _axes(wish: Wish, model: str) -> dict[str, Any]:
    axes = {**wish.axes, "model": model}
    if model == "tuned":
        axes["base_head"] = None
    return axes


def _require_classes(suite: Suite, names: Sequence[str]) -> None:
    wanted = [] if suite.expected is None or suite.expected.label is None else [suite.expected.label]
    if suite.kind == "minimum_functionality":
        wanted += suite.pairs["label"].drop_nulls().unique().sort().to_list()
        if suite.pairs["label"].null_count():
            raise DataError(
                f"The suite {suite.name!r} has cases without a label.", hint="Give every case its label."
            )
    for name in wanted:
        if name not in names:
            raise DataError(
                f"The suite {suite.name!r} expects a class that the model does not have: "
                f"{unknown('label', name, names)}.",
                hint="Write the model's own label, or map labels with label_map.",
            )


def _notes(suite: Suite, by_label: np.ndarray) -> list[str]:
    counted = ", ".join(
        f"{count:,} {name}" for name, count in suite.counts.items() if count or name == "rows"
    )
    followed = f"{int(by_label.sum()):,} of {len(suite):,} pairs are followed by their label, others by the prediction"
    given = suite.pairs["label"].drop_nulls().len()
    strange = given - int(by_label.sum())
    alone = [name for name in ("template", "name", "text") if suite.pairs[name].n_unique() == 1 < len(suite)
             and suite.pairs[name].null_count() == 0]  # fmt: skip
    single = [f"{suite.name}: all pairs share one {name}: intervals speak for it alone" for name in alone]
    odd = f"; {strange:,} labels are none of the model's and were not used" if strange > 0 else ""
    return [f"{suite.name}: {counted}" if counted else f"{suite.name}: {len(suite):,} cases",
            f"{suite.name}: {followed}{odd}", *single, *(f"{suite.name}: {note}" for note in suite.notes)]  # fmt: skip


EXAMPLE_NUMBERS = ("margin_change", "largest_probability_change")


def _examples(suite: Suite, found: Mapping[str, Effects], wish: Wish) -> pl.DataFrame:
    """Return the pairs of a suite with both texts and what they do, those that move the tuned model most first."""
    names = list(wish.names)
    tuned = found["tuned"]
    followed = [names[place] for place in tuned.reference]
    columns: dict[str, Any] = {
        "arm": [wish.axes.get("arm")] * len(suite),
        "seed": pl.Series([wish.axes.get("seed")] * len(suite), dtype=pl.Int64),
        "suite": [suite.name] * len(suite),
    }
    for name in ("pair_id", "row_id", "direction", "original", "rewritten", "label"):
        columns[name] = suite.pairs[name]
    columns["terms"] = suite.pairs["terms"].list.join("; ")
    columns |= {"followed": followed, "by_label": pl.Series(tuned.by_label)}
    for model in ("tuned", "base"):
        one = found.get(model)
        columns |= {
            f"margin_change_{model}": _numbers(None if one is None else one.margin_change, len(suite)),
            f"probability_change_{model}": _numbers(
                None if one is None else _followed_change(one), len(suite)
            ),
            f"largest_probability_change_{model}": _numbers(None if one is None else one.largest, len(suite)),
            f"prediction_{model}": _texts(None if one is None else one.before, names, len(suite)),
            f"prediction_rewritten_{model}": _texts(None if one is None else one.after, names, len(suite)),
        }
    order = np.argsort(-np.abs(tuned.margin_change), kind="stable")
    table = pl.DataFrame(
        columns, schema_overrides={"arm": pl.String, "direction": pl.String, "label": pl.String}
    )
    return table[order]


def _followed_change(effects: Effects) -> np.ndarray:
    return effects.probability_change[np.arange(len(effects.reference)), effects.reference]


def _numbers(values: np.ndarray | None, n: int) -> pl.Series:
    return pl.Series([None] * n, dtype=pl.Float64) if values is None else pl.Series(values, dtype=pl.Float64)


def _texts(places: np.ndarray | None, names: Sequence[str], n: int) -> pl.Series:
    return pl.Series([None] * n if places is None else [names[place] for place in places], dtype=pl.String)
