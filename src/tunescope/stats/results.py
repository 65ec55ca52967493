"""Results: tidy tables with named axes, their provenance, and the findings made from them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.errors import RunError
from tunescope.files import atomic_path, read_json, sha256_of, write_json

COLUMNS: dict[str, pl.DataType] = {
    "arm": pl.String(),
    "seed": pl.Int64(),
    "model": pl.String(),
    "base_head": pl.String(),
    "site": pl.String(),
    "layer": pl.Int64(),
    "head": pl.Int64(),
    "class": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "n": pl.Int64(),
    "p": pl.Float64(),
    "q": pl.Float64(),
}
VERDICTS = ("found", "equivalent", "undecided", "task not learned")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def result_table(records: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return a tidy table: the columns of every result first, in order, with their types, then further axes.

    Missing columns are null. NaN is null as well: why a number is undefined belongs in a column ``note``.

    Args:
        records: One mapping per row; keys that are not in :data:`COLUMNS` become further columns, in the
            order in which they first appear.

    Raises:
        ValueError: A value does not fit the type of its column.
    """
    keys = [*COLUMNS, *(key for key in dict.fromkeys(chain.from_iterable(records)) if key not in COLUMNS)]
    series = []
    for key in keys:
        values = _plain_values([record.get(key) for record in records])
        try:
            series.append(pl.Series(key, values, dtype=COLUMNS.get(key) or _type_of(values), strict=True))
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"column {key!r}: {error}") from error
    return pl.DataFrame(series)


def _plain_values(values: list[Any]) -> list[Any]:
    """Return Python scalars, with NaN as None; columns of one kind need no look at each value."""
    kinds = set(map(type, values))
    if kinds <= {str, int, bool, type(None)}:
        return values
    if kinds <= {float, type(None)}:
        return [None if value != value else value for value in values]  # NaN alone differs from itself
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """Return a Python scalar, with NaN as None."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _type_of(values: list[Any]) -> pl.DataType | None:
    """Return the type of a further column; None lets polars decide."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pl.String()
    return pl.Float64() if kinds == {int, float} else None


def joined_tables(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return result tables under one another; a column that one of them leaves empty takes the others' type.

    An empty column is of text (:func:`result_table`), and beside numbers it would turn them into text.
    """
    bare = [
        table.with_columns(
            pl.col(name).cast(pl.Null) for name in table.columns if table[name].null_count() == len(table)
        )
        for table in tables
    ]
    joined = pl.concat(bare, how="diagonal_relaxed")
    empty = [name for name, kind in joined.schema.items() if kind == pl.Null]
    return joined.with_columns(pl.col(name).cast(COLUMNS.get(name) or pl.String()) for name in empty)


@dataclass(frozen=True)
class Result:
    """What one lens found, as a table, and where it came from.

    Attributes:
        lens: The name of the lens; also the name of its files.
        table: The columns of :data:`COLUMNS` and further axes.
        provenance: JSON-able: what, which rows, seeds, version, command, options, notes.
    """

    lens: str
    table: pl.DataFrame
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        _require_name(self.lens)
        missing = [name for name in COLUMNS if name not in self.table.columns]
        if missing:
            raise ValueError(
                f"{self.lens}: the table lacks {', '.join(missing)}; make it with result_table()"
            )

    def save(self, folder: Path) -> None:
        """Write ``LENS.parquet`` and ``LENS.json`` into a folder, each whole or not at all.

        The JSON holds the checksum of the table, so that a table without its provenance is never read.

        Raises:
            RunError: The folder cannot be written.
        """
        path = Path(folder) / f"{self.lens}.parquet"
        with atomic_path(path) as temporary:
            self.table.write_parquet(temporary)
        table = {"file": path.name, "rows": self.table.height, "sha256": sha256_of(path)}
        write_json(path.with_suffix(".json"), {**self.provenance, "lens": self.lens, "table": table})

    @classmethod
    def load(cls, folder: Path, lens: str) -> Result:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: A file is missing, corrupt, or does not belong to the other; the message names it.
        """
        _require_name(lens)
        path = Path(folder) / f"{lens}.parquet"
        document = read_json(path.with_suffix(".json"))
        expected = document.get("table")
        if document.get("lens") != lens or not isinstance(expected, dict):
            raise RunError(
                f"{path.with_suffix('.json')} is not the provenance of the lens {lens!r}.",
                hint="Run the study again; it rebuilds the result.",
            )
        if not path.is_file():
            raise RunError(f"{path} is missing.", hint="Run the study again; it rebuilds what is missing.")
        if sha256_of(path) != expected.get("sha256"):
            raise RunError(
                f"{path} is corrupt: it is not the table that {lens}.json was written for.",
                hint="Run the study again; it rebuilds the result.",
            )
        try:
            table = pl.read_parquet(path)
            provenance = {k: v for k, v in document.items() if k not in ("format_version", "table")}
            return cls(lens, table, provenance)
        except (ValueError, pl.exceptions.PolarsError) as error:
            raise RunError(
                f"{path} is not a result ({error}).", hint="Run the study again; it rebuilds the result."
            ) from error


@dataclass(frozen=True)
class Finding:
    """One sentence made from a result, with what supports it.

    Attributes:
        lens: The lens it comes from.
        arm: The arm it is about; None where it is about several.
        sentence: The finding in words.
        metric: The name of the number.
        value: The number; None where it is undefined.
        low: The lower end of its interval.
        high: The upper end.
        n: How many rows it is made of.
        test: Which test was made, in words.
        control: What it was held against, in words.
        rows: Which rows, in words.
        verdict: One of :data:`VERDICTS`.
        seed: The seed of the training that it is about; None where it is about several, or no seed is known.
    """

    lens: str
    arm: str | None
    sentence: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    test: str | None
    control: str | None
    rows: str
    verdict: str
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"expected a verdict of {', '.join(VERDICTS)}; found {self.verdict!r}")
        for name in ("value", "low", "high"):
            number = _plain(getattr(self, name))
            object.__setattr__(self, name, number)
            if isinstance(number, float) and math.isinf(number):
                raise ValueError(f"{self.lens}: {name} of a finding must be finite")
        object.__setattr__(self, "n", _plain(self.n))


def save_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write findings to a JSON file, whole or not at all."""
    write_json(path, {"findings": [dataclasses.asdict(finding) for finding in findings]})


def load_findings(path: Path) -> list[Finding]:
    """Read findings that :func:`save_findings` wrote.

    Raises:
        RunError: The file is missing or corrupt; the message names it.
    """
    entries = read_json(path).get("findings")
    try:
        if not isinstance(entries, list):
            raise TypeError("it has no list of findings")
        return [Finding(**entry) for entry in entries]
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not hold findings ({error}).", hint="Run the study again; it rebuilds them."
        ) from error


def _require_name(lens: str) -> None:
    if not _NAME.fullmatch(lens):
        raise ValueError(f"expected a lens name of small letters, digits, - and _; found {lens!r}")
