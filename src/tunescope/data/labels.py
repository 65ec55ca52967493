"""One label map for a study: what stands in the label column, and the class index it means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.data.table import SHOWN, Table, listed, nearest
from tunescope.errors import DataError

WHOLE = re.compile(r"[+-]?\d+(\.0+)?")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class LabelMap:
    """The classes of a study in index order.

    Attributes:
        names: Class ``i`` is called ``names[i]``.

    Raises:
        DataError: Two classes have one name.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(
                f"Two classes have the same name: {listed(repeated)}.", hint="Name each class once."
            )

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the class index of ``name``.

        Raises:
            DataError: No class has this name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            match = nearest(name, self.names)
            raise DataError(
                f"{name!r} is not a label; the labels are {listed(self.names)}.",
                hint=f"Did you mean {match!r}?" if match else "Use one of these.",
            ) from None

    def to_list(self) -> list[str]:
        """Return the names in index order."""
        return list(self.names)


@dataclass(frozen=True)
class Values:
    """A label column in canonical form.

    Attributes:
        column: Strings; null means unlabelled. Integers of any width, and floats that are integers, read
            ``"3"``; booleans read ``"false"`` and ``"true"``.
        order: The order that the type itself gives (an enumeration's), or None.
        fraction: Index and text of the first number with a fraction, where all values are numbers.
    """

    column: pl.Series
    order: tuple[str, ...] | None = None
    fraction: tuple[int, str] | None = None


def canonical(column: pl.Series, table: Table, text_is_list: bool = False) -> Values:
    """Bring a label column of any type into canonical form.

    Args:
        column: As read.
        table: The table, to name rows in messages.
        text_is_list: The text column holds lists, so lists of labels mean one per token.

    Raises:
        DataError: The column holds lists (multi-label or token classification) or something that is no label.
    """
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array):
        raise _list_labels(column, table, text_is_list)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(
            f"{table.name}: column {column.name!r} holds {dtype}, which is not a label.",
            hint="Set data.label to a column of strings, integers or booleans.",
        )
    if isinstance(dtype, pl.Enum):
        return Values(column.cast(pl.String), tuple(dtype.categories))
    if dtype == pl.Boolean:
        return Values(column.cast(pl.String))
    if dtype.is_integer():
        return Values(column.cast(pl.String))
    if dtype.is_float() or dtype.is_decimal():
        floats = column.cast(pl.Float64).fill_nan(None)
        rounded = floats.round(0)
        odd = (floats != rounded).fill_null(False).arg_true()
        if len(odd):
            first = int(odd[0])
            return Values(floats.cast(pl.String), fraction=(first, str(floats[first])))
        return Values(rounded.cast(pl.Int64).cast(pl.String))
    strings = column.cast(pl.String)
    return _canonical_strings(strings.set(strings == "", None))


def _canonical_strings(strings: pl.Series) -> Values:
    """Read a column of numbers written as text: ``1.0`` is 1 when all are whole, ``0.5`` is a fraction."""
    unique = strings.drop_nulls().unique().to_list()
    if unique and all(WHOLE.fullmatch(value) for value in unique):
        return Values(strings.str.replace(r"\.0+$", ""))
    if unique and all(NUMBER.fullmatch(value) for value in unique):
        fractions = {value for value in unique if not float(value).is_integer()}
        if fractions:
            first = int(strings.is_in(list(fractions)).fill_null(False).arg_true()[0])
            return Values(strings, fraction=(first, str(strings[first])))
    return Values(strings)


def _list_labels(column: pl.Series, table: Table, text_is_list: bool) -> DataError:
    first = next((i for i, cell in enumerate(column) if cell is not None), 0)
    cell = column[first]
    shown = cell.to_list() if isinstance(cell, pl.Series) else cell
    if text_is_list:
        what, step = "token classification (a label for every token)", "one label per text"
    else:
        what, step = "multi-label classification (several labels for a text)", "one label per row"
    where = table.locate(first) if len(table) else table.name
    return DataError(
        f"{where}: column {column.name!r} holds a list, {shown!r}. tunescope does not do {what}; it "
        "classifies whole texts into one class each.",
        hint=f"Set data.label to a column with {step}, or make such a column.",
    )


