"""All arms of a study against one another and against the baselines, corrected together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import polars as pl

from tunescope.evaluation.comparison import words
from tunescope.evaluation.comparison.inputs import LOWER_IS_BETTER, Aligned, align, check_metric
from tunescope.evaluation.comparison.pairs import (
    Difference,
    Measured,
    agreements,
    arm_interval,
    difference,
    rows_interval,
)
from tunescope.stats.intervals import wilson
from tunescope.stats.multiboot import seed_spread
from tunescope.stats.power import unpaired_detectable
from tunescope.stats.tests import CORRECTIONS

LEAST, MOST = 2000, 10_000
_BESIDE = ("f1_macro",)  # what the table of arms shows beside accuracy


@dataclass(frozen=True)
class ComparisonOptions:
    """How arms are compared.

    Attributes:
        metric: The metric, one of :data:`METRICS`.
        split: The split.
        correction: "holm" bounds the chance of any false call, "bh" the share of false calls among all.
        equivalent_within: The difference that would not matter.
        level: The coverage of intervals; tests are made at 1 - level.
        resamples: How many resamples are drawn; None for as many as the correction over all pairs needs.
        seed: Seeds the resamples.
    """

    metric: str = "accuracy"
    split: str = "test"
    correction: Literal["holm", "bh"] = "holm"
    equivalent_within: float = 0.01
    level: float = 0.95
    resamples: int | None = None
    seed: int = 0


def compare_arms(
    predictions: Mapping[tuple[str, int | None], pl.DataFrame],
    label_names: Sequence[str],
    options: ComparisonOptions = ComparisonOptions(),
    *,
    baselines: Mapping[str, pl.DataFrame] | None = None,
    groups: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare every arm with every other, and with every baseline, on the same rows.

    One seed each: the verdict is about *these two trained models* (``scope`` "checkpoints"), and that about their
    methods is always "undecided (one seed each)". Exact McNemar and Tango's interval for accuracy, answers (of areas
    and average precisions, ranks) exchanged between the two for every other metric. From two seeds on, the
    Multi-bootstrap over seeds and rows, which speaks of the methods (``scope`` "rows and seeds"), for an arm's own
    interval as for differences. ``learned`` is about the trainings that were made: whether their accuracy on other
    rows clears the majority. The p values of all pairs of arms are corrected together, those of arms against
    baselines together, and those of equivalence likewise.

    Args:
        predictions: Tables as in ``predictions.parquet``, by arm and seed.
        label_names: The labels' names, in class order.
        options: Metric, split, correction and margin.
        baselines: The tables of baselines, by name.
        groups: The group of each row id, where rows are not independent; groups are then resampled.

    Returns:
        JSON-able: ``metric``, ``split``, ``n``, ``majority``, ``arms`` (value, interval, ``learned``, ``spread``
        over seeds, ``seeds`` one by one, and of several seeds macro F1 under ``beside``), ``pairs`` and
        ``against_baselines`` (difference ``value``, ``low``, ``high``, ``p``, ``q``, ``mcnemar`` per seed,
        ``detectable``, ``equivalence``, ``scope``, ``verdict`` and ``better`` of what the scope says, ``methods``
        with ``verdict``, ``better`` and ``because`` of the methods, ``sentence``), ``ranking`` (a sentence),
        ``unpaired_detectable``, and the options.

    Raises:
        DataError: The metric is not known, or runs do not have the same rows and labels.
    """
    check_metric(options.metric)
    arms = list(dict.fromkeys(arm for arm, _ in predictions))
    others = dict(baselines or {})
    everything: dict[tuple[str, int | None], pl.DataFrame] = dict(predictions)
    everything |= {(name, None): frame for name, frame in others.items()}
    options = _resolved(options, len(arms), len(others))
    rows = align(everything, label_names, options.split, groups)
    measured = _measured(rows, options.metric, options)
    accuracy = measured if options.metric == "accuracy" else _measured(rows, "accuracy", options)
    majority = _majority(rows)
    found = {name: _arm(measured, accuracy, name, majority["value"]) for name in (*arms, *others)}
    for metric in _BESIDE:
        several = [arm for arm in arms if len(measured.runs(arm)) > 1]
        if several and metric != options.metric:
            beside = _measured(rows, metric, options)
            for arm in several:
                found[arm]["beside"] = {
                    **found[arm].get("beside", {}),
                    metric: arm_interval(beside, arm).record(),
                }
    pairs = _pairs(measured, list(combinations(arms, 2)), found, options)
    against = _pairs(measured, [(arm, name) for arm in arms for name in others], found, options)
    return {
        "metric": options.metric,
        "lower_is_better": options.metric in LOWER_IS_BETTER,
        "split": options.split,
        "n": len(rows),
        "groups": None if rows.groups is None else measured.draws.units,
        "level": options.level,
        "correction": options.correction,
        "equivalent_within": options.equivalent_within,
        "resamples": options.resamples,
        "majority": majority,
        "arms": [found[arm] for arm in arms],
        "baselines": [found[name] for name in others],
        "pairs": pairs,
        "against_baselines": against,
        "unpaired_detectable": _unpaired(rows, found, arms, options),
        "ranking": words.ranking([found[arm] for arm in arms], pairs, options),
    }


