"""Making the one text of a row from one column, or from several by a template."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from tunescope.data.table import Table, listed, nearest
from tunescope.errors import DataError


@dataclass(frozen=True)
class TextRule:
    """Which columns make the text, and how.

    Attributes:
        fields: Field name to column.
        template: With ``{field}`` for each; ``{{`` and ``}}`` are braces.
        plain: One column, taken as it is.
    """

    fields: dict[str, str]
    template: str
    plain: bool

    @classmethod
    def of(cls, text: str | Mapping[str, str], template: str | None) -> TextRule:
        """Make the rule of a study's ``data.text`` and ``data.template``.

        Without a template, several fields stand on a line each, in the order given.

        Raises:
            DataError: The template names a field that does not exist, or does more than name fields.
        """
        fields = {"text": text} if isinstance(text, str) else dict(text)
        if not fields:
            raise DataError(
                "data.text names no column.", hint="Set data.text to the column that holds the text."
            )
        wanted = "\n".join(f"{{{name}}}" for name in fields) if template is None else template
        rule = cls(fields, wanted, plain=isinstance(text, str) and wanted == "{text}")
        rule._pieces()
        return rule

    @property
    def columns(self) -> list[str]:
        """The columns of the source that the text is made of."""
        return list(dict.fromkeys(self.fields.values()))

    def _pieces(self) -> list[tuple[str, str | None]]:
        """Cut the template into (literal, field) pairs."""
        try:
            parsed = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise DataError(
                f"data.template {self.template!r}: {error}.", hint="Write {{ and }} for braces that are text."
            ) from error
        for _, name, specification, conversion in parsed:
            if name is not None and (name not in self.fields or specification or conversion):
                match = nearest(name, self.fields)
                raise DataError(
                    f"data.template {self.template!r}: {{{name}}} is not one of the fields "
                    f"{listed(self.fields)}.",
                    hint=f"Did you mean {{{match}}}?"
                    if match
                    else "Write {field}, nothing more, for each field.",
                )
        if not any(name for _, name, _, _ in parsed):
            raise DataError(
                f"data.template {self.template!r} names no field, so all texts would be equal.",
                hint=f"Write the fields {listed(self.fields)} in braces.",
            )
        return [(literal, name) for literal, name, _, _ in parsed]

    def render(self, frame: pl.DataFrame) -> pl.Series:
        """Return the texts; null where a field that the template uses is null."""
        pieces: list[pl.Expr] = []
        for literal, name in self._pieces():
            if literal:
                pieces.append(pl.lit(literal))
            if name is not None:
                pieces.append(pl.col(self.fields[name]).cast(pl.String))
        return frame.select(pl.concat_str(pieces, ignore_nulls=False).alias("text"))["text"]

    def check(self, table: Table) -> None:
        """Refuse a table whose text columns are not text.

        Raises:
            DataError: A column holds numbers, lists or mixed types (with the first row that is not text).
        """
        for column in self.columns:
            if column in table.mixed:
                row, cell = table.mixed[column]
                raise DataError(
                    f"{table.locate(row)}: column {column!r} should hold text, and holds {cell[:80]} there.",
                    hint="Put the value between quotes if it is text, or take the row out.",
                )
            dtype = table.frame.schema[column]
            if dtype == pl.Null or isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
                continue
            held = table.frame[column].is_not_null().arg_true()
            row = int(held[0]) if len(held) else 0
            step = (
                f"Set data.text to the column that holds the text; there are {listed(table.frame.columns)}."
            )
            if isinstance(dtype, pl.List | pl.Array):
                step = (
                    "Join a row's tokens into one text; labels per token (token classification) are not done."
                )
            cell = table.frame[column].slice(row, 1).to_list()[0]
            raise DataError(
                f"{table.locate(row)}: column {column!r} should hold text, and holds {cell} ({dtype}).",
                hint=step,
            )
