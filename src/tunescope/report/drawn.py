"""Figures, tables and a little HTML for those who work with a run in Python."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from tunescope.errors import RunError
from tunescope.files import atomic_path
from tunescope.report.figures.style import Figure, plotly_figure
from tunescope.report.text import cell

if TYPE_CHECKING:
    import plotly.graph_objects

Theme = Literal["light", "dark"]


def drawn(figure: Figure, theme: Theme = "light") -> plotly.graph_objects.Figure:
    """Return a figure of the report as Plotly's own object, its title above it."""
    from plotly.graph_objects import Figure as PlotlyFigure

    made = PlotlyFigure(plotly_figure(figure, theme))
    made.layout.meta = {"title": figure.title, "caption": figure.caption}
    return made


WRITERS = {".csv": "write_csv", ".parquet": "write_parquet", ".jsonl": "write_ndjson"}


def write_table(table: pl.DataFrame, path: Path) -> Path:
    """Write a table by the ending of a file's name, whole or not at all; in CSV no text is taken for a formula.

    Raises:
        RunError: The ending is not known, or the place cannot be written.
    """
    if path.suffix not in WRITERS:
        raise RunError(
            f"{path.name} should end in {', '.join(WRITERS)} or .html, so that it is clear what to write.",
            hint=f"For example {path.stem or 'table'}.csv.",
        )
    if path.suffix == ".csv":
        texts = [
            pl.col(name).map_elements(cell, pl.String)
            for name, kind in table.schema.items()
            if kind == pl.String
        ]
        table = table.with_columns(texts)
    with atomic_path(path) as temporary:
        getattr(table, WRITERS[path.suffix])(temporary)
    return path


def html_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values as a table of a notebook, escaped."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table>{cells}</table>"
