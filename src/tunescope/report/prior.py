"""Test metrics after a correction for prior shift, beside those before: part of the section on metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.select import estimate
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, finite

SHOWN = (
    "accuracy", "balanced_accuracy", "f1_macro", "matthews_corrcoef", "log_loss", "expected_calibration_error",
)  # fmt: skip
PER_CLASS = ("recall", "precision")


@dataclass(frozen=True)
class Share:
    """One class's share in training and where it was moved to; an interval where that was estimated."""

    label: str
    train: float | None
    target: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Moved:
    """One metric before and after."""

    metric: str
    label: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Prior:
    """One training's correction, or the reason why there is none."""

    arm: str
    colour: int
    seed: int | None
    reason: str
    note: str
    shares: tuple[Share, ...]
    rows: tuple[Moved, ...]


def priors(run: RunFolder) -> list[Prior]:
    """Return the corrections of all trainings; none where the study does not ask for them."""
    found = []
    for item in run.arms:
        one = (item.metrics or {}).get("prior")
        if not one:
            continue
        with reading(run.folder, f"arms/{item.arm}/seed-{item.seed}/metrics.json"):
            colour = run.arm_names.index(item.arm) % len(style.ARM_COLOURS)
            shown = Prior(item.arm, colour, item.seed, "", str(one.get("note") or ""), (), ())
            if one["done"]:
                shown = replace(shown, shares=_shares(one), rows=_rows(item.metrics or {}, one))
            else:
                shown = replace(shown, reason=str(one["reason"]))
            found.append(shown)
    return found


def _shares(one: Mapping[str, Any]) -> tuple[Share, ...]:
    ends = one.get("estimate") or {}
    return tuple(
        Share(
            str(label), finite(one["train"][label]), finite(target),
            finite(ends.get("low", {}).get(label)), finite(ends.get("high", {}).get(label)),
        )
        for label, target in one["target"].items()
    )  # fmt: skip


def _rows(metrics: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[Moved, ...]:
    """Pair the records of the split before and after, over all classes first."""
    before = {_key(record): record for record in metrics["records"] if record["split"] == one["split"]}
    after = {_key(record): record for record in one["records"]}
    wanted = [(metric, None) for metric in SHOWN]
    wanted += [(metric, label) for label in one["target"] for metric in PER_CLASS]
    return tuple(
        Moved(
            metric.replace("_", " "), str(label or ""), estimate(dict(before.get((metric, label), {}))),
            estimate(dict(after[metric, label])),
        )
        for metric, label in wanted
        if (metric, label) in after
    )  # fmt: skip


def _key(record: Mapping[str, Any]) -> tuple[str, str | None]:
    return str(record["metric"]), None if record["class"] is None else str(record["class"])
