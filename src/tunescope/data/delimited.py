"""Reading csv and tsv strictly: every row has its fields, every field keeps its characters."""

from __future__ import annotations

import contextlib
import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from tunescope.data.sources import SourceFile, open_text
from tunescope.data.table import Part, Table
from tunescope.errors import DataError

ROWS_PER_CHUNK = 20_000  # Python strings live only this long before they move into a polars column
DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
WHOLE_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def read_delimited(file: SourceFile, encoding: str, delimiter: str | None = None) -> Table:
    """Read a file with a header and one record per row; all cells are strings.

    Args:
        file: The file.
        encoding: Its encoding, strictly applied.
        delimiter: The field separator; None takes the comma, or what a header without commas uses instead.

    Raises:
        DataError: The file is empty, a column name occurs twice, a row has more or fewer fields than the
            header, a quote is not closed, or the bytes are not of the encoding.
    """
    delimiter = delimiter or _delimiter(file, encoding)
    quoted = delimiter != "\t" or _tabs_are_quoted(file, encoding)
    with _long_fields(), open_text(file, encoding, newline="") as text:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=quoted)
        records = _Records(file.shown, reader)
        header = records.header()
        chunks = [_frame(header, rows) for rows in records.chunks(len(header))]
    if not records.lines:
        raise DataError(
            f"{file.shown} has a header but no rows.", hint="Give a file with at least two labelled rows."
        )
    sha256, size = file.digest()
    part = Part(file.shown, 0, len(records.lines), sha256, size, lines=np.asarray(records.lines))
    details = {
        "format": "tsv" if delimiter == "\t" else "csv",
        "delimiter": DELIMITER_NAMES.get(delimiter, delimiter),
        "quoting": quoted,
    }
    return Table(pl.concat(chunks), (part,), details)


@dataclass
class _Records:
    """Iterates over records and remembers the line on which each began."""

    shown: str
    reader: Any  # the standard library does not name the type of a csv reader

    def __post_init__(self) -> None:
        self.lines: list[int] = []

    def header(self) -> list[str]:
        """Read the column names; a nameless column gets its number."""
        try:
            names = next(record for record in self._records() if record)
        except StopIteration:
            raise empty_file(self.shown) from None
        names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
        for number, name in enumerate(names, 1):
            first = names.index(name) + 1
            if first != number:
                raise DataError(
                    f"{self.shown}: the column name {name!r} occurs twice, in columns {first} and {number}.",
                    hint="Rename one of the two columns in the file's first line.",
                )
        return names

    def chunks(self, width: int) -> Iterator[list[list[str]]]:
        """Yield lists of records of exactly ``width`` fields each."""
        rows: list[list[str]] = []
        for record in self._records():
            if len(record) != width:
                if not record:  # a blank line is no record
                    continue
                raise self._ragged(record, width)
            self.lines.append(self._line)
            rows.append(record)
            if len(rows) == ROWS_PER_CHUNK:
                yield rows
                rows = []
        if rows:
            yield rows

    def _records(self) -> Iterator[list[str]]:
        self._line = self.reader.line_num + 1
        try:
            for record in self.reader:
                yield record
                self._line = self.reader.line_num + 1
        except csv.Error as error:
            row = len(self.lines) + 1
            reason = str(error)
            if "unexpected end" in reason:
                reason = "a quote that opens there is never closed"
            raise DataError(
                f"{self.shown}, row {row} (line {self._line}): the quotes do not fit a csv ({reason}).",
                hint='Put texts with quotes between quotes and double the inner ones: "he said ""yes""".',
            ) from error

    def _ragged(self, record: list[str], width: int) -> DataError:
        row = len(self.lines) + 1
        return DataError(
            f"{self.shown}, row {row} (line {self._line}): expected {width} fields as in the header, "
            f"found {len(record)}.",
            hint="Put texts that hold the separator or line breaks between double quotes.",
        )


def empty_file(shown: str) -> DataError:
    """Build the error for a file without content."""
    return DataError(
        f"{shown} is empty.", hint="Give a file with labelled rows, or check how it was written."
    )


def _frame(header: list[str], rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True)
    return pl.DataFrame(
        [pl.Series(name, cells, pl.String) for name, cells in zip(header, columns, strict=True)]
    )


def _delimiter(file: SourceFile, encoding: str) -> str:
    """Take the comma unless the header has none and uses another separator: one column is never enough."""
    with open_text(file, encoding, newline="") as text:
        first = next((line for line in text if line.strip()), "")
    if "," in first:
        return ","
    return max("\t;|", key=first.count) if any(mark in first for mark in "\t;|") else ","


def _tabs_are_quoted(file: SourceFile, encoding: str) -> bool:
    """Decide whether quotes in a tsv enclose fields, or are plain characters (as in GLUE's files).

    They are plain when every line has the header's number of tabs and some field begins with a quote without
    being one whole quoted field.
    """
    width, plain_quote = None, False
    with open_text(file, encoding, newline="") as text:
        for line in text:
            fields = line.rstrip("\r\n").split("\t")
            if width is None:
                width = len(fields)
            if len(fields) != width and line.strip():
                return True
            plain_quote |= any(cell.startswith('"') and not WHOLE_QUOTED.fullmatch(cell) for cell in fields)
    return not plain_quote


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Lift csv's limit of 131,072 characters in a field while a file is read."""
    before = csv.field_size_limit()
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
