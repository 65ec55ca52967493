"""A run's tables: CSV for programs, LaTeX for papers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl

from tunescope.export.words import latex, slug
from tunescope.report.read import SPLITS, RunFolder
from tunescope.report.text import cell, finite, interval, number, probability

MOST_LATEX_ROWS = 200
SHOWN = ("accuracy", "balanced_accuracy", "f1_macro", "matthews_corrcoef", "log_loss")


def files(run: RunFolder) -> Iterator[tuple[str, str, str]]:
    """Yield every table as (file name, content, what it is): results as CSV, summaries as CSV and LaTeX."""
    for name, make, what in SUMMARIES:
        table = make(run)
        if table is not None and table.height:
            yield f"tables/{name}.csv", to_csv(table), what
            yield f"tables/{name}.tex", to_latex(table, f"{what} ({run.name})", f"tab:{name}"), what
    for lens, result in run.results.items():
        what = f"every number of {lens}"
        yield f"tables/results/{slug(lens)}.csv", to_csv(without_empty(result.table)), what


def count(run: RunFolder) -> int:
    """Return about how many files :func:`files` yields."""
    return 2 * len(SUMMARIES) + len(run.results)


def without_empty(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without the columns that hold nothing."""
    return table.select([name for name in table.columns if table[name].null_count() < table.height])


def to_csv(table: pl.DataFrame) -> str:
    """Return a table as CSV (UTF-8, RFC 4180); no cell of text is taken for a formula.

    Text that begins with a sign of a formula gets an apostrophe in front, as spreadsheets write it themselves.
    Numbers are written whole, lists with ``; `` between their parts.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([cell(name) for name in table.columns])
    for row in table.iter_rows():
        writer.writerow([_plain(value) for value in row])
    return buffer.getvalue()


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return cell("; ".join(_plain(item) for item in value))
    return cell(str(value))


def to_latex(table: pl.DataFrame, caption: str, label: str) -> str:
    r"""Return a table for LaTeX with ``booktabs``: text escaped, ``value``, ``low`` and ``high`` as one column.

    At most 200 rows are set; a comment says how many there are. Names are set as text, so that nothing in a label or
    an arm's name is obeyed. Needs ``\usepackage{booktabs}``; letters outside Latin script need LuaLaTeX or XeLaTeX.
    """
    shown = _with_intervals(table)
    numeric = [column in _NUMERIC or shown[column].dtype.is_numeric() for column in shown.columns]
    lines = [
        "% Needs \\usepackage{booktabs}.",
        *(
            [f"% The first {MOST_LATEX_ROWS} of {shown.height} rows."]
            if shown.height > MOST_LATEX_ROWS
            else []
        ),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex(caption)}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{{''.join(map(_column, shown.columns, numeric, map(shown.__getitem__, shown.columns)))}}}",
        "\\toprule",
        " & ".join(latex(name.replace("_", " ")) for name in shown.columns) + r" \\",
        "\\midrule",
    ]
    for row in shown.head(MOST_LATEX_ROWS).iter_rows():
        cells = [_set(name, value) for name, value in zip(shown.columns, row, strict=True)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _column(name: str, numeric: bool, cells: pl.Series) -> str:
    """Return how LaTeX sets a column: numbers right, short text left, long text in lines."""
    if numeric:
        return "r"
    longest = max((len(str(value)) for value in cells.head(MOST_LATEX_ROWS) if value is not None), default=0)
    return r"p{0.3\linewidth}" if longest > LONG else "l"


LONG = 40  # letters: text that is longer is set in lines
_NUMERIC = {"value [low, high]", "p", "q", "n", "rows"}


def _with_intervals(table: pl.DataFrame) -> pl.DataFrame:
    """Join ``value``, ``low`` and ``high`` into one column of text, in the place of the value."""
    if not {"value", "low", "high"} <= set(table.columns):
        return table
    joined = [interval(*row) for row in table.select("value", "low", "high").iter_rows()]
    columns = [
        pl.Series("value [low, high]", joined) if name == "value" else table[name]
        for name in table.columns
        if name not in ("low", "high")
    ]
    return pl.DataFrame(columns)


def _set(name: str, value: Any) -> str:
    if value is None:
        return "--"
    if name in ("p", "q"):
        return latex(probability(value)).replace(r"\textless{}", "$<$")
    if name in ("seed", "layer", "head"):
        return latex(value)
    return latex(number(value) if isinstance(value, (int, float)) else value)


def metrics(run: RunFolder) -> pl.DataFrame | None:
    """Return the metrics of every arm, seed and baseline on the headline split, over all classes."""
    found = [
        _record(item.arm, item.seed, record)
        for item in run.arms
        for record in (item.metrics or {}).get("records", [])
        if record.get("split") == run.split and record.get("class") is None
    ]
    found += [
        _record(one.name, None, record)
        for one in run.baselines
        for record in one.metrics.get("records", [])
        if record.get("split") == run.split and record.get("class") is None
    ]
    order = {name: place for place, name in enumerate(SHOWN)}
    found.sort(key=lambda one: order.get(one["metric"], len(order)))
    return _frame(found, ("arm", "seed", "split", "metric", "value", "low", "high", "n", "method"))


def _record(arm: str, seed: int | None, record: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: finite(record.get(key)) for key in ("value", "low", "high")}
    return {
        "arm": arm,
        "seed": seed,
        **{key: record.get(key) for key in ("split", "metric", "n", "method")},
        **numbers,
    }


def classes(run: RunFolder) -> pl.DataFrame | None:
    """Return how many rows of every class each split holds."""
    counts = (run.summary or {}).get("counts") or {}
    order = [split for split in reversed(SPLITS) if split in counts]
    order += [split for split in counts if split not in order]
    found = [
        {"split": split, "class": str(label), "rows": rows}
        for split in order
        for label, rows in counts[split].items()
    ]
    return _frame(found, ("split", "class", "rows"))


def comparison(run: RunFolder) -> pl.DataFrame | None:
    """Return the differences between arms, and between arms and baselines, on the same rows."""
    made = run.comparison or {}
    pairs = (
        [*(made.get("pairs") or []), *(made.get("against_baselines") or [])] if made.get("done", True) else []
    )
    keys = ("first", "second", "metric", "value", "low", "high", "n", "p", "q", "verdict", "scope")
    return _frame([{key: pair.get(key) for key in keys} for pair in pairs], keys)


def findings(run: RunFolder) -> pl.DataFrame | None:
    """Return what the lenses found, one sentence a row, with number, interval, test and control."""
    keys = ("lens", "arm", "sentence", "metric", "value", "low", "high", "n", "verdict", "control", "test")
    return _frame([{key: _said(one.get(key)) for key in keys} for one in run.findings or []], keys)


def _said(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _frame(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pl.DataFrame | None:
    if not records:
        return None
    kept = [{key: record.get(key) for key in columns} for record in records]
    return without_empty(pl.DataFrame(kept, infer_schema_length=None, strict=False))


# Name of the file, what makes it, and what it is.
SUMMARIES: tuple[tuple[str, Callable[[RunFolder], pl.DataFrame | None], str], ...] = (
    ("metrics", metrics, "Metrics with 95 % intervals"),
    ("comparison", comparison, "Differences on the same rows, with 95 % intervals"),
    ("findings", findings, "Findings with 95 % intervals"),
    ("classes", classes, "Rows of every class"),
)
