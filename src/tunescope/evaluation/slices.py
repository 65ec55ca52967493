"""Metrics of parts of the rows: by length, by truncation, by the values of any column."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import DataError
from tunescope.evaluation.confusion import checked_rows, confusion_counts
from tunescope.evaluation.coverage import with_trust
from tunescope.evaluation.fairness import fairness_records
from tunescope.evaluation.sweep import Key, confusion_values
from tunescope.stats.arrays import as_floats, as_integers
from tunescope.stats.intervals import Interval, percentile_interval, wilson

RESAMPLES = 1000
MISSING = "(missing)"
LEFT_OVER = "(all other values)"
NUMERIC_VALUES = 12  # a column of numbers with more values than this is cut at its quartiles
LONGEST = 512


@dataclass(frozen=True)
class SliceOptions:
    """How rows are sliced.

    Attributes:
        split: The name of the split, copied into the records.
        seed: Seeds the bootstrap.
        least: Values with fewer rows are put together, and said.
        most: At most so many values of a column are shown; the rest, the rarest, are put together.
    """

    split: str
    seed: int = 0
    least: int = 20
    most: int = 20


def slice_metrics(
    labels: Any,
    logits: Any,
    label_names: Sequence[str],
    columns: Mapping[str, Any],
    split: str,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the metrics of every slice of one split as records; see :func:`measure_slices`."""
    return measure_slices(labels, logits, label_names, columns, SliceOptions(split, seed))


def measure_slices(
    labels: Any,
    logits: Any,
    label_names: Sequence[str],
    columns: Mapping[str, Any],
    options: SliceOptions,
) -> list[dict[str, Any]]:
    """Return, for every value of every column, how good the predictions are on its rows.

    Per slice: accuracy, and per class recall and selection rate (the share of rows predicted as the class),
    with Wilson's interval; balanced accuracy and macro F1 over the classes of the slice, with a bootstrap of
    its rows. Per column: demographic parity difference and ratio and equalized odds difference, see
    :mod:`tunescope.evaluation.fairness`. Each interval stands alone: of twenty slices one is expected to miss
    its true value.

    Values with few rows are put together as "(all other values)", with a note that counts and names them. Numbers
    with many values are cut at their quartiles. No row is dropped: a missing value is a value.

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        logits: `[n, C]`, torch or numpy.
        label_names: The C names, in the order of indices.
        columns: `[n]` values by column name: text, whole numbers, booleans, numbers; see
            :func:`standard_columns` for length and truncation.
        options: Split, seed, and how few rows are too few.

    Returns:
        The records of ``classification_metrics`` with two more keys, column and group (the value; None for
        the metrics of the column as a whole).

    Raises:
        DataError: A column does not have one value per row; and see ``classification_metrics``.
        ModelError: A logit is NaN or infinite.
    """
    truth, scores, known = checked_rows(labels, logits, len(label_names))
    predictions = scores.argmax(axis=1) if len(scores) else truth
    records = []
    for number, (column, given) in enumerate(columns.items()):
        if np.shape(given) != known.shape:
            raise DataError(
                f"Column {column!r}: expected one value for each of {len(known)} rows, found {np.shape(given)}."
            )
        values, notes = grouped_values(np.asarray(given)[known], options)
        names = _ordered(values)
        counts = np.array([
            confusion_counts(truth[values == name], predictions[values == name], len(label_names))
            for name in names
        ]).reshape(-1, len(label_names), len(label_names))  # fmt: skip
        for place, name in enumerate(names):
            generator = np.random.default_rng([options.seed, number, place])
            found = _slice(counts[place], label_names, generator, notes.get(name))
            records += [{"column": column, "group": name, **record} for record in found]
        whole = fairness_records(counts, names, label_names, options.seed)
        records += [{"column": column, "group": None, **record} for record in whole]
    return [{"split": options.split, **record} for record in records]


def _slice(
    counts: np.ndarray, label_names: Sequence[str], generator: np.random.Generator, note: str | None
) -> list[dict[str, Any]]:
    """Return the records of one slice from its confusion matrix."""
    rows, correct = int(counts.sum()), np.diagonal(counts).tolist()
    support, predicted = counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist()
    found: list[tuple[str, int | None, Interval, float]] = [
        ("accuracy", None, wilson(sum(correct), rows), rows)
    ]
    draws = generator.multinomial(rows, counts.ravel() / rows, size=RESAMPLES).reshape(-1, *counts.shape)
    seen, drawn = confusion_values(counts[None]), confusion_values(draws)
    rarest = min(size for size in support if size)
    for metric in ("balanced_accuracy", "f1_macro"):
        key: Key = (metric, None)
        method = f"bootstrap of rows, {RESAMPLES} resamples"
        found.append(
            (metric, None, percentile_interval(float(seen[key][0]), drawn[key], rows, method), rarest)
        )
    for c, label in enumerate(label_names):
        recall = wilson(correct[c], support[c])
        if not support[c]:
            why = f"undefined: no row of this slice has the label {label!r}"
            recall = Interval(None, None, None, 0, "wilson", why)
        found.append(("recall", c, recall, support[c]))
        found.append(("selection_rate", c, wilson(predicted[c], rows), rows))
    records = []
    for metric, place, interval, informative in found:
        record = with_trust(interval, metric, informative).record()
        record["note"] = "; ".join(each for each in (record["note"], note) if each) or None
        records.append({"metric": metric, "class": None if place is None else label_names[place], **record})
    return records