def key_of(value: Any) -> str:
    """Return the canonical form of a label value or name written in a study."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Encoding:
    """From canonical values to class indices."""

    labels: LabelMap
    index: dict[str, int]
    from_booleans: bool = False

    def encode(self, column: pl.Series) -> pl.Series:
        """Return class indices as Int64; null where the value is null or unknown."""
        return column.replace_strict(
            list(self.index), list(self.index.values()), default=None, return_dtype=pl.Int64
        ).alias("label")


def encoding_for(given: Sequence[Any] | Mapping[Any, Any] | None, values: Sequence[Values]) -> Encoding:
    """Decide the classes and their order.

    Args:
        given: ``data.labels``: names in index order, or a mapping from value to name (several values may
            share a name), or None to take what the column holds.
        values: The canonical columns that define the classes (the train split where it exists).

    Without ``given``, an enumeration keeps its order, numbers sort as numbers, and all else as strings.
    A list names classes by value where every value is in it, else by position for the integers 0, 1, 2, ...
    """
    found = list(
        dict.fromkeys(v for one in values for v in one.column.drop_nulls().unique(maintain_order=True))
    )
    if given is None:
        names = _ordered(found, values)
        return Encoding(LabelMap(tuple(names)), {name: i for i, name in enumerate(names)})
    keys = list(given)
    booleans = any(isinstance(key, bool) for key in keys)
    if isinstance(given, Mapping):
        names = list(dict.fromkeys(key_of(name) for name in given.values()))
        index = {key_of(value): names.index(key_of(name)) for value, name in given.items()}
        return Encoding(LabelMap(tuple(names)), _any_case(index, found), booleans)
    names = [key_of(name) for name in keys]
    index = {name: i for i, name in enumerate(names)}
    positions = {str(i): i for i in range(len(names))}
    if not set(found) <= set(_any_case(index, found)) and set(found) <= set(positions):
        index = positions
    return Encoding(LabelMap(tuple(names)), _any_case(index, found), booleans)


def _any_case(index: dict[str, int], found: Sequence[str]) -> dict[str, int]:
    """Let ``True`` in a csv meet the boolean ``true`` of a study."""
    extra = {
        v: index[v.lower()]
        for v in found
        if v not in index and v.lower() in ("true", "false") and v.lower() in index
    }
    return {**index, **extra}


def _ordered(found: list[str], values: Sequence[Values]) -> list[str]:
    orders = {one.order for one in values if len(one.column.drop_nulls())}
    if len(orders) == 1 and (order := next(iter(orders))) is not None:
        return [name for name in order if name in set(found)]
    if all(WHOLE.fullmatch(value) for value in found):
        return sorted(found, key=lambda value: (int(value), value))
    return sorted(found)


def refuse_fractions(
    values: Values, encoding: Sequence[Any] | Mapping[Any, Any] | None, table: Table
) -> None:
    """Raise where the labels are measurements and the study does not name them as classes.

    Raises:
        DataError: A label is a number with a fraction: regression.
    """
    if values.fraction is None or encoding is not None:
        return
    row, value = values.fraction
    raise DataError(
        f"{table.locate(row)}: the label is {value}, a number with a fraction. tunescope does not do "
        "regression; it classifies texts.",
        hint="Cut the numbers into classes in a new column, or name each value as a class in data.labels.",
    )


def unknown_labels(
    split: str, column: pl.Series, encoding: Encoding, table: Table, known_from: str
) -> DataError | None:
    """Build the error for values of ``split`` that are no class, with counts; None when there are none."""
    unknown = column.is_not_null() & ~column.is_in(list(encoding.index))
    total = int(unknown.sum())
    if not total:
        return None
    counts: dict[str, list[int]] = {}
    for row in unknown.arg_true():
        counts.setdefault(column[row], []).append(row)
    shown = [
        f"{value!r} in {len(rows):,} row{'s' if len(rows) > 1 else ''} (first: {table.locate(rows[0])})"
        for value, rows in sorted(counts.items(), key=lambda item: -len(item[1]))[:SHOWN]
    ]
    more = f", and {len(counts) - SHOWN} more values" if len(counts) > SHOWN else ""
    step = "Name or merge them in data.labels, or take these rows out."
    if encoding.from_booleans:
        step += " YAML reads yes, no, on and off as true and false: put such labels between quotes."
    guess = nearest(next(iter(counts)), encoding.labels.names)
    if guess:
        step += f" {next(iter(counts))!r} is close to {guess!r}."
    return DataError(
        f"{split} has labels that {known_from} does not: {', '.join(shown)}{more}. "
        f"{total:,} of {len(column):,} rows are concerned; the labels are {listed(encoding.labels.names)}.",
        hint=step,
    )
