"""From a study's ``data`` section to rows: read, check, label, identify, split, sample, and give account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tunescope.data.account import notes_on, provenance_of
from tunescope.data.arrange import deduplicate_train, sample_splits, split_rows
from tunescope.data.labels import Encoding, encoding_for, refuse_fractions, unknown_labels
from tunescope.data.pieces import DUPLICATES, UNSPLIT, Account, Piece, read_pieces
from tunescope.data.repeats import cluster_groups, relations
from tunescope.data.rows import RESERVED, SPLITS, Rows, fingerprint, row_ids, text_hash
from tunescope.data.table import listed, stack_frames
from tunescope.data.text import TextRule
from tunescope.errors import DataError
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from tunescope.config import DataConfig


def load_rows(data: DataConfig, seed: int, progress: Progress = SILENT) -> Rows:
    """Load a study's labelled rows.

    Rows without text are left out, and rows without a label except in test; texts are cleaned, and those that
    cleaning empties are left out; then repeats, where ``data.deduplicate`` says so. All are counted in the
    provenance. Ids, repeats and groups are those of the cleaned texts; ``position`` is that of the source.
    Splits that are not given are made from train (or from all rows): stratified, and grouped so that equal
    texts, and equal values of ``group_by`` (``duplicates``: near-duplicate clusters), never cross. With
    ``folds``, fold number ``fold`` is the test split, or the validation split where test is given.

    Args:
        data: The study's ``data`` section.
        seed: Seed of the splits and of the sample.
        progress: Where to report.

    Raises:
        DataError: A file, column, row or label is not what the study promises; the message names it.
    """
    rule = TextRule.of(data.text, data.template)
    account = Account()
    with progress.task("read rows", total=2, unit="steps") as task:
        pieces = read_pieces(data, rule, account)
        task.advance()
        encoding = _encoding(data, pieces)
        frame = _frame(data, rule, pieces, encoding)
        _check_classes(frame, pieces, encoding, data.labels is not None)
        task.advance()
    if data.group_by == DUPLICATES:
        frame = frame.with_columns(cluster_groups(frame, progress))
    found = relations(frame, data.group_by is not None)
    frame = deduplicate_train(frame, data, account, progress)
    frame, made = split_rows(frame, data, seed)
    frame = sample_splits(frame, data.rows, seed, encoding)
    account.notes += notes_on(found, made, frame, encoding)
    provenance = provenance_of(data, rule, pieces, encoding) | {
        "splits": {"given": sorted({str(s) for p in pieces for s in p.splits} - {UNSPLIT}), "made": made},
        "seed": seed,
        "dropped": account.dropped,
        "cleaning": account.cleaning,
        "deduplicated": account.deduplicated,
        "texts": found,
        "sample": data.rows if not isinstance(data.rows, Mapping) else dict(data.rows),
        "rows": {name: int((frame["split"] == name).sum()) for name in SPLITS},
        "fingerprint": fingerprint(frame),
        "notes": account.notes,
    }
    return Rows(frame.drop("_hash", "_group"), encoding.labels, provenance)


def _defining(piece: Piece, has_train: bool) -> np.ndarray:
    """Mask the rows that define the classes: those of train, or all where there is no train."""
    inside = (
        np.isin(piece.splits, ["train", UNSPLIT]) if has_train else np.ones(len(piece.splits), dtype=bool)
    )
    return inside & piece.keep


def _has_train(pieces: Sequence[Piece]) -> bool:
    return any(np.isin(piece.splits, ["train", UNSPLIT]).any() for piece in pieces)


def _encoding(data: DataConfig, pieces: Sequence[Piece]) -> Encoding:
    """Decide the classes, and refuse what is none of them."""
    has_train = _has_train(pieces)
    values = []
    for piece in pieces:
        mask = _defining(piece, has_train)
        if mask.any():
            refuse_fractions(piece.values, data.labels, piece.table)
        values.append(replace(piece.values, column=piece.values.column.filter(pl.Series(mask))))
    encoding = encoding_for(data.labels, values)
    for piece in pieces:
        for split in dict.fromkeys(piece.splits):
            inside = pl.Series((piece.splits == split) & piece.keep)
            column = pl.select(pl.when(inside).then(piece.values.column).alias("label"))["label"]
            name = piece.table.name if split == UNSPLIT else f"{split} ({piece.table.name})"
            error = unknown_labels(
                name, column, encoding, piece.table, "data.labels" if data.labels else "train"
            )
            if error is not None:
                raise error
    return encoding


def _frame(data: DataConfig, rule: TextRule, pieces: Sequence[Piece], encoding: Encoding) -> pl.DataFrame:
    """Put the kept rows of all tables below one another, identified."""
    used = {data.label, data.split_column, data.id, *(rule.columns if rule.plain else [])}
    frames, start = [], 0
    for piece in pieces:
        own = _own_columns(data, piece, encoding, start)
        others = piece.table.frame.select(c for c in piece.table.frame.columns if c not in used)
        frames.append(
            (
                piece.table.name,
                pl.concat([own, _renamed(others)], how="horizontal").filter(pl.Series(piece.keep)),
            )
        )
        start += len(piece.table)
    frame = stack_frames(frames)
    frame = frame.with_columns(pl.Series("_hash", [text_hash(text) for text in frame["text"]], pl.String))
    ids = (
        row_ids(frame["_hash"], frame["split"], frame["label"])
        if data.id is None
        else _own_ids(frame, data, pieces)
    )
    frame = frame.with_columns(ids.alias("row_id")).drop("_id")
    return frame.select(*RESERVED, pl.exclude(RESERVED))


def _own_columns(data: DataConfig, piece: Piece, encoding: Encoding, start: int) -> pl.DataFrame:
    nothing = pl.repeat(None, len(piece.table), dtype=pl.String, eager=True)
    source = piece.table.frame
    return pl.DataFrame(
        {
            "position": pl.Series(np.arange(start, start + len(piece.table)), dtype=pl.Int64),
            "split": pl.Series(piece.splits.tolist(), dtype=pl.String),
            "text": piece.texts,
            "label": encoding.encode(piece.values.column),
            "_id": source[data.id].cast(pl.String) if data.id else nothing,
            "_group": source[data.group_by].cast(pl.String)
            if data.group_by not in (None, DUPLICATES)
            else nothing,
        }
    )


def _renamed(others: pl.DataFrame) -> pl.DataFrame:
    """Give a new name to the source's columns that bear one of ours."""
    taken, names = set(others.columns), {}
    for column in others.columns:
        if column in (*RESERVED, "_id", "_group", "_hash"):
            name = f"source_{column}"
            while name in taken:
                name = f"source_{name}"
            names[column] = name
            taken.add(name)
    return others.rename(names)


