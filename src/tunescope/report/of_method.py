"""An arm over its seeds: the interval of seeds and rows, wherever a metric of an arm is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunescope.report.figures.select import over_seeds
from tunescope.report.read import RunFolder
from tunescope.report.text import Estimate, finite


def of_method(run: RunFolder, arm: str, records: Sequence[dict[str, Any]], metric: str) -> Estimate:
    """Return an arm's metric on the headline split; over several seeds with an interval of seeds and rows.

    That is the comparison's where it has the metric (it resamples the rows of all seeds together), else what the
    trainings' own intervals give (:func:`over_seeds`). One training's interval is about *it*, on other rows.

    Args:
        run: The run.
        arm: The arm.
        records: The metric's records of its trainings, on the headline split.
        metric: The metric.
    """
    measured = over_seeds(records, metric)
    own = _compared(run, arm, metric) if len(records) > 1 else None
    if own is None:
        return measured
    notes = [str(record["note"]) for record in records if record.get("note")]
    note = "; ".join(dict.fromkeys([*notes, *([str(own["note"])] if own.get("note") else [])]))
    return Estimate(measured.value, finite(own["low"]), finite(own.get("high")), measured.n, note or None)


def _compared(run: RunFolder, arm: str, metric: str) -> Mapping[str, Any] | None:
    """Return what the comparison says of an arm's metric on the headline split; None where it says nothing."""
    compared = run.comparison
    if not isinstance(compared, Mapping) or compared.get("split") != run.split:
        return None
    for one in compared.get("arms") or ():
        if not isinstance(one, Mapping) or one.get("arm") != arm:
            continue
        beside = one.get("beside")
        own = one if compared.get("metric") == metric else (
            {**one["accuracy"], "note": one.get("note")}
            if metric == "accuracy" and isinstance(one.get("accuracy"), Mapping)
            else beside.get(metric) if isinstance(beside, Mapping) else None
        )  # fmt: skip
        if isinstance(own, Mapping) and finite(own.get("low")) is not None:
            return own
    return None
