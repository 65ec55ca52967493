"""Sentences made from the table of the lens ``words``."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

TEST = (
    "bootstrap over rows, equal texts together; sign-flip permutation, Benjamini-Hochberg over words and classes; the "
    "word was picked on the rows it is shown on, so its size is flattering"
)
SPOKEN_CLASSES = 6
Record = dict[str, Any]


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say which word speaks most surely for each class, and how well leaving out and integrated gradients agree.

    A word is ``found`` if its effect survives the correction and its interval lies above what the other words of the
    same rows do.
    """
    mine = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    effects = mine.filter((pl.col("metric") == "word_effect") & (pl.col("by") == "left_out"))
    made = []
    for name in subject.tuned.labels.names[:SPOKEN_CLASSES]:
        own = effects.filter((pl.col("class") == name) & (pl.col("model") == "tuned"))
        if own.height:
            # By the lower end of the interval: by the mean, a rare word with one large effect would come first.
            best = own.sort(["low", "word"], descending=[True, False], nulls_last=True).row(0, named=True)
            made.append(_word(effects, best, subject))
    # A sentence on every class of which no word is sure would only be noise: then the surest of all speaks alone.
    found = [one for one in made if one.verdict != "undecided"]
    found = found or sorted(made, key=lambda one: -(one.low if one.low is not None else -float("inf")))[:1]
    agreement = mine.filter(
        (pl.col("metric") == "rank_agreement") & (pl.col("by") == "left_out and gradient")
        & (pl.col("model") == "tuned") & pl.col("value").is_not_null()
    )  # fmt: skip
    if agreement.height:
        found.append(_agreement(mine, agreement.row(0, named=True), subject))
    return found


def _word(effects: pl.DataFrame, best: Record, subject: Subject) -> Finding:
    base = effects.filter(
        (pl.col("model") == "base") & (pl.col("class") == best["class"]) & (pl.col("word") == best["word"])
    )
    clear = (
        best["q"] is not None and best["q"] <= 0.05 and best["low"] is not None
        and best["low"] > max(best["control"], 0.0)
    )  # fmt: skip
    start = f"The word that speaks most surely for {best['class']} is {best['word']!r}"
    if not clear:
        words = effects.filter(pl.col("model") == "tuned")["word"].n_unique()
        start = (
            f"Of the {words} words that stand in enough rows none surely speaks for a class; the nearest is "
            f"{best['word']!r} for {best['class']}"
        )
    sentence = (
        f"{start}: without it that class's margin falls by {_number(best)} logits in the tuned model "
        f"({best['rows']} rows)."
    )
    control = f"without another word of the same rows, at random, it {_moves(best['control'])}"
    if base.height:
        control += f"; base under its {subject.base_head} head: {_number(base.row(0, named=True))}"
    return _finding(best, sentence, control, clear, subject)


def _moves(fall: float) -> str:
    """Say a fall of a margin, which below 0 is a rise: other words may speak for other classes."""
    return f"falls by {fall:.2f}" if fall >= 0 else f"rises by {-fall:.2f}"


def _agreement(mine: pl.DataFrame, row: Record, subject: Subject) -> Finding:
    failed = mine.filter((pl.col("metric") == "incomplete_rows") & (pl.col("model") == "tuned")).row(
        0, named=True
    )
    sentence = (
        "Leaving words out and integrated gradients rank the words of a row alike to a mean rank correlation of "
        f"{_number(row)}; in {failed['value']:.0f} of {failed['n']} rows the gradients did not add up and "
        "were left out."
    )
    clear = row["low"] is not None and row["low"] > 0
    return _finding(row, sentence, "words shuffled: 0", clear, subject)


def _number(row: Record) -> str:
    interval = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['value']:+.2f}{interval}"


def _finding(row: Record, sentence: str, control: str, clear: bool, subject: Subject) -> Finding:
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    words = row["metric"] == "word_effect"
    return Finding(
        lens="words", arm=subject.arm, sentence=sentence, metric=row["metric"], value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=TEST if words else "bootstrap over rows, equal texts together",
        control=control, rows=f"{row['n']} {'occurrences' if words else 'rows'}", verdict=verdict,
    )  # fmt: skip
