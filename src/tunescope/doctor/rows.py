"""Checks of data: rows that leaked from train to test, and a column that determines the label."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from tunescope.data.audit import Audit, AuditOptions, audit
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.doctor.check import Bench, Line, same, smallest_found

SYLLABLES = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
TRAIN, TEST = 400, 100


def leaked_rows(bench: Bench) -> Iterable[Line]:
    """Copy some train rows into test, in part with another case and one other word, and count them by the audit."""
    clean = _rows(bench.seed)
    yield same("clean rows: red findings", [], _kinds(audit(clean), "red"))
    texts = clean.frame["text"].to_list()
    for number, (kind, changed) in enumerate(
        {"copied": lambda text: text, "in capitals": str.upper, "one word changed": _one_word}.items()
    ):
        copies = 5 + number
        leaked = [*texts[:-copies], *(changed(text) for text in texts[:copies])]
        found = audit(clean_with(clean, leaked), AuditOptions(near=kind == "one word changed"))
        leaks = [one for one in found.findings if one.kind == "shared_texts"]
        counted = leaks[0].evidence["rows"]["test"] if leaks else 0
        yield same(f"test rows that are train rows, {kind}", copies, counted)
        yield same(f"severity of {copies} % leaked rows, {kind}", ["red"], [one.severity for one in leaks])

    def found_at(count: float, trial: int) -> bool:
        rows = _rows(trial)
        own = rows.frame["text"].to_list()
        leaked = [*own[: -int(count)], *own[: int(count)]]
        return any(
            one.kind == "shared_texts"
            for one in audit(clean_with(rows, leaked), AuditOptions(near=False)).findings
        )

    yield smallest_found("leaked rows", f"of {TEST} test rows", (1, 2, 5), 10, found_at)


def _one_word(text: str) -> str:
    words = text.split()
    return " ".join([*words[:-1], "changed"])


def label_column(bench: Bench) -> Iterable[Line]:
    """Add a column that determines the label: the audit names it in red, and keeps quiet about idle columns."""
    clean = _rows(bench.seed)
    names = np.array(clean.labels.names)[clean.label_array]
    quiet = [one for one in audit(clean, AuditOptions(near=False)).findings if "colour" in one.sentence]
    yield same("findings about a column that says nothing", [], [one.kind for one in quiet])
    topics = np.char.add(names, np.char.add(" ", (np.arange(len(clean)) % 4).astype(str)))
    planted = Rows(clean.frame.with_columns(topic=pl.Series(topics)), clean.labels, {})
    red = [one for one in audit(planted, AuditOptions(near=False)).findings if one.severity == "red"]
    yield same("red findings that name the column", True, any("'topic'" in one.sentence for one in red))
    idle = [one for one in red if "'colour'" in one.sentence]
    yield same("red findings that name another column", [], [one.kind for one in idle])

    def found(share: float, trial: int) -> bool:
        rows = _rows(trial)
        generator = np.random.default_rng(trial)
        own = np.array(rows.labels.names)[rows.label_array]
        column = np.where(generator.random(len(own)) < share, own, generator.permutation(own))
        made = Rows(rows.frame.with_columns(topic=pl.Series(column)), rows.labels, {})
        return any("'topic'" in one.sentence for one in audit(made, AuditOptions(near=False)).findings)

    yield smallest_found(
        "a column that repeats the label in some rows and is drawn at random in the others, named by the audit",
        f"of {TRAIN} train rows repeat it",
        (0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
        10,
        found,
    )


def _rows(seed: int) -> Rows:
    """Return rows whose texts never repeat and whose columns say nothing about the label."""
    generator = np.random.default_rng(seed)
    n = TRAIN + TEST
    frame = pl.DataFrame({
        "row_id": [f"row-{index}" for index in range(n)],
        "position": pl.Series(range(n), dtype=pl.Int64),
        "split": ["train"] * TRAIN + ["test"] * TEST,
        "text": [" ".join(generator.choice(SYLLABLES, size=generator.integers(12, 30))) for _ in range(n)],
        "label": pl.Series(generator.permutation(np.arange(n) % 3), dtype=pl.Int64),
        "colour": generator.choice(["red", "green", "blue"], size=n),
    })  # fmt: skip
    return Rows(frame, LabelMap(("bad", "fine", "good")), {})


def clean_with(rows: Rows, texts: list[str]) -> Rows:
    """Return the rows with other texts."""
    return Rows(rows.frame.with_columns(text=pl.Series(texts)), rows.labels, {})


def _kinds(found: Audit, severity: str) -> list[str]:
    return [one.kind for one in found.findings if one.severity == severity]
