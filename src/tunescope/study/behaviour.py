"""The behaviour stage: suites on every tuned model and its base, in parts that are merged with those of lenses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.behaviour import (
    WHAT,
    About,
    Material,
    Rules,
    Settings,
    Suite,
    Wish,
    load_suite,
    measure,
    needs_rows,
    predictor,
)
from tunescope.behaviour.heatmaps import heatmap_states
from tunescope.config.behaviour import BehaviourConfig
from tunescope.data.labels import LabelMap
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.errors import DataError
from tunescope.files import atomic_path
from tunescope.lenses import LensOutput, Subject
from tunescope.models import Classifier
from tunescope.progress import Progress
from tunescope.rewriting import mark_token_counts
from tunescope.stats.results import joined_tables, result_table
from tunescope.study.context import Context
from tunescope.study.mediated import mediated

NAME = "behaviour"
STATES = "behaviour_states"


def suites_of(config: BehaviourConfig, material: Material | None, progress: Progress) -> list[Suite]:
    """Return the suites of a section, in order.

    Raises:
        ConfigError: A suite is not valid, or needs rows and there are none.
    """
    return [load_suite(one, material, progress) for one in config.suites]


def rules_of(config: BehaviourConfig) -> Rules:
    """Return how a section's suites are judged."""
    return Rules(Settings(config.bound, config.resamples, config.seed), config.cut, config.correction)


def look_at_behaviour(context: Context, subject: Subject) -> tuple[LensOutput, pl.DataFrame | None]:
    """Measure the study's suites on one training.

    Returns:
        Table, pairs and findings in the form of a lens; and the states of the pairs that move most, or None.

    Raises:
        DataError: The split has no rows, or a suite touches none.
    """
    config = context.study.behaviour
    assert config is not None
    suites = suites_of(config, _material(context, config), context.progress)
    output, states = behaviour_of(
        subject, config, suites, f"{config.rows.split} rows and the suites' own texts"
    )
    if len(context.study.seeds) > 1:
        prefix = f"Seed {subject.seed}: "
        said = [
            replace(one, sentence=f"{prefix}{one.sentence}", seed=subject.seed) for one in output.findings
        ]
        output = replace(output, findings=said)
    return output, states


def behaviour_of(
    subject: Subject, config: BehaviourConfig, suites: Sequence[Suite], rows: str
) -> tuple[LensOutput, pl.DataFrame | None]:
    """Measure suites on a subject: tuned, its base under its base head, and the states of the pairs that move most.

    Args:
        subject: The models.
        config: How they are judged.
        suites: The suites.
        rows: Which rows, in words.
    """
    models = dict(subject.models_with_logits())
    wish = Wish(
        suites, list(subject.tuned.labels.names), rules_of(config), About(subject.arm, subject.learned, rows),
        config.reason, {"arm": subject.arm, "seed": subject.seed, "base_head": subject.base_head},
    )  # fmt: skip
    base = None if "base" not in models else predictor(models["base"], subject.progress)
    found = measure(wish, predictor(subject.tuned, subject.progress), base)
    examples = _with_token_counts(found.examples, subject.tuned)
    states = None
    if config.inside is not None:
        before = None if subject.base is subject.tuned else subject.base
        states = heatmap_states(examples, before, subject.tuned, config.inside)
    about: dict[str, Any] = {
        "what": WHAT, "rows": {}, "options": config.model_dump(mode="json"), "bound_reason": config.reason,
        "notes": [*subject.notes, *found.notes],
    }  # fmt: skip
    table, said = found.table, found.findings
    if config.mediation is not None:
        records, sentences, notes = mediated(subject, examples, config.mediation, config.seed)
        about["notes"] += notes
        said = [*said, *sentences]
        if records:
            table = joined_tables([table, result_table(records)])
    return LensOutput(NAME, table, examples, said, about), states


def _with_token_counts(examples: pl.DataFrame, model: Classifier) -> pl.DataFrame:
    """Mark the pairs that keep the number of tokens, as patching needs; a case of one text keeps its own."""
    labels = LabelMap(tuple(model.labels.names))

    def counts(texts: Sequence[str]) -> list[int]:
        found: list[int] = tokenize(
            rows_of_texts(texts, labels), model.tokenizer, model.max_length
        ).lengths.tolist()
        return found

    whole = examples.with_columns(rewritten=pl.coalesce("rewritten", "original"))
    return mark_token_counts(whole, counts).with_columns(examples["rewritten"])


def _material(context: Context, config: BehaviourConfig) -> Material | None:
    """Return the rows that suites rewrite; None where every suite brings its own texts."""
    if not any(needs_rows(one) for one in config.suites):
        return None
    rows = context.rows()
    split = config.rows.split
    if split not in rows.splits:
        raise DataError(
            f"behaviour.rows.split is {split}, and there are no {split} rows; there are {', '.join(rows.splits)}.",
            hint="Name a split that has rows.",
        )
    names = dict(enumerate(rows.labels.names))
    frame = (
        rows.split(split)
        .frame.select("row_id", "text", "label")
        .with_columns(pl.col("label").replace_strict(names, default=None, return_dtype=pl.String))
    )
    train = (rows.split("train") if "train" in rows.splits else rows).frame.with_columns(
        pl.col("label").replace_strict(names, default=None, return_dtype=pl.String)
    )
    return Material(
        frame, train["text"].to_list(), context.groups(), config.seed, config.rows.n, config.controls,
        train["label"].to_list(),
    )  # fmt: skip


def write_extras(run: Path, folder: Path) -> None:
    """Write what behaviour has beside a lens's files: tables as CSV, and the states of the pairs that move most.

    Args:
        run: The run folder, with the parts in ``looks``.
        folder: The run's ``results`` folder, with the table and examples of behaviour in it.
    """
    write_csv(pl.read_parquet(folder / f"{NAME}.parquet"), folder / f"{NAME}.csv")
    examples = folder / "examples" / f"{NAME}.parquet"
    write_csv(pl.read_parquet(examples), examples.with_suffix(".csv"))
    states = sorted((run / "looks").glob(f"*/seed-*/{NAME}/states.parquet"))
    if states:
        with atomic_path(folder / "examples" / f"{STATES}.parquet") as temporary:
            pl.concat([pl.read_parquet(path) for path in states]).write_parquet(temporary)


def write_csv(table: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    changed = []
    for name, kind in table.schema.items():
        if kind == pl.String:
            text = pl.col(name)
            is_formula = text.str.contains(r"^[=+\-@\t\r]")
            changed.append(pl.when(is_formula).then(pl.lit("'") + text).otherwise(text).alias(name))
    with atomic_path(path) as temporary:
        table.with_columns(changed).write_csv(temporary)
