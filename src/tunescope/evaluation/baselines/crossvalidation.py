"""Grouped and random cross-validation side by side: what rows of the same group give away.

Random folds put rows of one group (a topic, a customer, a cluster of near-duplicates) on both sides. If a
cheap baseline does better there than with groups kept whole, it profits from knowing the group; so may any
model that is judged by a random split. No transformer has to be trained to see it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.rows import Rows
from tunescope.data.split import sample_rows
from tunescope.errors import DataError
from tunescope.evaluation.baselines.rules import (
    as_logits,
    class_shares,
    fit_lookup,
    possible_columns,
    values_of,
)
from tunescope.evaluation.baselines.words import fit_words
from tunescope.evaluation.confusion import confusion_counts, derive
from tunescope.progress import SILENT, Progress, Task
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_mean, paired_bootstrap
from tunescope.stats.tests import holm, sign_flip_p

MOST_ROWS = 2000
ALPHA = 0.05
Predict = Callable[[pl.DataFrame, np.ndarray, pl.DataFrame, "np.ndarray | None"], np.ndarray]


def cross_validate(
    rows: Rows,
    groups: str | Mapping[str, Any],
    k: int = 5,
    seed: int = 0,
    *,
    most: int = MOST_ROWS,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Cross-validate the cheap baselines with random and with grouped folds, and report the gap.

    Only labelled train rows take part. The gap is random minus grouped accuracy, row by row, with a bootstrap
    over groups; its p value flips the signs of whole groups, corrected over the baselines (Holm).

    Args:
        rows: The study's rows.
        groups: A column of the rows, or the group of each row id. A row without a group is its own.
        k: The number of folds, 2 or more.
        seed: Seeds folds, baselines and resamples.
        most: At most so many rows, each class in proportion; the record says how many.
        progress: Where to report.

    Returns:
        JSON-able: ``k``, ``rows``, ``of_rows``, ``groups``, ``grouped_by``, ``baselines`` (per baseline ``random``
        and ``grouped`` with accuracy, interval and macro F1, ``gap`` with interval, p and q, ``leak``),
        ``left_out`` and ``sentence``.

    Raises:
        DataError: The column is not there, there are fewer groups than folds, or too few rows.
    """
    frame = rows.frame.filter((pl.col("split") == "train") & pl.col("label").is_not_null())
    of_rows = frame.height
    if most < of_rows:
        labels = frame["label"].to_numpy().astype(np.int64)
        frame = frame.filter(pl.Series(sample_rows(frame["row_id"].to_list(), labels, most, seed)))
    labels = frame["label"].to_numpy().astype(np.int64)
    index, name = _group_index(frame, groups)
    count = len(np.unique(index))
    _check(k, count, labels, name)
    classes = len(rows.labels.names)
    makers, left_out = _makers(frame, groups, classes, seed)
    schemes = {"random": None, "grouped": index}
    right: dict[tuple[str, str], np.ndarray] = {}
    made: dict[str, dict[str, Any]] = {maker: {"name": maker} for maker in makers}
    with progress.task("cross-validation of baselines", k * len(makers) * 2, "fits") as task:
        for scheme, own in schemes.items():
            folds = _folds(labels, own, k, seed)
            for maker, make in makers.items():
                guesses = _out_of_fold(frame, labels, folds, make, own, task)
                right[maker, scheme] = (guesses == labels).astype(np.float64)
                made[maker][scheme] = _scores(labels, guesses, classes, index, seed)
    gaps = [_gap(right[maker, "grouped"], right[maker, "random"], index, seed) for maker in makers]
    q = holm([gap["p"] for gap in gaps])
    for one, gap, own_q in zip(made.values(), gaps, q, strict=True):
        one["gap"] = {**gap, "q": float(own_q)}
        one["leak"] = bool(own_q <= ALPHA and gap["value"] > 0)
    table = list(made.values())
    return {
        "k": k, "seed": seed, "rows": len(labels), "of_rows": of_rows, "groups": count, "grouped_by": name,
        "baselines": table, "left_out": left_out, "sentence": _sentence(table, name),
    }  # fmt: skip


def _check(k: int, groups: int, labels: np.ndarray, name: str) -> None:
    if k < 2:
        raise DataError(f"Cross-validation needs 2 folds or more; {k} were asked for.")
    if len(labels) < 2 * k or len(np.unique(labels)) < 2:
        raise DataError(
            f"Cross-validation with {k} folds needs {2 * k} labelled train rows of two classes; found {len(labels)}."
        )
    if groups < k:
        raise DataError(
            f"{k} folds cannot keep the {groups} groups of {name!r} whole.",
            hint=f"Use at most {groups} folds, or group by something finer.",
        )


