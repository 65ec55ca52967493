"""A table as it was read, which still knows the file, row and line of every cell."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from tunescope.errors import DataError

SHOWN = 5  # how many rows, labels or names a message lists before it only counts


@dataclass(frozen=True)
class Part:
    """The rows of one file within a table.

    Attributes:
        path: The file as a reader should see it.
        start: Index of its first row in the table.
        rows: How many rows it gave.
        sha256: Checksum of its bytes; for a folder of texts, of its file names and their checksums.
        size: Bytes.
        lines: Physical line (from 1) on which each row begins, for line-based formats.
        names: One file name per row, for a folder of text files.
    """

    path: str
    start: int
    rows: int
    sha256: str | None = None
    size: int | None = None
    lines: np.ndarray | None = None
    names: Sequence[str] | None = None

    def locate(self, row: int) -> str:
        """Name row ``row`` (from 0, within this part) as a person would look for it."""
        return self.names[row] if self.names is not None else f"{self.path}, row {self.number(row)}"

    def number(self, row: int) -> str:
        """Number row ``row`` from 1, with its line where lines exist."""
        return f"{row + 1}" if self.lines is None else f"{row + 1} (line {int(self.lines[row])})"


@dataclass(frozen=True)
class Table:
    """Rows of one source with where they came from.

    Attributes:
        frame: The cells; csv and tsv give strings only.
        parts: The files, in the order of the rows.
        details: How it was read (format, delimiter, revision), JSON-able.
        mixed: Per column of mixed types, the first row whose cell is not text, and that cell as JSON.
    """

    frame: pl.DataFrame
    parts: tuple[Part, ...]
    details: dict[str, Any] = field(default_factory=dict)
    mixed: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def name(self) -> str:
        """The file, or the first of several and how many more."""
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return f"{self.parts[0].path}{more}"

    def locate(self, row: int) -> str:
        """Name row ``row`` (from 0): file, data row from 1, and line where lines exist."""
        part = self._part(row)
        return part.locate(row - part.start)

    def _part(self, row: int) -> Part:
        for part in reversed(self.parts):
            if row >= part.start:
                return part
        raise IndexError(row)

    def locate_many(self, rows: Iterable[int]) -> str:
        """Name the first few of ``rows``, file by file, and count the others."""
        found = [int(row) for row in rows]
        by_file: dict[str, list[str]] = {}
        for row in found[:SHOWN]:
            part = self._part(row)
            if part.names is not None:
                by_file[part.locate(row - part.start)] = []
            else:
                by_file.setdefault(part.path, []).append(part.number(row - part.start))
        shown = "; ".join(
            f"{name}, row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else name
            for name, numbers in by_file.items()
        )
        return shown if len(found) <= SHOWN else f"{shown} and {len(found) - SHOWN:,} more"


def stack(tables: Sequence[Table]) -> Table:
    """Put tables below one another; a column that one of them lacks is null there.

    Raises:
        DataError: A column has types in two files that cannot stand in one column.
    """
    if len(tables) == 1:
        return tables[0]
    parts: list[Part] = []
    mixed: dict[str, tuple[int, str]] = {}
    start = 0
    for table in tables:
        parts += [replace(part, start=part.start + start) for part in table.parts]
        for column, (row, cell) in table.mixed.items():
            mixed.setdefault(column, (row + start, cell))
        start += len(table)
    frame = stack_frames([(table.name, table.frame) for table in tables])
    return Table(frame, tuple(parts), tables[0].details, mixed)


def stack_frames(named: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """Concatenate frames by column name; scalar columns of different types meet as numbers or as strings.

    Raises:
        DataError: A nested column (list, struct) has another type elsewhere.
    """
    types: dict[str, list[tuple[str, pl.DataType]]] = {}
    for name, frame in named:
        for column, dtype in frame.schema.items():
            types.setdefault(column, []).append((name, dtype))
    as_string = set()
    for column, seen in types.items():
        kinds = {dtype for _, dtype in seen if dtype != pl.Null}
        if len(kinds) < 2 or all(kind.is_numeric() for kind in kinds):
            continue
        if any(kind.is_nested() for kind in kinds):
            listed = ", ".join(f"{dtype} in {name}" for name, dtype in seen)
            raise DataError(
                f"Column {column!r} does not have one type: {listed}.",
                hint="Write the files with one type for this column, or drop it from one of them.",
            )
        as_string.add(column)
    frames = [
        frame.with_columns(pl.col(column).cast(pl.String) for column in frame.columns if column in as_string)
        for _, frame in named
    ]
    return pl.concat(frames, how="diagonal_relaxed", rechunk=False)


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option most like ``name`` (letter case aside), or None when none is close."""
    by_fold = {option.casefold(): option for option in options}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def listed(names: Iterable[object], limit: int = 20) -> str:
    """Quote names for a message, at most ``limit`` of them."""
    found = list(names)
    shown = ", ".join(repr(name) for name in found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"


def missing_column(where: str, column: str, key: str, columns: Sequence[str]) -> DataError:
    """Build the error for a column that the study names and the file lacks."""
    match = nearest(column, columns)
    guess = f"Did you mean {match!r}? " if match else ""
    return DataError(
        f"{where}: column {column!r} (data.{key}) is missing; found: {listed(columns)}.",
        hint=f"{guess}Set data.{key} to a column of the file.",
    )
