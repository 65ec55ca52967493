"""Differences of predictions between groups of rows, in fairlearn's sense, with intervals and a control.

They compare the largest with the smallest rate over groups, and so are never negative: where groups do not
differ at all they still are above 0, the more so the fewer rows a group has. What chance alone gives is therefore
said with each, from rows whose group is shuffled, with its p value. For the same reason resampled differences lie
too high, and their percentiles may leave out the estimate. The intervals are therefore simultaneous ones: the
estimate plus and minus the 95th percentile of how far a resample moves the difference of *any* two groups. No
largest difference can be further from its true value than that of some pair, so they cover at least as often as
they say (Tukey's range, bootstrapped).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunescope.errors import DataError
from tunescope.evaluation.confusion import confusion_counts, require_classes
from tunescope.stats.arrays import as_integers
from tunescope.stats.intervals import FEW, Interval

RESAMPLES = 1000
DIFFERENCES = ("demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference")


def fairness_metrics(
    labels: Any, predictions: Any, groups: Any, label_names: Sequence[str], seed: int = 0
) -> list[dict[str, Any]]:
    """Return demographic parity difference and ratio and equalized odds difference of every class.

    A class is the favourable outcome in its turn, all others together the other one; with two classes both
    give the same differences. With `s_g` the share of group g that is predicted as the class (its selection rate):
    difference `max_g s_g - min_g s_g` and ratio `min_g s_g / max_g s_g`; equalized odds difference is the
    larger of the differences of true positive rates and of false positive rates (Hardt et al. 2016; Agarwal
    et al. 2018; fairlearn).

    Args:
        labels: `[n]` class indices; -1 marks an unlabelled row, which is left out.
        predictions: `[n]` class indices.
        groups: `[n]` values of the column that rows are compared by.
        label_names: The C names, in the order of indices.
        seed: Seeds the bootstrap and the shuffles.

    Returns:
        Mappings of metric, class, value, low, high, n, method, note, and p: how often shuffled groups differ
        as much.

    Raises:
        DataError: An index outside 0 to C - 1, or counts that do not fit.
    """
    truth, guesses, values = as_integers(labels), as_integers(predictions), np.asarray(groups)
    if not truth.shape == guesses.shape == values.shape or truth.ndim != 1:
        raise DataError(
            f"Expected one prediction and one group per label, found {truth.shape}, {guesses.shape} and "
            f"{values.shape}."
        )
    known = truth >= 0
    truth, guesses, values = truth[known], guesses[known], values[known].astype(str)
    for name, given in (("label", truth), ("prediction", guesses)):
        require_classes(given, len(label_names), name)
    names = np.unique(values).tolist()
    counts = np.array([
        confusion_counts(truth[values == name], guesses[values == name], len(label_names)) for name in names
    ]).reshape(-1, len(label_names), len(label_names))  # fmt: skip
    return fairness_records(counts, names, label_names, seed)


def fairness_records(
    counts: np.ndarray, names: Sequence[str], label_names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Return the records of :func:`fairness_metrics` from confusion matrices by group, `[G, C, C]`."""
    rows = int(counts.sum())
    method = f"stratified bootstrap (rows within their group), {RESAMPLES} resamples, all pairs of groups"
    if len(names) < 2:
        why = "undefined: the rows are all of one group" if rows else "undefined: no rows"
        blank = {**Interval(None, None, None, rows, method, why).record(), "p": None}
        return [
            {"metric": metric, "class": label, **blank} for metric in DIFFERENCES for label in label_names
        ]
    generator = np.random.default_rng([seed, 2])
    draws = np.stack([
        generator.multinomial(size, each.ravel() / size, size=RESAMPLES).reshape(-1, *each.shape)
        for each, size in zip(counts, counts.sum(axis=(1, 2)).tolist(), strict=True)
    ], axis=1)  # fmt: skip
    seen, moved = differences(counts[None]), _movements(counts, draws)
    # Without an effect of the group on predictions, any regrouping of the rows is as likely; for the odds any
    # within the true class, as groups may differ in their labels.
    any_rows = differences(_shuffled(counts, generator, within_label=False))
    same_label = differences(_shuffled(counts, generator, within_label=True))
    records = []
    for metric in DIFFERENCES:
        chance = same_label[metric] if metric == "equalized_odds_difference" else any_rows[metric]
        for c, label in enumerate(label_names):
            value = float(seen[metric][0, c])
            if not np.isfinite(value):
                why = _undefined(metric, counts, names, c, label)
                record = {**Interval(None, None, None, rows, method, why).record(), "p": None}
            else:
                record = Interval(value, *_ends(metric, value, moved[metric][:, c]), rows, method).record()
                record |= _control(metric, value, chance[:, c], record["low"] is None)
                few = _few(metric, counts, names, c)
                if few is not None and record["low"] is not None:
                    record["note"] = "; ".join(each for each in (few, record["note"]) if each)
            records.append({"metric": metric, "class": label, **record})
    return records


def _few(metric: str, counts: np.ndarray, names: Sequence[str], c: int) -> str | None:
    """Return a warning where a rate is of so few rows that resampling them cannot say how far it is off."""
    rows = counts.sum(axis=(1, 2))
    what, sizes = "rows", rows
    if metric == "equalized_odds_difference":
        of_class = counts[:, c].sum(axis=-1)
        what, sizes = "rows on one side of this label", np.minimum(of_class, rows - of_class)
    place = int(sizes.argmin())
    if sizes[place] >= FEW:
        return None
    return f"{names[place]!r} has only {int(sizes[place])} {what}: the interval is likely too narrow"