def _own_ids(frame: pl.DataFrame, data: DataConfig, pieces: Sequence[Piece]) -> pl.Series:
    """Take the ids of ``data.id``; where given splits use the same ids, the split stands before them.

    Raises:
        DataError: An id is missing, or stands twice in one split.
    """
    ids = frame["_id"]
    bad = ids.is_null() | (ids == "")
    if bad.any():
        row = int(bad.arg_true()[0])
        raise DataError(
            f"{_where(frame, pieces, row)}: column {data.id!r} (data.id) is empty in {int(bad.sum())} rows, "
            "first in this one.",
            hint="Give every row its id, or remove data.id: rows then get ids from their texts.",
        )
    if not ids.is_duplicated().any():
        return ids
    twice = frame.select("split", "_id").is_duplicated()
    if twice.any():
        row = int(twice.arg_true()[0])
        raise DataError(
            f"{_where(frame, pieces, row)}: the id {ids[row]!r} (data.id: {data.id}) stands in several rows.",
            hint="Use a column of unique values, or remove data.id: rows then get ids from their texts.",
        )
    return frame.select(pl.concat_str("split", pl.lit("/"), "_id").alias("row_id"))["row_id"]


def _where(frame: pl.DataFrame, pieces: Sequence[Piece], row: int) -> str:
    """Name the source of row ``row`` of the frame."""
    position = int(frame["position"][row])
    for piece in pieces:
        if position < len(piece.table):
            return piece.table.locate(position)
        position -= len(piece.table)
    raise IndexError(row)


def _check_classes(frame: pl.DataFrame, pieces: Sequence[Piece], encoding: Encoding, named: bool) -> None:
    """Refuse one class only, and classes with no row or one, where there is a train split."""
    if not _has_train(pieces):
        return
    train = frame.filter(pl.col("split").is_in(["train", UNSPLIT]))
    counts = np.bincount(train["label"].to_numpy(), minlength=len(encoding.labels))
    names = encoding.labels.names
    empty = [names[i] for i in np.flatnonzero(counts == 0)]
    if np.count_nonzero(counts) == 1 and not (named and empty and len(names) == 1):
        only = names[int(counts.argmax())]
        raise DataError(
            f"{pieces[0].table.name}: all {len(train):,} rows have the one label {only!r}; "
            "a classifier needs two.",
            hint="Check data.label, or give rows of another class.",
        )
    if empty:
        raise DataError(
            f"data.labels names {listed(empty)}, but no row of train has it.",
            hint="Check the spelling in data.labels, or take the name out.",
        )
    if (counts == 1).any():
        first = int(np.flatnonzero(counts == 1)[0])
        position = train.filter(pl.col("label") == first)["position"][0]
        row = int(frame["position"].index_of(position) or 0)
        others = int((counts == 1).sum()) - 1
        more = f" (and {others} more labels)" if others else ""
        raise DataError(
            f"{_where(frame, pieces, row)}: the label {names[first]!r} stands in this row only{more}; "
            "a class needs two rows.",
            hint="Give more rows of it, merge it into another class with data.labels, or take the row out. "
            "If the labels are ids or measurements, choose another column.",
        )
