"""Planted against recovered, for studies on a generated corpus: decisive words, label noise, gender gap.

Formula:
    Effect of leaving a planted word out, share of labels that the model contradicts, gap between groups: each
    as in its own lens.

Range:
    That of the planted truth beside it.

How to read:
    The truth should lie in the interval of what was recovered. If not, an instrument or the training failed.

Cost:
    One run a word and sentence.

Limits:
    Only for corpora that tunescope generates: elsewhere no truth is known.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.data.labels import LabelMap
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.planted.recover import Predict, RecoverOptions, recover
from tunescope.stats.results import Finding, result_table

WHAT = (
    "What is planted in the generated corpus beside what the model shows: words that decide (by leaving each "
    "word out), label noise (by accuracy), gender gap (on pairs that differ in gender alone)."
)
ROWS = "test split and gender pairs of the generated corpus"


class PlantedOptions(BaseModel):
    """Options of the lens ``planted``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sentences: int = Field(
        400, ge=4, description="test sentences from which each word is left out: 4 or more"
    )
    top_words: int = Field(8, ge=1, description="length of each class's list of words: 1 or more")


def run(subject: Subject, options: PlantedOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return planted against recovered, base (under its base head) beside tuned, and every word's drop.

    Raises:
        LensError: The study's data is not a generated corpus.
    """
    if subject.planted is None:
        raise LensError(
            "The lens planted needs a generated corpus; this study's data is not one.",
            hint="Take planted out of the lenses, or set data.path to planted:quickstart.",
        )
    settings = RecoverOptions(options.sentences, options.top_words, seed=subject.sampling_seed)
    records, examples = [], []
    for which, model in subject.models_with_logits():
        axes = {"arm": subject.arm, "seed": subject.seed, "model": which}
        axes["base_head"] = subject.base_head if which == "base" else None
        found = recover(model.labels.names, predictor(model), subject.planted, subject.progress, settings)
        records += [{**axes, **record} for record in found.records]
        constants = [pl.lit(value).alias(name) for name, value in axes.items()]
        examples.append(found.examples.select(*constants, pl.all()))
    return result_table(records), pl.concat(examples, how="vertical_relaxed")


def predictor(model: Classifier) -> Predict:
    """Return a function from texts to the logits [n, C] of a classifier."""

    def predict(texts: list[str]) -> np.ndarray:
        rows = rows_of_texts(texts, LabelMap(tuple(model.labels.names)))
        return logits_of(model, tokenize(rows, model.tokenizer, model.max_length))

    return predict


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say what the tuned model recovered: decisive words, gender gap, label noise.

    ``found`` where the interval lies beyond the control (words, gap) or holds the planted share (noise).
    """
    mine = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("model") == "tuned")
        & pl.col("value").is_not_null()
    )
    rows = {row["metric"]: row for row in mine.iter_rows(named=True) if row["metric"] in _SENTENCES}
    return [_finding(rows[metric], subject) for metric in _SENTENCES if metric in rows]


_SENTENCES = {
    "top_word_plain": "In {value:.0%} [{low:.0%}, {high:.0%}] of plain sentences the word that weighs most "
    "is the planted decisive word (a random word: {control:.0%}; n = {n}).",
    "gender_gap_ambiguous": "Naming a woman instead of a man moves P({class}) by {value:+.3f} "
    "[{low:+.3f}, {high:+.3f}] in sentences that decide nothing; planted: {planted:+.3f} (n = {n} pairs).",
    "noise_share": "The model contradicts {value:.1%} [{low:.1%}, {high:.1%}] of the labels of sentences "
    "with a decisive word; {planted:.1%} were changed on purpose (n = {n}).",
}


def _finding(row: dict[str, object], subject: Subject) -> Finding:
    low, high, planted, control = (row[name] for name in ("low", "high", "planted", "control"))
    metric = str(row["metric"])
    verdict = "undecided"
    if isinstance(low, float) and isinstance(high, float):
        holds = isinstance(planted, float) and low <= planted <= high
        beyond = isinstance(control, float) and not low <= control <= high
        verdict = "found" if (holds if metric == "noise_share" else beyond) else "undecided"
    if subject.learned is False:
        verdict = "task not learned"
    shown = {name: float("nan") if value is None else value for name, value in row.items()}
    return Finding(
        lens="planted",
        arm=subject.arm,
        sentence=_SENTENCES[metric].format(**shown),
        metric=metric,
        value=row["value"],  # type: ignore[arg-type]
        low=low,  # type: ignore[arg-type]
        high=high,  # type: ignore[arg-type]
        n=row["n"],  # type: ignore[arg-type]
        test=str(row["method"]),
        control=str(row["how"]),
        rows=ROWS,
        verdict=verdict,
    )
