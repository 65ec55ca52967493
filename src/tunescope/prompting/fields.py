"""What of a row a prompt may show, and where it stands."""

from __future__ import annotations

import polars as pl

from tunescope.data.rows import Rows
from tunescope.data.table import listed, nearest
from tunescope.errors import ConfigError, DataError
from tunescope.prompting.templates import Template

HIDDEN = ("row_id", "position", "split", "label")  # what a prompt may never show, the answer above all


def refuse_hidden(template: Template) -> None:
    """Refuse a prompt that shows the label or an id.

    Raises:
        ConfigError: It does.
    """
    shown = [field for field in template.columns if field in HIDDEN]
    if shown:
        raise ConfigError(
            f"prompt {template.text!r} shows {{{shown[0]}}}, which "
            + ("is the answer." if shown[0] == "label" else "says nothing about the text."),
            hint="Use {text} or another column of the data.",
        )


def column_of(rows: Rows, field: str, template: Template) -> list[str]:
    """Return a field's texts; the study's own name of the text column works as well as ``text``.

    Raises:
        ConfigError: The field is no column of the rows.
        DataError: It is null in a row.
    """
    columns = {name: name for name in rows.frame.columns if name not in HIDDEN}
    text = rows.provenance.get("text")
    if isinstance(text, str):
        columns.setdefault(text, "text")
    elif isinstance(text, dict):
        for name, column in text.items():
            columns.setdefault(name, columns.get(column, "text"))
    if field not in columns:
        match = nearest(field, columns)
        raise ConfigError(
            f"prompt {template.text!r}: {{{field}}} is no column of the rows; there are {listed(columns)}.",
            hint=f"Did you mean {{{match}}}?" if match else "Use {text} for the row's text.",
        )
    values = rows.frame[columns[field]].cast(pl.String)
    if values.null_count():
        first = int(values.is_null().arg_true()[0])
        raise DataError(
            f"prompt {template.text!r}: {{{field}}} is empty in {values.null_count():,} of {len(rows):,} rows, "
            f"first in row {rows.frame['row_id'][first]}.",
            hint="Fill the column, take these rows out, or use another column.",
        )
    return values.to_list()
