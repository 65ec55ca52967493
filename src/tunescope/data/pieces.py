"""The tables behind a study's splits, each checked, with texts and canonical labels drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tunescope.data.clean import clean_texts
from tunescope.data.labels import Values, canonical
from tunescope.data.read import SPLIT_NAMES, ReadOptions, read_source
from tunescope.data.table import SHOWN, Table, listed, missing_column, nearest, stack
from tunescope.data.text import TextRule
from tunescope.errors import DataError

if TYPE_CHECKING:
    from tunescope.config import DataConfig

UNSPLIT = "all"  # the name of rows whose split is not given
DUPLICATES = "duplicates"  # what data.group_by says instead of a column for near-duplicate clusters


@dataclass
class Piece:
    """The rows of one table.

    Attributes:
        table: As read.
        splits: Given split of each row [N]; :data:`UNSPLIT` where none is given.
        texts: After the template; null or blank where there is none.
        values: Canonical labels.
        keep: Rows that stay [N].
    """

    table: Table
    splits: np.ndarray
    texts: pl.Series
    values: Values
    keep: np.ndarray


@dataclass
class Account:
    """What was left out and what a reader should know.

    Attributes:
        dropped: Split to reason to rows.
        cleaning: Per table the account of every cleaning step, and the rows that cleaning emptied.
        deduplicated: What deduplication left out, or None.
        notes: Sentences.
    """

    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    cleaning: list[dict[str, Any]] = field(default_factory=list)
    deduplicated: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def drop(self, piece: Piece, split: str, rows: np.ndarray, what: str, words: str) -> None:
        """Leave out ``rows`` (a mask [N]) of one split, counted under ``what`` and noted in words."""
        lost = np.flatnonzero(rows & piece.keep)
        if not len(lost):
            return
        piece.keep[lost] = False
        counts = self.dropped.setdefault(split, {})
        counts[what] = counts.get(what, 0) + len(lost)
        total = int((piece.splits == split).sum())
        name = "" if split == UNSPLIT else f" {split}"
        where = piece.table.locate_many(lost)
        self.notes.append(f"Left out, {words}: {len(lost):,} of {total:,}{name} rows ({where}).")


def read_pieces(data: DataConfig, rule: TextRule, account: Account) -> list[Piece]:
    """Read every table of a study's ``data`` section and draw texts and labels from it.

    Raises:
        DataError: Anything is missing or not of its kind; the message names file, column and row.
    """
    pieces = []
    for split, table in _given_tables(data, rule, account).items():
        column = _split_column(data, table) if data.split_column else np.full(len(table), split, dtype=object)
        texts = rule.render(table.frame)
        if data.label in table.frame.columns:
            labels = table.frame[data.label]
        else:  # allowed for a test file only, see _required
            labels = pl.Series(data.label, [None] * len(table), pl.String)
            account.notes.append(f"{table.name} has no column {data.label!r}: its rows are unlabelled.")
        values = canonical(labels, table, _per_token(labels, texts))
        piece = Piece(table, column, texts, values, np.ones(len(table), dtype=bool))
        pieces.append(piece)
        _leave_out(piece, account, data.summary is not None)
        _clean(piece, data, account, sum(len(one.table) for one in pieces[:-1]))
    return pieces


def _clean(piece: Piece, data: DataConfig, account: Account, start: int) -> None:
    """Clean the texts of the rows that stay, and leave out those that nothing is left of.

    Args:
        piece: The rows; texts and mask are changed.
        data: The study's ``data`` section.
        account: Where to count.
        start: Position of the first row.
    """
    if not data.clean:
        return
    seen = pl.select(pl.when(pl.Series(piece.keep)).then(piece.texts).alias("text"))["text"]
    cleaned = clean_texts(seen, data.clean)
    emptied = (cleaned.texts.str.strip_chars() == "").fill_null(False).to_numpy()
    lost = np.flatnonzero(emptied & piece.keep)
    for split in dict.fromkeys(piece.splits):
        inside = piece.splits == split
        account.drop(piece, split, inside & emptied, "empty_after_cleaning", "empty after cleaning")
        _refuse_none_left(
            piece, split, "a text after cleaning", "Look at data.clean: a step removes every text."
        )
    piece.texts = cleaned.texts
    account.cleaning.append(
        {
            "table": piece.table.name,
            "steps": cleaned.steps,
            "emptied": {"rows": len(lost), "positions": (lost + start).tolist()},
        }
    )
    for step in cleaned.steps:
        account.notes.append(
            f"Cleaning step {step['step']}: {step['rows_changed']:,} of {step['rows']:,} texts of "
            f"{piece.table.name} changed, {step['characters_removed']:,} characters removed."
        )


def _leave_out(piece: Piece, account: Account, summaries: bool = False) -> None:
    """Leave out rows without a text, and rows without a label except in test."""
    null = piece.texts.is_null().to_numpy()
    blank = (piece.texts.str.strip_chars() == "").fill_null(False).to_numpy()
    bare = piece.values.column.is_null().to_numpy()
    for split in dict.fromkeys(piece.splits):
        inside = piece.splits == split
        account.drop(piece, split, inside & null, "null_text", "no text")
        account.drop(piece, split, inside & blank, "empty_text", "blank text")
        if summaries:
            account.drop(piece, split, inside & bare, "null_summary", "no summary")
        elif split != "test":
            account.drop(piece, split, inside & bare, "null_label", "no label")
        elif unlabelled := int((inside & bare & piece.keep).sum()):
            account.notes.append(
                f"{unlabelled:,} of {int(inside.sum()):,} test rows have no label; they are predicted only."
            )
        both, keys = (
            ("an article and a summary", "data.summary")
            if summaries
            else ("a text and a label", "data.label")
        )
        _refuse_none_left(piece, split, f"both {both}", f"Check data.text and {keys}, or the file.")


def _refuse_none_left(piece: Piece, split: str, what: str, hint: str) -> None:
    if not ((piece.splits == split) & piece.keep).any():
        of = "" if split == UNSPLIT else f" of {split}"
        raise DataError(f"{piece.table.name}: no row{of} has {what}.", hint=hint)


def _given_tables(data: DataConfig, rule: TextRule, account: Account) -> dict[str, Table]:
    """Return a table per given split, or one table under :data:`UNSPLIT`."""
    if not isinstance(data.path, Mapping):
        return _by_split(read_source(data.path, _options(data, rule, labelled=True)), data, account)
    if data.split_column:
        raise DataError(
            "data.path names a file for each split, and data.split_column a column: only one can hold.",
            hint="Remove data.split_column, or give data.path as one file.",
        )
    given: dict[str, Table] = {}
    for name, source in data.path.items():
        if name.lower() not in SPLIT_NAMES:
            raise DataError(
                f"data.path: {name!r} is not a split.", hint="Use the keys train, validation and test."
            )
        split = SPLIT_NAMES[name.lower()]
        labelled = split != "test" or not {"train", "training"} & {key.lower() for key in data.path}
        tables = read_source(source, _options(data, rule, labelled))
        found = {SPLIT_NAMES.get((key or "").lower(), key): table for key, table in tables.items()}
        chosen = found.get(split, next(iter(found.values())) if len(found) == 1 else None)
        if chosen is None:
            raise DataError(
                f"data.path.{name}: {source} holds several splits ({listed(found)}) and none is {split}.",
                hint="Give one file per split.",
            )
        given[split] = chosen
    return given


def _by_split(tables: dict[str | None, Table], data: DataConfig, account: Account) -> dict[str, Table]:
    """Keep the splits of a source that are train, validation or test; a single nameless table stays whole."""
    if data.split_column or len(tables) == 1:
        only = next(iter(tables))
        split = None if data.split_column else SPLIT_NAMES.get((only or "").lower())
        return {split or UNSPLIT: stack(list(tables.values()))}
    given = {
        SPLIT_NAMES[key.lower()]: table for key, table in tables.items() if key and key.lower() in SPLIT_NAMES
    }
    ignored = [key for key in tables if not key or key.lower() not in SPLIT_NAMES]
    if not given:
        raise DataError(
            f"{data.path}: none of its splits {listed(ignored)} is train, validation or test.",
            hint="Say which is which: data.path: {train: ..., test: ...}.",
        )
    if ignored:
        account.notes.append(f"These splits of {data.path} were not read: {', '.join(map(str, ignored))}.")
    return given


def _options(data: DataConfig, rule: TextRule, labelled: bool) -> ReadOptions:
    check = _required(data, rule, labelled)
    return ReadOptions(data.format, data.encoding, data.name, data.revision, check)


def _required(data: DataConfig, rule: TextRule, labelled: bool) -> Callable[[Table], None]:
    """Return the check that every file passes: the columns are there, and the texts are text."""
    wanted = dict.fromkeys(rule.columns, "text")
    group_by = None if data.group_by == DUPLICATES else data.group_by
    keys: dict[str, Any] = {"split_column": data.split_column, "group_by": group_by, "id": data.id}
    wanted |= {column: key for key, column in keys.items() if column}
    if labelled:
        wanted[data.label] = "label"

    def check(table: Table) -> None:
        for column, key in wanted.items():
            if column not in table.frame.columns:
                raise missing_column(table.name, column, key, table.frame.columns)
        if data.group_by == DUPLICATES and DUPLICATES in table.frame.columns:
            raise DataError(
                f"{table.name}: data.group_by: {DUPLICATES} means clusters of near-duplicate texts, and the file "
                "has a column of that name.",
                hint="Give the column another name in the file.",
            )
        rule.check(table)

    return check


def _split_column(data: DataConfig, table: Table) -> np.ndarray:
    column = table.frame[str(data.split_column)].cast(pl.String)
    splits = [SPLIT_NAMES.get((value or "").strip().lower()) for value in column]
    odd = [row for row, split in enumerate(splits) if split is None]
    if odd:
        values = list(dict.fromkeys(column[row] for row in odd))
        match = nearest(str(values[0]), SPLIT_NAMES)
        raise DataError(
            f"{table.locate(odd[0])}: column {data.split_column!r} should say train, validation or test, and "
            f"says {listed(values, SHOWN)} in {len(odd):,} of {len(table):,} rows.",
            hint=f"Did you mean {match!r}?"
            if match
            else "Choose another column, or write these words in it.",
        )
    return np.asarray(splits, dtype=object)


def _per_token(labels: pl.Series, texts: pl.Series) -> bool:
    """Say whether a column of lists has one label for every word of the first texts."""
    if not isinstance(labels.dtype, pl.List | pl.Array):
        return False
    pairs = [
        (cell, text)
        for cell, text in zip(labels.head(20), texts.head(20), strict=True)
        if cell is not None and text
    ]
    return (
        bool(pairs)
        and all(len(cell) == len(text.split()) for cell, text in pairs)
        and any(len(c) > 1 for c, _ in pairs)
    )
