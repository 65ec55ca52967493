"""Pairs that lie ready: any table of pairs, the Equity Evaluation Corpus, and sentences in WinoBias's form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tunescope.behaviour.suite import CONTROL_COLUMNS, Suite, pair_table
from tunescope.config.problems import unknown
from tunescope.data.read import read_table
from tunescope.errors import DataError

NEUTRAL = "neutral"
# The noun phrases of the Equity Evaluation Corpus (Kiritchenko and Mohammad 2018), female and male.
PERSONS = {
    "she": "he", "her": "him", "this woman": "this man", "this girl": "this boy", "my sister": "my brother",
    "my daughter": "my son", "my wife": "my husband", "my girlfriend": "my boyfriend", "my mother": "my father",
    "my aunt": "my uncle", "my mom": "my dad",
}  # fmt: skip
FEMALE, MALE = {"she", "her", "hers", "herself"}, {"he", "him", "his", "himself"}
EEC_COLUMNS = ("text", "template", "person", "gender", "race", "emotion", "emotion_word")
WINOBIAS_COLUMNS = ("idx", "text", "stereotype", "type")


@dataclass(frozen=True)
class PairColumns:
    """Which columns of a table hold what.

    Attributes:
        original: The first text.
        rewritten: The second text.
        label: The label of both, or None.
        direction: The direction, or None.
        term: The changed term, or None.
        clusters: Columns that group pairs; at most three (text, template, name).
        label_map: From the file's labels to the model's.
    """

    original: str = "original"
    rewritten: str = "rewritten"
    label: str | None = None
    direction: str | None = None
    term: str | None = None
    clusters: Sequence[str] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)


def table_suite(path: str, name: str, columns: PairColumns, **more: Any) -> Suite:
    """Return a suite of the pairs of a table; rows whose two texts are equal, or lack one, are counted and left out.

    Args:
        path: The file.
        name: The suite's name.
        columns: Which columns hold what.
        more: Further fields of :class:`~tunescope.behaviour.suite.Suite`.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    frame = _read(path, [columns.original, columns.rewritten, *_given(columns)])
    keys = dict(zip(("text", "template", "name"), columns.clusters, strict=False))
    chosen = {
        "original": columns.original, "rewritten": columns.rewritten, "label": columns.label,
        "direction": columns.direction, **keys,
    }  # fmt: skip
    picked = [
        pl.col(source).cast(pl.String).alias(own) for own, source in chosen.items() if source is not None
    ]
    if columns.term is not None:
        picked.append(pl.concat_list(pl.col(columns.term).cast(pl.String)).alias("terms"))
    pairs = frame.select(picked)
    if "label" in pairs.columns and columns.label_map:
        pairs = pairs.with_columns(pl.col("label").replace(dict(columns.label_map)))
    said = [pl.col(name).str.strip_chars() != "" for name in ("original", "rewritten")]
    whole = pairs.drop_nulls(["original", "rewritten"]).filter(*said)
    kept = whole.filter(pl.col("original") != pl.col("rewritten"))
    counts = {
        "rows": frame.height, "touched": kept.height, "without one of the texts": frame.height - whole.height,
        "with two equal texts": whole.height - kept.height,
    }  # fmt: skip
    settings = {"kind": "invariance", "about": f"pairs of {path}", **more}
    return Suite(name, pairs=pair_table(kept), counts=counts, **settings)


def _given(columns: PairColumns) -> list[str]:
    return [
        name
        for name in (columns.label, columns.direction, columns.term, *columns.clusters)
        if name is not None
    ]


def _read(path: str, wanted: Sequence[str]) -> pl.DataFrame:
    frame = read_table(path)
    for name in wanted:
        if name not in frame.columns:
            raise DataError(
                f"{path}: {unknown('column', name, frame.columns)}", hint="Name the columns of the pairs."
            )
    return frame