def _group_index(frame: pl.DataFrame, groups: str | Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Return whole numbers that name the groups, and what they are called."""
    if isinstance(groups, str):
        if groups not in frame.columns:
            raise DataError(
                f"There is no column {groups!r} to group by; columns: {', '.join(frame.columns)}.",
            )
        values, name = frame[groups].cast(pl.String).to_list(), groups
    else:
        values, name = [groups.get(row) for row in frame["row_id"]], "the groups given"
    keys = [
        f"row {row}" if value is None else f"group {value}"
        for value, row in zip(values, frame["row_id"], strict=True)
    ]
    return np.unique(keys, return_inverse=True)[1], name


def _makers(
    frame: pl.DataFrame, groups: str | Mapping[str, Any], classes: int, seed: int
) -> tuple[dict[str, Predict], dict[str, str]]:
    columns = possible_columns(frame)

    def by_majority(train: pl.DataFrame, labels: np.ndarray, held: pl.DataFrame, own: Any) -> np.ndarray:
        return np.tile(as_logits(class_shares(labels, classes)[None]), (held.height, 1))

    def by_lookup(train: pl.DataFrame, labels: np.ndarray, held: pl.DataFrame, own: Any) -> np.ndarray:
        found = fit_lookup(train, labels, classes, columns)
        return found.logits(values_of(held, found.column))

    def by_words(train: pl.DataFrame, labels: np.ndarray, held: pl.DataFrame, own: Any) -> np.ndarray:
        model = fit_words(train["text"].to_list(), labels, classes, seed, own)
        return model.logits(held["text"].to_list())

    makers: dict[str, Predict] = {"majority": by_majority, "lookup": by_lookup, "tfidf": by_words}
    if columns:
        return makers, {}
    del makers["lookup"]
    return makers, {"lookup": "there is no column beside text and label"}


def _folds(labels: np.ndarray, groups: np.ndarray | None, k: int, seed: int) -> list[tuple[Any, Any]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = kind(n_splits=k, shuffle=True, random_state=derive_seed(seed, "folds"))
    with warnings.catch_warnings():
        # A class with fewer rows than folds is missing from some; grouped folds cannot help that either.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(folds.split(labels, labels, groups))


def _out_of_fold(
    frame: pl.DataFrame,
    labels: np.ndarray,
    folds: list[tuple[Any, Any]],
    make: Predict,
    groups: np.ndarray | None,
    task: Task,
) -> np.ndarray:
    """Predict every row by a baseline that did not see its fold."""
    guesses = np.full(len(labels), -1, dtype=np.int64)
    for train, held in folds:
        own = None if groups is None else groups[train]
        guesses[held] = make(frame[train], labels[train], frame[held], own).argmax(axis=1)
        task.advance()
    return guesses


def _scores(
    labels: np.ndarray, guesses: np.ndarray, classes: int, groups: np.ndarray, seed: int
) -> dict[str, Any]:
    right = (labels == guesses).astype(np.float64)
    values = derive(confusion_counts(labels, guesses, classes)).values
    interval = bootstrap_mean(right, groups, seed=derive_seed(seed, "folds", "interval"))
    return {"accuracy": interval.record(), "f1_macro": float(values["f1_macro"])}


def _gap(grouped: np.ndarray, random: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    interval = paired_bootstrap(grouped, random, groups, seed=derive_seed(seed, "folds", "gap"))
    p = sign_flip_p(random - grouped, groups, permutations=4999, seed=derive_seed(seed, "folds", "flip"))
    return {**interval.record(), "p": float(p)}


def _sentence(table: list[dict[str, Any]], name: str) -> str:
    leaks = [one for one in table if one["leak"]]
    if not leaks:
        return f"Keeping {name} whole in the folds changes no baseline beyond chance: no leak through it is seen."
    worst = max(leaks, key=lambda one: float(one["gap"]["value"]))
    gap = worst["gap"]
    interval = "" if gap["low"] is None else f" [{gap['low']:.3f}, {gap['high']:.3f}]"
    return (
        f"Random folds flatter {worst['name']} by {gap['value']:.3f}{interval}: accuracy is "
        f"{worst['random']['accuracy']['value']:.3f} with random folds and "
        f"{worst['grouped']['accuracy']['value']:.3f} where {name} is kept whole. A random split measures what "
        f"{name} gives away: split by it (data.group_by)."
    )
