"""Repeats, groups, splits and samples of a study's rows, as its ``data`` section asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tunescope.data.labels import Encoding
from tunescope.data.pieces import DUPLICATES, UNSPLIT, Account
from tunescope.data.repeats import SAME, deduplicated
from tunescope.data.rows import SPLITS
from tunescope.data.split import group_keys, make_folds, make_splits, proportional, sample_rows
from tunescope.data.table import listed
from tunescope.errors import DataError
from tunescope.progress import Progress

if TYPE_CHECKING:
    from tunescope.config import DataConfig


def deduplicate_train(
    frame: pl.DataFrame, data: DataConfig, account: Account, progress: Progress
) -> pl.DataFrame:
    """Leave repeats out of train where the study says so."""
    if data.deduplicate is None:
        return frame
    pool = frame["split"].is_in(["train", UNSPLIT]).to_numpy()
    kept, account.deduplicated = deduplicated(frame, data.deduplicate, pool, progress)
    found = account.deduplicated
    account.notes.append(
        f"Left out as repeats ({SAME[data.deduplicate]}): {found['repeats_in_train']:,} rows that repeat "
        f"another, and {found['also_in_validation_or_test']:,} whose text validation or test has. "
        f"{found['clusters_with_several_labels']:,} repeated texts had several labels; a row of the most "
        "frequent one stayed."
    )
    lost = set(frame["label"].filter(pl.Series(pool))) - set(kept["label"])
    if lost:
        raise DataError(
            f"data.deduplicate: {data.deduplicate} leaves no row of {len(lost)} of the labels.",
            hint="Use a stricter sameness (exact), or set data.deduplicate to null.",
        )
    return kept


def split_rows(
    frame: pl.DataFrame, data: DataConfig, seed: int
) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    """Make the splits that are asked for and not given, out of train."""
    there = set(frame["split"].unique())
    wanted = {"test": data.test, "validation": data.validation}
    held_out = _held_out(data, there)
    fractions = {
        name: share for name, share in wanted.items() if share > 0 and name not in {*there, held_out}
    }
    pool = frame["split"].is_in(["train", UNSPLIT]).to_numpy()
    splits = np.where(pool, "train", frame["split"].to_numpy()).astype(object)
    made: dict[str, Any] | None = None
    if (fractions or held_out) and pool.any():
        part = frame.filter(pl.Series(pool))
        keys = np.asarray(
            part["row_id"].to_list()
            if data.repeats_cross_splits
            else group_keys(part["_hash"], part["_group"] if data.group_by else None)
        )
        labels = part["label"].to_numpy()
        parted = np.full(len(keys), "train", dtype=object)
        if held_out:
            fold = make_folds(keys.tolist(), labels, int(data.folds or 0), seed, data.stratify)
            parted[fold == data.fold] = held_out
        rest = parted == "train"
        if fractions:  # shares are of all rows, whatever the fold took
            shares = {name: share * len(rest) / rest.sum() for name, share in fractions.items()}
            parted[rest] = make_splits(keys[rest].tolist(), labels[rest], shares, seed, data.stratify)
        splits[pool] = parted
        _check_train(labels, parted)
        made = {
            "from": "train" if "train" in there else "all rows",
            "shares": fractions,
            "how": _how(data),
            "seed": seed,
            "groups": len(set(keys)),
        }
        if held_out:
            made |= {"folds": data.folds, "fold": data.fold, "held_out": held_out}
    return frame.with_columns(pl.Series("split", splits.tolist(), pl.String)), made


def _held_out(data: DataConfig, there: set[str]) -> str | None:
    """Name the split that the fold becomes.

    Raises:
        DataError: Folds are asked for, and both validation and test are given.
    """
    if data.folds is None:
        return None
    for name in ("test", "validation"):
        if name not in there:
            return name
    raise DataError(
        f"data.folds is {data.folds}, but validation and test are both given: no split is left to be a fold.",
        hint="Set data.folds to null, or give data.path without one of them.",
    )


def _check_train(labels: np.ndarray, parted: np.ndarray) -> None:
    missing = set(np.unique(labels)) - set(np.unique(labels[parted == "train"]))
    if missing:
        raise DataError(
            f"Class {min(missing)} would have no row in train: the fold and the splits hold all its rows.",
            hint="Choose another data.fold or data.seed, group by something finer, or set data.stratify to true.",
        )


def _how(data: DataConfig) -> str:
    together = {None: "", DUPLICATES: " and near duplicates"}.get(
        data.group_by, f" and equal {data.group_by!r}"
    )
    how = "stratified by label; " if data.stratify else "not stratified; "
    if data.repeats_cross_splits:
        return f"{how}row by row, so that repeated texts stand on both sides, as published; by hash of seed and row"
    return f"{how}equal texts{together} stay together; by hash of seed and text"


def sample_splits(
    frame: pl.DataFrame, rows: int | Mapping[Any, int] | None, seed: int, encoding: Encoding
) -> pl.DataFrame:
    """Keep the rows asked for, by hash of seed and row id."""
    if rows is None:
        return frame
    there = [split for split in SPLITS if (frame["split"] == split).any()]
    if isinstance(rows, Mapping):
        odd = [split for split in rows if split not in there]
        if odd:
            raise DataError(
                f"data.rows names {listed(odd)}, but the splits are {listed(there)}.",
                hint="Correct data.rows.",
            )
        wanted: dict[str, int] = dict(rows)
    else:
        sizes = np.array([(frame["split"] == split).sum() for split in there])
        wanted = dict(zip(there, proportional(sizes, rows, floor=1).tolist(), strict=True))
    keep = np.ones(frame.height, dtype=bool)
    labels = frame["label"].fill_null(-1).to_numpy()
    for split, n in wanted.items():
        inside = np.flatnonzero((frame["split"] == split).to_numpy())
        keep[inside] = sample_rows(frame["row_id"].gather(inside).to_list(), labels[inside], n, seed)
    sampled = frame.filter(pl.Series(keep))
    lost = set(frame.filter(pl.col("split") == "train")["label"]) - set(
        sampled.filter(pl.col("split") == "train")["label"]
    )
    if lost:
        names = listed(encoding.labels.names[i] for i in sorted(lost))
        raise DataError(
            f"data.rows: {rows} leaves no train row of {names}.",
            hint=f"Keep at least {len(encoding.labels)} rows of train, better many more.",
        )
    return sampled