def equity_suite(path: str, name: str, by: str, label_map: Mapping[str, str]) -> Suite:
    """Return pairs of the Equity Evaluation Corpus that differ in gender or race alone, in both directions.

    Sentences are paired by template, emotion word and person: noun phrases with their counterpart (my mother, my
    father); names of one race by place in the alphabet (the n-th female with the n-th male name), and of one gender for
    race. The neutral control exchanges a person for the next one of the same gender and race. The emotion is the label.

    Args:
        path: A file with the corpus's columns (text, template, person, gender, race, emotion, emotion_word).
        name: The suite's name.
        by: ``gender`` or ``race``.
        label_map: From the corpus's emotions to the model's labels.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    frame = _read(path, EEC_COLUMNS).with_columns(pl.col("race").fill_null("none"))
    partner, neutral = _partners(frame, by)
    place = {
        (row["template"], row["emotion_word"], row["person"]): row["text"]
        for row in frame.iter_rows(named=True)
    }
    records: list[dict[str, Any]] = []
    controls: list[dict[str, Any]] = []
    for row in frame.iter_rows(named=True):
        other = partner.get(row["person"])
        second = place.get((row["template"], row["emotion_word"], other))
        if other is None or second is None:
            continue
        sides = (row["gender"], "male" if row["gender"] == "female" else "female")
        if by == "race":
            sides = (row["race"], "European" if row["race"] == "African-American" else "African-American")
        key = f"{len(records):06d}"
        records.append(
            {
                "pair_id": key, "row_id": key, "original": row["text"], "rewritten": second,
                "label": label_map.get(row["emotion"] or "", row["emotion"]), "direction": f"{sides[0]} to {sides[1]}",
                "terms": [row["person"]], "template": row["template"],
                "name": " / ".join(sorted((row["person"], other))),
                "text": f"{row['template']}|{row['emotion_word']}",
            }
        )  # fmt: skip
        third = place.get((row["template"], row["emotion_word"], neutral.get(row["person"])))
        if third is not None:
            controls.append({"pair_id": key, "control": NEUTRAL, "original": row["text"], "rewritten": third})
    return Suite(
        name, "invariance", f"Equity Evaluation Corpus, sentences that differ in {by} alone", pair_table(records),
        pl.DataFrame(controls, schema=CONTROL_COLUMNS), counts={"rows": frame.height, "touched": len(records)},
        notes=("names are paired by their place in the alphabet; control: another person of the same gender and race",),
    )  # fmt: skip


def _partners(frame: pl.DataFrame, by: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return who is exchanged for whom, and for whom in the neutral control."""
    persons = frame.select("person", "gender", "race").unique().sort("person")
    groups: dict[tuple[str, str], list[str]] = {}
    for person, gender, race in persons.iter_rows():
        groups.setdefault((gender, race), []).append(person)
    partner: dict[str, str] = {}
    for (gender, race), names in groups.items():
        other = ("male" if gender == "female" else "female", race)
        if by == "race":
            other = (gender, "European" if race == "African-American" else "African-American")
        if race == "none":
            continue
        partner |= dict(zip(names, groups.get(other, []), strict=False))
    if by == "gender":
        partner |= PERSONS | {male: female for female, male in PERSONS.items()}
    neutral: dict[str, str] = {}
    for (_, race), names in groups.items():
        used = [name for name in names if by == "gender" or race != "none"]
        for part in ([n for n in used if n in FEMALE | MALE], [n for n in used if n not in FEMALE | MALE]):
            neutral |= {
                name: part[(index + 1) % len(part)] for index, name in enumerate(part) if len(part) > 1
            }
    return partner, neutral


def winobias_suite(path: str, name: str) -> Suite:
    """Return pairs of WinoBias sentences that differ in the pronoun alone, in both directions.

    The two sentences of a pair have one number (``idx``) and type, one pro- and one anti-stereotypical; brackets around
    the mentions are taken out. Pairs that differ in more than pronouns are counted and left out.

    Args:
        path: A file with the columns idx, text, stereotype (pro or anti) and type.
        name: The suite's name.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    frame = _read(path, WINOBIAS_COLUMNS).with_columns(
        pl.col("text").str.replace_all(r"[\[\]]", ""), key=pl.format("{}-{}", "type", "idx")
    )
    sides = {kind: frame.filter(pl.col("stereotype") == kind) for kind in ("pro", "anti")}
    both = sides["pro"].join(sides["anti"], on="key", how="inner", suffix="_anti", maintain_order="left")
    records, odd = [], 0
    for row in both.iter_rows(named=True):
        changed = _pronouns(row["text"], row["text_anti"])
        if changed is None:
            odd += 1
            continue
        for first, second, word, gender, kind in (
            (row["text"], row["text_anti"], changed[0], changed[1], "pro"),
            (
                row["text_anti"],
                row["text"],
                changed[2],
                "male" if changed[1] == "female" else "female",
                "anti",
            ),
        ):
            other = "male" if gender == "female" else "female"
            records.append(
                {
                    "row_id": f"{row['key']}-{kind}", "original": first, "rewritten": second,
                    "direction": f"{gender} to {other}", "terms": [word], "text": row["key"],
                }
            )  # fmt: skip
    alone = frame.height - 2 * both.height
    counts = {"rows": frame.height, "touched": len(records), "without a partner": alone,
              "that differ in more than a pronoun": 2 * odd}  # fmt: skip
    about = "WinoBias sentences that differ in the pronoun alone"
    return Suite(name, "invariance", about, pair_table(records), counts=counts)


def _pronouns(first: str, second: str) -> tuple[str, str, str] | None:
    """Return the first text's pronoun, its gender and the other text's pronoun; None where more differs."""
    ours, theirs = (re.findall(r"\w+|[^\w\s]", text.lower()) for text in (first, second))
    if len(ours) != len(theirs):
        return None
    apart = [(one, other) for one, other in zip(ours, theirs, strict=True) if one != other]
    if not apart:
        return None
    for mine, other, gender in ((FEMALE, MALE, "female"), (MALE, FEMALE, "male")):
        if all(a in mine and b in other for a, b in apart):
            return apart[0][0], gender, apart[0][1]
    return None
