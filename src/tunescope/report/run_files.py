"""The files of a run folder, one by one: a clear error that names what is damaged, and a note of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.errors import FormatError, RunError
from tunescope.files import read_json

REBUILD = "Remove it and run the same command again; it rebuilds what is missing."


@dataclass
class Files:
    """The files of a run folder; of a damaged one nothing is used, and what is wrong with it is kept."""

    folder: Path
    damaged: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Note a damaged file; another format is no damage."""
        try:
            yield
        except FormatError:
            raise
        except RunError as error:
            self.damaged[name] = error.message

    def json(self, name: str, wanted: Mapping[str, type] | None = None) -> dict[str, Any] | None:
        """Return a JSON object, or None where the file is missing or damaged."""
        with self.noting(name):
            return json_of(self.folder / name, wanted or {})
        return None

    def log(self, name: str) -> list[dict[str, Any]] | None:
        """Return the events of a file of JSON lines, or None where it is missing or damaged."""
        with self.noting(name):
            return log_of(self.folder / name)
        return None

    def parquet(self, name: str, wanted: tuple[str, ...]) -> pl.DataFrame | None:
        """Return a table, or None where the file is missing or damaged."""
        with self.noting(name):
            return parquet_of(self.folder / name, wanted)
        return None


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Name the file where what it holds is not what the page expects to find in it.

    Raises:
        RunError: An entry is missing or of another kind; the message says which file.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else first_line(error)
        raise RunError(f"{folder / name} does not hold what it should: {what}.", hint=REBUILD) from error


def json_of(path: Path, wanted: Mapping[str, type]) -> dict[str, Any] | None:
    """Return a JSON object with entries of the wanted kinds, or None where there is no such file."""
    if not path.is_file():
        return None
    document = read_json(path)
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            found = type(document.get(key)).__name__
            raise RunError(f"{path}: expected a {kind.__name__} under {key!r}, found {found}.", hint=REBUILD)
    return document


def log_of(path: Path) -> list[dict[str, Any]] | None:
    """Return the objects of a file of JSON lines, or None where there is no such file."""
    if not path.is_file():
        return None
    events = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                events.append(json.loads(line))
                if not isinstance(events[-1], dict):
                    raise RunError(
                        f"{path}, line {number}: expected a JSON object, found {line[:60]!r}.", hint=REBUILD
                    )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(
            f"{path} is not readable as JSON lines ({first_line(error)}).", hint=REBUILD
        ) from error
    return events


def parquet_of(path: Path, wanted: tuple[str, ...]) -> pl.DataFrame | None:
    """Return a table that has the wanted columns, or None where there is no such file."""
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{path} is not readable Parquet ({first_line(error)}).", hint=REBUILD) from error
    require(table, wanted, str(path))
    return table


def require(table: pl.DataFrame, wanted: tuple[str, ...], name: str) -> None:
    """Check that a table has the columns that the page reads by name.

    Raises:
        RunError: A column is missing; the message names the table, the columns and what is there.
    """
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise RunError(
            f"{name}: expected the columns {', '.join(missing)}, found {', '.join(table.columns) or 'none'}.",
            hint=REBUILD,
        )


def first_line(error: Exception) -> str:
    """Return the first line of an error, cut for display."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
