"""Reading JSON and JSON lines, with the row and line of whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.delimited import empty_file
from tunescope.data.sources import SourceFile, open_text
from tunescope.data.table import Part, Table
from tunescope.errors import DataError


def read_json_lines(file: SourceFile, encoding: str) -> Table:
    """Read one JSON object per line; blank lines are skipped.

    Raises:
        DataError: The file is empty, or a line is not a JSON object (with row and line).
    """
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    with open_text(file, encoding, newline="\n") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{file.shown}, row {len(records) + 1} (line {number}): not JSON ({error.msg}, column "
                    f"{error.colno}).",
                    hint="Write one JSON object per line, or set data.format to what the file is.",
                ) from error
            records.append(_object(record, f"{file.shown}, row {len(records) + 1} (line {number})"))
            lines.append(number)
    return _table(file, records, "jsonl", np.asarray(lines))


def read_json_document(file: SourceFile, encoding: str) -> Table:
    """Read a JSON list of objects, an object of equally long lists, or ``{"data": [...]}``.

    A file named ``.json`` that holds JSON lines is read as such.

    Raises:
        DataError: It is none of these.
    """
    with open_text(file, encoding, newline="") as text:
        content = text.read()
    if not content.strip():
        raise empty_file(file.shown)
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return read_json_lines(file, encoding)
        raise DataError(
            f"{file.shown}: not JSON ({error.msg}, line {error.lineno}, column {error.colno}).",
            hint="Check how the file was written, or set data.format to what it is.",
        ) from error
    del content
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        document = document["data"]
    if isinstance(document, dict) and document and all(isinstance(v, list) for v in document.values()):
        document = _turned(document, file.shown)
    if isinstance(document, dict) and document:
        document = [document]
    if not isinstance(document, list):
        raise DataError(
            f"{file.shown}: expected a list of objects, found {_kind(document)}.",
            hint='Write [{"text": ..., "label": ...}, ...], or one object per line.',
        )
    records = [_object(record, f"{file.shown}, row {row}") for row, record in enumerate(document, 1)]
    return _table(file, records, "json", None)


def _turned(columns: dict[str, list[Any]], shown: str) -> list[dict[str, Any]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{shown}: its columns are not equally long: {lengths}.", hint="Write one object per row instead."
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _object(record: Any, where: str) -> dict[str, Any]:
    if isinstance(record, dict):
        return record
    raise DataError(
        f"{where}: expected an object, found {_kind(record)}.",
        hint='Write each row as {"text": ..., "label": ...}.',
    )


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", type(None): "null"}.get(
        type(value), repr(value)
    )


def _table(file: SourceFile, records: list[dict[str, Any]], kind: str, lines: np.ndarray | None) -> Table:
    if not records:
        raise empty_file(file.shown)
    sha256, size = file.digest()
    part = Part(file.shown, 0, len(records), sha256, size, lines=lines)
    names = list(dict.fromkeys(name for record in records for name in record))
    mixed: dict[str, tuple[int, str]] = {}
    series = []
    for name in names:
        values = [record.get(name) for record in records]
        try:
            series.append(column(name, values, mixed))
        except UnicodeEncodeError as error:
            row = next(
                i for i, value in enumerate(values) if isinstance(value, str) and _lone_surrogate(value)
            )
            raise DataError(
                f"{part.locate(row)}: column {name!r} holds half a character (a lone surrogate, "
                f"{error.object[error.start]!a}), which no text file can hold.",
                hint="Write the character whole, or replace it by U+FFFD.",
            ) from error
    return Table(pl.DataFrame(series), (part,), {"format": kind}, mixed)


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def column(name: str, values: Sequence[Any], mixed: dict[str, tuple[int, str]]) -> pl.Series:
    """Make a column of one type; where types differ, of strings, and note the first cell that was not text.

    Numbers that mix integers and floats become floats. Cells that are not strings are written as JSON.
    """
    kinds = {type(value) for value in values if value is not None}
    simple: dict[frozenset[type], pl.DataType] = {
        frozenset([str]): pl.String(), frozenset([bool]): pl.Boolean(), frozenset([float]): pl.Float64(),
        frozenset([int, float]): pl.Float64(), frozenset(): pl.Null(),
    }  # fmt: skip
    if frozenset(kinds) in simple:
        return pl.Series(name, values, simple[frozenset(kinds)], strict=False)
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values, pl.Int64)
    if kinds in ({list}, {dict}):
        try:
            return pl.Series(name, values, strict=True)
        except (pl.exceptions.PolarsError, TypeError, OverflowError):
            kinds = set()  # inner types differ: keep the cells, as JSON
    row = next(i for i, value in enumerate(values) if value is not None and not isinstance(value, str))
    mixed[name] = (row, json.dumps(values[row], ensure_ascii=False))
    cells = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pl.Series(name, cells, pl.String)
