"""Every other column against the label: does it determine it, or go with it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.audit.lookup import LookupTable
from tunescope.data.rows import RESERVED

MOST_NUMBERS = 50  # a numeric column of more values is cut into quantiles
BINS = 20
MOST_CELLS = 4_000_000  # of a table of values and classes
EXPECTED = 5.0  # Cochran's rule: chi-square wants expected counts of 5 or more in 80 % of the cells


@dataclass(frozen=True)
class Labelled:
    """Labelled rows of train and of test, as the audit of a column sees them.

    Attributes:
        train: Rows that the tables are made of.
        test: Rows that they are tried on; may be empty.
        names: The classes.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    names: tuple[str, ...]


def audit_columns(rows: Labelled, exclude: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Test every column that is not text, label or split against the label.

    Numeric columns of more than 50 values are cut into at most 20 quantiles of train. An empty or missing
    cell counts as a value of its own. A column is not tested (``untested`` says why) if it is constant, if no
    value stands twice (an id: nothing can be learned about values that never come back), or if its cells are
    lists or the like.

    Returns:
        A record a column with ``column, type, values, missing`` and either ``untested``, or: ``distinct``
        (values with the empty one, or after cutting), ``classes``, ``pure_values``, ``seen_once``;
        ``leave_one_out`` and ``test`` of a look-up table (``right, rows, accuracy``; test also ``unseen``);
        ``majority`` (the share of the most frequent class of train); ``closed`` (the share of the majority's
        errors that the look-up, leaving one out, does not make); ``chi_square, degrees, p, q``
        (Benjamini-Hochberg over the columns tested), ``cramers_v``, ``cramers_v_corrected`` (Bergsma 2013),
        ``low_expected`` (the share of cells with an expected count below 5) and ``trusted`` (at most a fifth
        of the cells are such). Sorted by ``closed``, untested ones last.
    """
    records = []
    for column in rows.train.columns:
        if column not in RESERVED and column not in exclude and not column.startswith("_"):
            records.append(_audit_column(rows, column))
    tested = [record for record in records if "untested" not in record]
    _correct(tested)
    tested.sort(key=lambda record: (-record["closed"], record["column"]))
    return tested + [record for record in records if "untested" in record]


def _audit_column(rows: Labelled, column: str) -> dict[str, Any]:
    train = rows.train[column]
    record: dict[str, Any] = {"column": column, "type": str(train.dtype)}
    if train.dtype.is_nested() or train.dtype in (pl.Binary, pl.Object):
        return record | {"untested": f"its cells are {train.dtype}"}
    values = train.cast(pl.String)
    missing = (values.is_null() | (values.str.strip_chars() == "")).fill_null(True)
    record |= {"values": values.filter(~missing).n_unique(), "missing": int(missing.sum())}
    number = _numbers(train)
    others = _cells(rows.test, column, None)
    if number is not None and number.drop_nulls().n_unique() > MOST_NUMBERS and _measures(number):
        cuts = _cuts(number)
        record["quantiles"] = len(cuts) + 1
        values = _binned(number, cuts)
        others = _cells(rows.test, column, cuts)
    if values.n_unique() < 2:
        return record | {"untested": "it has one value"}
    if values.n_unique() == len(values):
        return record | {"untested": "no value stands twice, as in an id: nothing can be learned from it"}
    return record | _against_label(values, rows.train["label"], others, rows.test["label"], len(rows.names))


def _numbers(column: pl.Series) -> pl.Series | None:
    """Return a column as numbers where every filled cell is one."""
    if column.dtype == pl.Boolean:
        return None
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_nan(None)
    if column.dtype != pl.String:
        return None
    filled = column.set(column.str.strip_chars() == "", None)
    number = filled.cast(pl.Float64, strict=False)
    return (
        number if number.null_count() == filled.null_count() and number.null_count() < len(number) else None
    )


def _measures(number: pl.Series) -> bool:
    """Tell measurements from ids: whole numbers that never repeat are ids."""
    filled = number.drop_nulls()
    return filled.n_unique() < len(filled) or bool((filled != filled.round(0)).any())


def _cuts(number: pl.Series) -> np.ndarray:
    filled = number.drop_nulls().to_numpy()
    return np.unique(np.quantile(filled, np.linspace(0, 1, BINS + 1)[1:-1]))


def _binned(number: pl.Series, cuts: np.ndarray) -> pl.Series:
    places = np.searchsorted(cuts, number.fill_null(0.0).to_numpy(), side="left")
    return pl.Series(places).cast(pl.String).set(number.is_null(), None)


def _cells(frame: pl.DataFrame, column: str, cuts: np.ndarray | None) -> pl.Series | None:
    """Return a column of test as the table of train knows it, or None where test lacks it."""
    if column not in frame.columns or frame.height == 0:
        return None
    cells = frame[column]
    if cells.null_count() == len(cells):
        return None
    if cuts is None:
        return cells.cast(pl.String)
    number = _numbers(cells)
    return None if number is None else _binned(number, cuts)


def _against_label(
    values: pl.Series, labels: pl.Series, others: pl.Series | None, other_labels: pl.Series, classes: int
) -> dict[str, Any]:
    key = pl.col("value").fill_null("")
    frame = values.alias("value").to_frame().with_columns(key)
    unique = frame["value"].unique().sort()  # so that sums come in one order, whatever the order of the rows
    index = pl.DataFrame({"value": unique, "code": np.arange(len(unique))})
    codes = frame.join(index, on="value", how="left", maintain_order="left")["code"].to_numpy()
    if len(unique) * classes > MOST_CELLS:
        return {"untested": f"it has {len(unique):,} values, too many for a table with {classes} classes"}
    table = LookupTable.of(codes, labels.to_numpy(), len(unique), classes)
    n = len(values)
    right = table.leave_one_out()
    majority = int(table.counts.sum(axis=0).max())
    record: dict[str, Any] = {
        "distinct": len(unique),
        "classes": int((table.counts.sum(axis=0) > 0).sum()),
        "pure_values": int(table.pure.sum()),
        "seen_once": int((table.sizes == 1).sum()),
        "leave_one_out": {"right": right, "rows": n, "accuracy": right / n},
        "majority": {"right": majority, "rows": n, "accuracy": majority / n},
        "closed": (right - majority) / (n - majority) if n > majority else 0.0,
        **chi_square(table.counts),
    }
    if others is not None:
        known = others.alias("value").to_frame().with_columns(key).join(
            index, on="value", how="left", maintain_order="left"
        )["code"].fill_null(-1).to_numpy()  # fmt: skip
        hits = int((table.predict(known) == other_labels.to_numpy()).sum())
        record["test"] = {
            "right": hits, "rows": len(known), "accuracy": hits / len(known), "unseen": int((known < 0).sum()),
        }  # fmt: skip
    return record


def chi_square(counts: np.ndarray) -> dict[str, Any]:
    """Test a table of counts for independence (Pearson's chi-square), with Cramér's V.

    ``V = sqrt(chi2 / (n * min(R - 1, C - 1)))``, 0 for none to 1 for a function; the corrected one takes out
    what V is by chance (Bergsma 2013).

    Args:
        counts: Rows per value and class [R, C]; empty rows and columns are left out.

    Returns:
        ``chi_square, degrees, p, cramers_v, cramers_v_corrected, low_expected, trusted``; all undefined (None)
        where one class or one value alone is there.
    """
    from scipy.stats import chi2_contingency

    table = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    rows, columns = table.shape
    if rows < 2 or columns < 2:
        return dict.fromkeys(
            ("chi_square", "degrees", "p", "cramers_v", "cramers_v_corrected", "low_expected", "trusted")
        )
    test = chi2_contingency(table, correction=False)
    n = table.sum()
    phi = test.statistic / n
    fair = max(phi - (rows - 1) * (columns - 1) / (n - 1), 0.0)
    least = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    low = float((test.expected_freq < EXPECTED).mean())
    return {
        "chi_square": float(test.statistic),
        "degrees": int(test.dof),
        "p": float(test.pvalue),
        "cramers_v": float(np.sqrt(phi / min(rows - 1, columns - 1))),
        "cramers_v_corrected": float(np.sqrt(fair / least)) if least > 0 else 0.0,
        "low_expected": low,
        "trusted": low <= 0.2,
    }


def _correct(records: list[dict[str, Any]]) -> None:
    """Write Benjamini-Hochberg's q beside every p."""
    from scipy.stats import false_discovery_control

    with_p = [record for record in records if record["p"] is not None]
    for record in records:
        record["q"] = None
    if with_p:
        for record, q in zip(with_p, false_discovery_control([r["p"] for r in with_p]), strict=True):
            record["q"] = float(q)