def standard_columns(lengths: Any, truncated: Any) -> dict[str, np.ndarray]:
    """Return the two columns that every study is sliced by: ``tokens`` (length bins) and ``truncated``.

    Args:
        lengths: `[n]` tokens per row before truncation.
        truncated: `[n]` true where a row lost tokens.
    """
    cut = np.asarray(truncated, dtype=bool)
    return {"tokens": length_bins(lengths), "truncated": np.where(cut, "yes", "no")}


def length_bins(lengths: Any, edges: Sequence[int] | None = None) -> np.ndarray:
    """Return the name of the length bin of every row; the last bin has no upper end.

    No row is too long to be counted: what is longer than every edge is in the last bin.

    Args:
        lengths: `[n]` tokens per row, before truncation.
        edges: Longest length of each bin but the last, ascending. By default doubling, from the power of two
            at the 10th percentile to the one below the 95th, at most 512.

    Raises:
        ValueError: Edges do not ascend, or a length is negative.
    """
    sizes = as_integers(lengths)
    if not len(sizes):
        return np.zeros(0, dtype=object)
    if sizes.min() < 0:
        raise ValueError(f"expected lengths of at least 0, found {sizes.min()}")
    if edges is None:
        first, last = np.quantile(sizes, [0.1, 0.95])
        power = max(3, int(np.ceil(np.log2(max(first, 1)))))
        edges = [2**p for p in range(power, 10) if 2**p <= max(min(last, LONGEST), 2**power)]
    ends = list(edges)
    if any(a >= b for a, b in itertools.pairwise(ends)):
        raise ValueError(f"expected edges that ascend, found {ends}")
    starts = [0, *(end + 1 for end in ends)]
    names = [f"{start}-{end}" for start, end in zip(starts, ends, strict=False)] + [f"{starts[-1]}+"]
    return np.array(names, dtype=object)[np.searchsorted(ends, sizes, side="left")]


def grouped_values(values: np.ndarray, options: SliceOptions) -> tuple[np.ndarray, dict[str, str]]:
    """Return the name of the slice of every row, `[n]`, and notes by slice.

    Args:
        values: `[n]` values of one column, of any type.
        options: How few rows are too few, and how many values too many.
    """
    notes: dict[str, str] = {}
    texts = _as_texts(values, notes)
    names, sizes = np.unique(texts.astype(str), return_counts=True)
    ranked = sorted(zip(sizes.tolist(), names.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
    kept = {name for size, name in ranked[: options.most] if size >= options.least}
    rest = [name for _, name in ranked if name not in kept]
    if len(rest) > 1:
        shown = ", ".join(map(repr, rest[:5])) + (", ..." if len(rest) > 5 else "")
        notes[LEFT_OVER] = f"{len(rest)} values with few rows each, put together: {shown}"
        texts = np.array([text if text in kept else LEFT_OVER for text in texts], dtype=object)
    elif rest:
        notes[rest[0]] = f"few rows: fewer than {options.least}"
    return texts, notes


def _as_texts(values: np.ndarray, notes: dict[str, str]) -> np.ndarray:
    """Return values as texts; numbers with many values as quartiles; nothing is dropped."""
    if np.issubdtype(values.dtype, np.number) and len(np.unique(values)) > NUMERIC_VALUES:
        numbers = as_floats(values).astype(np.float64)
        known = np.isfinite(numbers)
        cuts = np.unique(np.quantile(numbers[known], [0.25, 0.5, 0.75]))
        ends = [f"{cut:.4g}" for cut in cuts]
        names = [f"up to {ends[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(ends))]
        names.append(f"above {ends[-1]}")
        for name in names:
            notes[name] = "a quarter of the rows' numbers"
        texts = np.array(names, dtype=object)[np.searchsorted(cuts, numbers, side="left")]
        texts[~known] = MISSING
        return texts
    return np.array([MISSING if _is_missing(value) else str(value) for value in values], dtype=object)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _ordered(values: np.ndarray) -> list[str]:
    """Return the slices' names: length bins by length, others by name, what is left over last."""

    def key(name: str) -> tuple[bool, int, str]:
        start = name.split("-")[0].rstrip("+")
        return name in (LEFT_OVER, MISSING), int(start) if start.isdigit() else -1, name

    return sorted(set(values.tolist()), key=key)