def _resolved(options: ComparisonOptions, arms: int, baselines: int) -> ComparisonOptions:
    """Draw so many resamples that the smallest p of any pair can survive the correction over its family.

    A bootstrap p is at least 2 / (resamples + 1); times the number of pairs that must stay well below 0.05.
    """
    if options.resamples is not None:
        return options
    family = max(arms * (arms - 1) // 2, arms * baselines)
    return replace(options, resamples=max(LEAST, min(200 * family, MOST), 80 * family))


def _measured(rows: Aligned, metric: str, options: ComparisonOptions) -> Measured:
    assert options.resamples is not None
    draws = rows.draws(metric, options.resamples, [options.seed, 0])
    return Measured(rows, metric, draws, options.level, options.seed)


def _majority(rows: Aligned) -> dict[str, Any]:
    """Return the accuracy of always saying the most frequent class of these rows."""
    counts = np.bincount(rows.truth, minlength=len(rows.names))
    best = int(counts.argmax())
    return {"class": rows.names[best], **wilson(int(counts[best]), len(rows)).record()}


def _arm(measured: Measured, accuracy: Measured, name: str, majority: float) -> dict[str, Any]:
    runs = measured.runs(name)
    values = measured.values(runs)
    right = arm_interval(accuracy, name)
    cleared = right.low if len(runs) == 1 or right.low is None else rows_interval(accuracy, name).low
    trained = [run for run in runs if run.seed is not None]
    return {
        "arm": name,
        **arm_interval(measured, name).record(),
        "accuracy": {"value": right.value, "low": right.low, "high": right.high},
        "learned": None if cleared is None else bool(cleared > majority),
        "seeds": [
            {"seed": run.seed, "value": float(value) if np.isfinite(value) else None}
            for run, value in zip(runs, values, strict=True)
        ],
        "spread": seed_spread(values) if trained and np.isfinite(values).all() else None,
    }


def _pairs(
    measured: Measured,
    names: list[tuple[str, str]],
    arms: Mapping[str, dict[str, Any]],
    options: ComparisonOptions,
) -> list[dict[str, Any]]:
    """Compare pairs and correct their p values together."""
    found = [difference(measured, *pair, options.equivalent_within) for pair in names]
    correct = CORRECTIONS[options.correction]
    q = correct([_number(one.p) for one in found])
    q_same = correct([_number(one.equivalence.p) for one in found])
    records = []
    for pair, one, own, same in zip(names, found, q, q_same, strict=True):
        record = _record(pair, one, options)
        record["q"] = float(own) if np.isfinite(own) else None
        record["equivalence"]["q"] = float(same) if np.isfinite(same) else None
        record["mcnemar"] = agreements(measured, *pair)
        trained = [name for name in pair if arms[name]["seeds"][0]["seed"] is not None]
        record["not_learned"] = [name for name in trained if arms[name]["learned"] is False]
        record |= _verdict(record, len(record["not_learned"]) == len(trained), options)
        single = [name for name in trained if len(arms[name]["seeds"]) == 1]
        record["methods"] = _methods(record, trained, single)
        record["sentence"] = words.pair(record, options, len(names))
        records.append(record)
    return records


def _number(p: float | None) -> float:
    return float("nan") if p is None else p


def _record(pair: tuple[str, str], one: Difference, options: ComparisonOptions) -> dict[str, Any]:
    return {
        "first": pair[0],
        "second": pair[1],
        "metric": options.metric,
        **one.interval.record(),
        "p": one.p,
        "test": one.test,
        "scope": one.scope,
        "equivalence": one.equivalence.record(),
        "detectable": one.detectable.record(),
    }


def _verdict(record: dict[str, Any], none_learned: bool, options: ComparisonOptions) -> dict[str, Any]:
    """Decide a pair: different, equivalent, undecided; or nothing, where no arm of it has learned the task."""
    alpha = round(1 - options.level, 12)
    if none_learned:
        return {"verdict": "task not learned", "better": None}
    value, q, same = record["value"], record["q"], record["equivalence"]["q"]
    if value and q is not None and q <= alpha:
        first = (value > 0) != (options.metric in LOWER_IS_BETTER)
        return {"verdict": "found", "better": record["first"] if first else record["second"]}
    return {"verdict": "equivalent" if same is not None and same <= alpha else "undecided", "better": None}


def _methods(record: dict[str, Any], trained: Sequence[str], single: Sequence[str]) -> dict[str, Any]:
    """Return what may be said of the methods, of which the trained models are each one draw."""
    if record["scope"] == "rows and seeds":
        return {"verdict": record["verdict"], "better": record["better"], "because": None}
    of_several = "one seed each" if len(single) > 1 else f"one seed of {single[0]}"
    because = of_several if len(trained) > 1 else "one seed"  # a baseline has no seed
    return {"verdict": "undecided", "better": None, "because": because}


def _unpaired(
    rows: Aligned, found: Mapping[str, dict[str, Any]], arms: Sequence[str], options: ComparisonOptions
) -> dict[str, Any] | None:
    """Return the difference of accuracy that other rows of this number would show, for a published figure."""
    values = [found[arm]["accuracy"]["value"] for arm in arms]
    if not len(rows) or any(value is None for value in values):
        return None
    mean = float(np.mean(values))
    return unpaired_detectable(len(rows), len(rows), mean, round(1 - options.level, 12)).record()