def _ends(metric: str, value: float, moved: np.ndarray) -> tuple[float | None, float | None]:
    """Return the ends of the simultaneous interval; a ratio's is symmetric on the scale of logarithms."""
    known = moved[~np.isnan(moved)]
    if len(known) < len(moved) / 2 or (metric.endswith("ratio") and value == 0):
        return None, None
    # The order statistic itself: between two numbers, one of which may be infinite, there is no middle.
    reach = float(np.quantile(known, 0.95, method="higher"))
    if metric.endswith("ratio"):
        return value * float(np.exp(-reach)), min(1.0, value * float(np.exp(min(reach, 700.0))))
    return max(0.0, value - reach), min(1.0, value + reach)


def _control(metric: str, value: float, chance: np.ndarray, open_ended: bool) -> dict[str, Any]:
    """Return what chance gives, as a note, and the p value."""
    shuffled = chance[np.isfinite(chance)]
    notes = []
    if open_ended:
        notes.append("undefined interval: a group has a rate of 0, or too few rows of this label")
    if not len(shuffled):
        return {"note": "; ".join(notes) or None, "p": None}
    notes.append(f"with shuffled groups {shuffled.mean():.3f} on average")
    # Shares that are equal in exact arithmetic must count as reached.
    reached = shuffled <= value + 1e-12 if metric.endswith("ratio") else shuffled >= value - 1e-12
    return {"note": "; ".join(notes), "p": (int(reached.sum()) + 1) / (len(shuffled) + 1)}


def _movements(counts: np.ndarray, draws: np.ndarray) -> dict[str, np.ndarray]:
    """Return how far resamples move the difference of any two groups, `[R, C]` per metric."""
    seen, drawn = _rates(counts[None]), _rates(draws)
    selected, true_positive, false_positive = (
        each - own for each, own in zip(drawn, seen, strict=True)
    )  # [R, G, C]
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(drawn[0]) - np.log(seen[0])
    # A rate of 0 in a resample moves a ratio without bound; numpy's inf - inf would hide that.
    lost = np.isinf(logarithm).any(axis=1)
    ratio = np.where(lost, np.inf, np.ptp(np.where(np.isinf(logarithm), 0.0, logarithm), axis=1))
    odds = np.maximum(np.ptp(true_positive, axis=1), np.ptp(false_positive, axis=1))
    return dict(zip(DIFFERENCES, (np.ptp(selected, axis=1), ratio, odds), strict=True))


def _undefined(metric: str, counts: np.ndarray, names: Sequence[str], c: int, label: str) -> str:
    """Return why a metric of a class is undefined."""
    if metric == "demographic_parity_ratio":
        return f"undefined: no row of any group was predicted as {label!r}"
    of_class = counts[:, c].sum(axis=-1)
    lacking = [name for name, own in zip(names, of_class, strict=True) if not own]
    if lacking:
        return f"undefined: no row of {', '.join(map(repr, lacking))} has the label {label!r}"
    only = [
        name for name, own, all_ in zip(names, of_class, counts.sum(axis=(1, 2)), strict=True) if own == all_
    ]
    return f"undefined: all rows of {', '.join(map(repr, only))} have the label {label!r}"


def differences(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the three metrics, `[R, C]` each, of confusion matrices by group, `[R, G, C, C]`; NaN if undefined."""
    selected, true_positive, false_positive = _rates(counts)
    largest, smallest = selected.max(axis=1), selected.min(axis=1)
    odds = [rate.max(axis=1) - rate.min(axis=1) for rate in (true_positive, false_positive)]
    return {
        "demographic_parity_difference": largest - smallest,
        "demographic_parity_ratio": _share(smallest, largest),
        "equalized_odds_difference": np.maximum(*odds),
    }


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return selection, true positive and false positive rates, `[R, G, C]`; NaN where undefined."""
    table = counts.astype(np.float64)
    support, predicted = table.sum(axis=-1), table.sum(axis=-2)  # [R, G, C]
    correct = np.diagonal(table, axis1=-2, axis2=-1)
    rows = support.sum(axis=-1, keepdims=True)
    return _share(predicted, rows), _share(correct, support), _share(predicted - correct, rows - support)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _shuffled(counts: np.ndarray, generator: np.random.Generator, within_label: bool) -> np.ndarray:
    """Return confusion matrices of rows whose group is shuffled, `[R, G, C, C]`.

    A shuffle fills the groups one after another with cells drawn without replacement: a multivariate
    hypergeometric draw, which needs no rows.
    """
    groups, classes, _ = counts.shape
    # Cells that may change places with one another stand in one line: of all rows, or of one true class.
    lines = counts.transpose(1, 0, 2) if within_label else counts.reshape(1, groups, -1)
    found = np.zeros((RESAMPLES, *lines.shape), dtype=np.int64)
    for place, line in enumerate(lines):  # [G, cells]
        left = np.broadcast_to(line.sum(axis=0), (RESAMPLES, line.shape[1])).copy()
        for group, size in enumerate(line.sum(axis=1).tolist()):
            taken = _without_replacement(left, size, generator)
            found[:, place, group] = taken
            left -= taken
    if within_label:
        return found.transpose(0, 2, 1, 3)
    return found.reshape(RESAMPLES, groups, classes, classes)


def _without_replacement(left: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return how many of `size` draws without replacement fall on each cell, `[R, cells]`."""
    taken = np.zeros_like(left)
    remaining = np.full(len(left), size)
    rest = left.sum(axis=1)
    for cell in range(left.shape[1]):
        rest = rest - left[:, cell]
        # Of the draws that are left, those on this cell are hypergeometric against all later cells.
        taken[:, cell] = generator.hypergeometric(left[:, cell], rest, remaining)
        remaining = remaining - taken[:, cell]
    return taken
