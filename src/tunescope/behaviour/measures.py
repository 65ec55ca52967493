"""The numbers of one suite for one model, and of tuned against base: rows of the result table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from tunescope.behaviour.effects import Effects
from tunescope.behaviour.estimates import Clusters, MeanChange, Settings, mean_changes, share, take
from tunescope.behaviour.excess import excess_records
from tunescope.behaviour.suite import Expected, Suite
from tunescope.behaviour.terms import rare_terms, term_records
from tunescope.behaviour.verdicts import Judgement, judge
from tunescope.stats.paired import tango
from tunescope.stats.tests import CORRECTIONS, mcnemar_exact

Record = dict[str, Any]
LEAST_PAIRS = 5
LEAST_JUDGED, LEAST_SHARE = 20, 0.05  # classes followed by fewer pairs are shown, and not judged


@dataclass(frozen=True)
class Rules:
    """How a suite is measured.

    Attributes:
        settings: Bound, resamples, seeds.
        cut: The change of a probability that counts as large.
        correction: ``holm`` or ``bh``, over terms, classes and directions.
    """

    settings: Settings = field(default_factory=Settings)
    cut: float = 0.10
    correction: str = "bh"


def suite_records(suite: Suite, effects: Effects, names: Sequence[str], rules: Rules) -> list[Record]:
    """Return every number of one suite for one model.

    Args:
        suite: The suite.
        effects: What its pairs do to the model.
        names: Class names.
        rules: How it is measured.
    """
    clusters = suite.cluster_columns()
    base = {"suite": suite.name, "kind": suite.kind, "labelled": int(effects.by_label.sum())}
    if suite.kind != "invariance":
        records = [_failures(suite, effects, names, clusters)]
        if suite.kind == "minimum_functionality":
            return [{**base, "part": "all", **record} for record in records]
    else:
        records = []
    records += _overall(suite, effects, names, clusters, rules)
    records += _controls(effects, clusters, rules)
    found = [{**base, "part": "all", **record} for record in records]
    parts: dict[str, list[tuple[Record, np.ndarray]]] = {
        "direction": [
            ({"direction": name}, (suite.pairs["direction"] == name).to_numpy())
            for name in sorted(suite.pairs["direction"].drop_nulls().unique())
        ],
        "class": [({"class": name}, effects.reference == place) for place, name in enumerate(names)],
    }
    for part, subsets in parts.items():
        own = _subsets(subsets, effects, clusters, rules)
        own += excess_records(subsets, effects, clusters, rules.settings, rules.correction)
        found += [{**base, "part": part, **record} for record in own]
    terms = suite.pairs["terms"].to_list()
    own_terms = term_records(terms, effects, clusters, rules.settings, rules.cut, rules.correction)
    rare = rare_terms(terms)
    found += [{**base, "part": "term", "rare_terms": rare, **record} for record in own_terms]
    return found


def _overall(
    suite: Suite, effects: Effects, names: Sequence[str], clusters: Clusters, rules: Rules
) -> list[Record]:
    """Return the numbers over all pairs, with the verdict on the first of them."""
    signs = suite.signs()
    turned = suite.orientation or ("original", "rewritten")
    orientation = f"{turned[0]} to {turned[1]}"
    kept = signs != 0
    own = np.stack([effects.margin_change, np.abs(effects.margin_change), effects.largest], axis=1)
    signed, absolute, largest = mean_changes(own, clusters, rules.settings)
    sided = signs[kept, None]
    by_class = mean_changes(sided * effects.class_margin_change[kept], take(clusters, kept), rules.settings)
    by_chance = mean_changes(sided * effects.probability_change[kept], take(clusters, kept), rules.settings)
    sizes = mean_changes(np.abs(effects.probability_change), clusters, rules.settings, test=False)
    turned_means = _turned(signs, effects, names, clusters, rules.settings) if suite.orientation else {}
    judged_first = signed if _unbiased(effects, suite) else None
    judgement = judge(
        judged_first, turned_means, rules.settings.bound, orientation if suite.orientation else ""
    )
    found = [
        {
            "metric": "margin_change", **_said(signed), "sign_p": sign_test(effects.margin_change),
            **_verdict(judgement),
        },
        {"metric": "absolute_margin_change", **absolute.interval.record()},
        {"metric": "largest_probability_change", **largest.interval.record()},
        *_shares(effects, clusters, rules),
    ]  # fmt: skip
    margins = _corrected([{"class": n, **_said(one)} for n, one in zip(names, by_class, strict=True)], "holm")
    chances = _corrected(
        [{"class": n, **_said(one)} for n, one in zip(names, by_chance, strict=True)], "holm"
    )
    found += [{"metric": "class_margin_change", "orientation": orientation, **one} for one in margins]
    found += [
        {"metric": "probability_change", "orientation": orientation, **one, "equivalent_p": None}
        for one in chances
    ]
    found += [
        {"metric": "absolute_probability_change", "class": name, **one.interval.record()}
        for name, one in zip(names, sizes, strict=True)
    ]
    judged = [{"class": name, **_said(one)} for name, one in turned_means.items()]
    found += [
        {"metric": "turned_margin_change", "orientation": orientation, **one}
        for one in _corrected(judged, "holm")
    ]
    return found + _accuracy(effects)


def _unbiased(effects: Effects, suite: Suite) -> bool:
    """Whether the mean change of the followed class's margin may be judged.

    A class that is followed because it was predicted for the original loses margin by any exchange: the original was
    picked for it. Where directions are opposite, turned means do without; elsewhere the control tells.
    """
    return suite.orientation is None or bool(effects.by_label.all())


def _turned(
    signs: np.ndarray, effects: Effects, names: Sequence[str], clusters: Clusters, settings: Settings
) -> dict[str, MeanChange]:
    """Return by followed class the mean change of its margin, turned to one direction; of all pairs if all are few."""
    kept = signs != 0
    least = max(LEAST_JUDGED, LEAST_SHARE * int(kept.sum()))
    found = {}
    for place, name in enumerate(names):
        rows = kept & (effects.reference == place)
        if rows.sum() >= least:
            table = (signs * effects.margin_change)[rows, None]
            (found[name],) = mean_changes(table, take(clusters, rows), settings)
    return found


def _said(one: MeanChange) -> Record:
    return {**one.interval.record(), "p": one.p, "equivalent_p": one.equivalent_p, "groups": one.groups}


def _verdict(judgement: Judgement) -> Record:
    return {"verdict": judgement.verdict, "why": judgement.why, "within": judgement.bound}


def _shares(effects: Effects, clusters: Clusters, rules: Rules) -> list[Record]:
    return [
        {"metric": "flip_share", **share(effects.flips, clusters).record()},
        {"metric": "large_change_share", **share(effects.largest >= rules.cut, clusters).record()},
    ]


def sign_test(changes: np.ndarray) -> float | None:
    """Return the exact two-sided p of the sign test: as many changes up as down; None where nothing changes."""
    up, down = int((changes > 0).sum()), int((changes < 0).sum())
    n = up + down
    return None if n == 0 else float(min(1.0, 2 * special.bdtr(min(up, down), n, 0.5)))


def _accuracy(effects: Effects) -> list[Record]:
    """Return the change of accuracy of labelled pairs, with McNemar's exact test."""
    rows = effects.by_label
    if not rows.any():
        return []
    truth = effects.reference[rows]
    first, second = effects.before[rows] == truth, effects.after[rows] == truth
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    interval = tango(won, lost, int(rows.sum()))
    note = "rows taken one by one; McNemar's exact test"
    return [{"metric": "accuracy_change", **interval.record(), "p": mcnemar_exact(lost, won), "note": note}]


