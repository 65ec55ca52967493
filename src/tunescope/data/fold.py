"""Folds of rows for cross-validation: random or grouped, stratified, order-free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tunescope.data.pieces import DUPLICATES
from tunescope.data.repeats import cluster_groups
from tunescope.data.rows import Rows, text_hash
from tunescope.data.split import group_keys, make_folds
from tunescope.data.table import listed, nearest
from tunescope.errors import DataError

TEXTS = "texts"


def folds(
    rows: Rows,
    k: int,
    groups: str | Sequence[str | None] | None = None,
    seed: int = 0,
    stratify: bool = True,
) -> np.ndarray:
    """Part rows into folds for cross-validation.

    Args:
        rows: The rows to part, whatever their splits.
        k: The number of folds, from 2.
        groups: What never crosses folds. None: nothing, every row is placed by itself, as in the usual
            random cross-validation (equal texts do cross: compare with a grouped one to see a leak).
            ``"texts"``: equal texts. ``"duplicates"``: equal and near-duplicate texts. The name of a column:
            equal texts and rows with the same value, in chains too; rows without a value are free. Or a value
            for every row [N], taken like a column's. The two words win over columns of the same name.
        seed: Another seed gives other folds.
        stratify: Keep every class's share in every fold.

    Returns:
        The fold of each row, int64 [N], 0 to ``k - 1``; it does not depend on the order of the rows.

    Raises:
        DataError: ``k`` is below 2, the column is missing, or there are fewer groups than folds.
    """
    frame = rows.frame
    if groups is None:
        keys = frame["row_id"].to_list()
    else:
        hashes = pl.Series("_hash", [text_hash(text) for text in frame["text"]], dtype=pl.String)
        keys = group_keys(hashes, _values(frame.with_columns(hashes), groups))
    return make_folds(keys, rows.label_array, k, seed, stratify)


def _values(frame: pl.DataFrame, groups: str | Sequence[str | None]) -> pl.Series | None:
    if not isinstance(groups, str):
        values = pl.Series("group", groups, dtype=pl.String)
        if len(values) != frame.height:
            raise DataError(
                f"Expected a group for each of {frame.height:,} rows; came {len(values):,}.",
                hint="Give one value a row, None where a row is in no group.",
            )
        return values
    if groups == TEXTS:
        return None
    if groups == DUPLICATES:
        return cluster_groups(frame)
    if groups not in frame.columns:
        match = nearest(groups, frame.columns)
        raise DataError(
            f"Rows have no column {groups!r} to group by; there are {listed(frame.columns)}.",
            hint=f"Did you mean {match!r}?" if match else "Name one of these, 'texts' or 'duplicates'.",
        )
    return frame[groups].cast(pl.String)