def _controls(effects: Effects, clusters: Clusters, rules: Rules) -> list[Record]:
    """Return the band of every control beside the suite, and the paired difference suite minus control."""
    found: list[Record] = []
    for name, change in effects.control_change.items():
        kept = ~np.isnan(change)
        if not kept.any():
            continue
        own = np.abs(effects.margin_change[kept])
        table = np.stack([change[kept], own - change[kept]], axis=1)
        band, excess = mean_changes(table, take(clusters, kept), rules.settings)
        middle = np.quantile(change[kept], [0.025, 0.975]).tolist()
        found += [
            {
                "metric": "absolute_margin_change", "control": name, **band.interval.record(),
                "band_low": middle[0], "band_high": middle[1],
            },
            {"metric": "excess_over_control", "control": name, **_said(excess), "equivalent_p": None},
        ]  # fmt: skip
    return found


def _subsets(
    subsets: Sequence[tuple[Record, np.ndarray]], effects: Effects, clusters: Clusters, rules: Rules
) -> list[Record]:
    """Return the numbers of pairs of one direction, or of one class."""
    means: list[Record] = []
    others: list[Record] = []
    for axes, kept in subsets:
        if kept.sum() < LEAST_PAIRS:
            continue
        own = take(clusters, kept)
        table = np.stack([effects.margin_change[kept], np.abs(effects.margin_change[kept])], axis=1)
        signed, absolute = mean_changes(table, own, rules.settings)
        means.append({"metric": "margin_change", **axes, **_said(signed)})
        others.append({"metric": "absolute_margin_change", **axes, **absolute.interval.record()})
        others.append({"metric": "flip_share", **axes, **share(effects.flips[kept], own).record()})
        large = share(effects.largest[kept] >= rules.cut, own)
        others.append({"metric": "large_change_share", **axes, **large.record()})
    return [*_corrected(means, rules.correction), *others]


def _corrected(records: list[Record], correction: str) -> list[Record]:
    """Add q to records that have p, corrected over them."""
    p = np.array([np.nan if one.get("p") is None else one["p"] for one in records])
    return [{**one, "q": q} for one, q in zip(records, CORRECTIONS[correction](p), strict=True)]


def _failures(suite: Suite, effects: Effects, names: Sequence[str], clusters: Clusters) -> Record:
    """Return the share of cases that fail: a wrong label, or a change that is not the expected one."""
    if suite.kind == "minimum_functionality":
        failed = effects.before != effects.reference
    else:
        assert suite.expected is not None
        failed = ~_moves_as(suite.expected, effects, names)
    found = share(failed, clusters)
    verdict = "inconclusive"
    if found.low is not None and found.high is not None:
        verdict = (
            "fails" if found.low > suite.tolerated else "holds" if found.high <= suite.tolerated else verdict
        )
    return {"metric": "failure_share", **found.record(), "verdict": verdict, "within": suite.tolerated}


def _moves_as(expected: Expected, effects: Effects, names: Sequence[str]) -> np.ndarray:
    rows = np.arange(len(effects.before))
    column = effects.reference
    if expected.label is not None:
        column = np.full(len(rows), list(names).index(expected.label))
    table = effects.class_margin_change if expected.of == "margin" else effects.probability_change
    change = table[rows, column] * (1.0 if expected.change == "up" else -1.0)
    return change > 0 if expected.by == 0 else change >= expected.by


def difference_records(
    suite: Suite, base: Effects, tuned: Effects, names: Sequence[str], rules: Rules
) -> list[Record]:
    """Return tuned minus base on the same pairs: did tuning widen what the suite moves?"""
    if suite.kind == "minimum_functionality":
        return []
    clusters = suite.cluster_columns()
    common = {"suite": suite.name, "kind": suite.kind, "part": "all", "labelled": int(tuned.by_label.sum())}
    measures: Mapping[str, Callable[[Effects], np.ndarray]] = {
        "absolute_margin_change": lambda one: np.abs(one.margin_change),
        "largest_probability_change": lambda one: one.largest,
        "flip_share": lambda one: one.flips.astype(np.float64),
        "large_change_share": lambda one: (one.largest >= rules.cut).astype(np.float64),
        "margin_change": lambda one: one.margin_change,
    }
    table = np.stack([of(tuned) - of(base) for of in measures.values()], axis=1)
    found: list[Record] = []
    for name, one in zip(measures, mean_changes(table, clusters, rules.settings), strict=True):
        record = {**common, "metric": name, **_said(one), "equivalent_p": None}
        found.append({**record, "verdict": _widened(one)} if name == "absolute_margin_change" else record)
    signs = suite.signs()
    kept = signs != 0
    gaps = signs[kept, None] * (tuned.class_margin_change - base.class_margin_change)[kept]
    turned = suite.orientation or ("original", "rewritten")
    own = _corrected(
        [
            {"class": name, **_said(one), "equivalent_p": None}
            for name, one in zip(names, mean_changes(gaps, take(clusters, kept), rules.settings), strict=True)
        ],
        "holm",
    )
    orientation = {"orientation": f"{turned[0]} to {turned[1]}"}
    found += [{**common, "metric": "class_margin_change", **orientation, **one} for one in own]
    for name in tuned.control_change:
        change = tuned.control_change[name] - base.control_change[name]
        there = ~np.isnan(change)
        if there.any():
            excess = (np.abs(tuned.margin_change) - np.abs(base.margin_change) - change)[there]
            (one,) = mean_changes(excess[:, None], take(clusters, there), rules.settings)
            record = {
                **common,
                "metric": "excess_over_control",
                "control": name,
                **_said(one),
                "equivalent_p": None,
            }
            found.append(record)
    return found


def _widened(one: MeanChange) -> str:
    """Say whether tuning widened or narrowed what a rewrite moves."""
    low, high = one.interval.low, one.interval.high
    if low is None or high is None or one.p is None or one.p > 0.05:
        return "inconclusive"
    return "widened" if low > 0 else "narrowed" if high < 0 else "inconclusive"
