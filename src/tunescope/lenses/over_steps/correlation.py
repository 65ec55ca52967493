"""Do internal curves go with the validation metric? Rank correlations over the steps of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import rankdata, spearmanr

from tunescope.errors import RunError

FEWEST = 6  # steps at which both were seen
RESAMPLES = 1000
SCHEMA = {
    "lens": pl.String, "metric": pl.String, "model": pl.String, "site": pl.String, "layer": pl.Int64,
    "of": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64,
}  # fmt: skip
CURVE = ("lens", "metric", "model", "site", "layer")
Log = Sequence[Mapping[str, Any]]


def curves_with(table: pl.DataFrame, log: Log, metric: str = "eval_loss", seed: int = 0) -> pl.DataFrame:
    """Return Spearman's correlation of every internal curve with a logged metric over the steps.

    A curve is the mean over heads or matrices of one lens, metric, model, site and layer. `of` is ``levels`` (the
    curves themselves; two curves that both rise agree, whatever the reason) and ``changes`` (differences from one
    look to the next, from which a common trend has gone). Intervals are 95 % percentile bootstraps over steps;
    neighbouring steps resemble one another, so those of levels are too narrow.

    Args:
        table: What lenses saw, with columns ``step`` and ``lens``.
        log: The training's own log, one record each time it logged, with ``step``.
        metric: A number that the training logged at steps at which lenses looked, such as ``eval_accuracy``.
        seed: Seeds the resamples.

    Raises:
        RunError: The log does not hold the metric at six steps at which lenses looked; it says what it holds.
    """
    logged = {int(one["step"]): float(one[metric]) for one in log if metric in one}
    steps = [step for step in sorted(table["step"].unique().to_list()) if step in logged]
    if len(steps) < FEWEST:
        names = sorted({name for one in log for name in one} - {"step", "epoch"})
        raise RunError(
            f"{metric} was logged at {len(steps)} of the steps at which lenses looked; {FEWEST} are needed. The log "
            f"holds {', '.join(names) or 'nothing'}.",
            hint="Evaluate at the steps of the schedule: eval_strategy='steps', eval_steps=N, Schedule(every=N).",
        )
    known = table.filter(pl.col("step").is_in(steps) & pl.col("value").is_not_null())
    curves = known.group_by(*CURVE, "step").agg(pl.col("value").mean()).sort("step")
    records = []
    for key, rows in sorted(curves.group_by(*CURVE), key=lambda one: str(one[0])):
        target = np.array([logged[step] for step in rows["step"]])
        values = rows["value"].to_numpy()
        for of, first, second in (("levels", values, target), ("changes", np.diff(values), np.diff(target))):
            if len(first) < FEWEST - 1 or not np.ptp(first) or not np.ptp(second):
                continue  # a curve that does not move goes with nothing
            low, high = _interval(first, second, seed)
            records.append({
                **dict(zip(CURVE, key, strict=True)), "of": of, "value": _spearman(first, second), "low": low,
                "high": high, "n": len(first),
            })  # fmt: skip
    return pl.DataFrame(records, schema=SCHEMA)


def every_curve(table: pl.DataFrame, log: Log, seed: int = 0) -> pl.DataFrame:
    """Return the correlations with every metric that was evaluated at enough steps, as rows of a result.

    Columns are those of :func:`curves_with`, with `lens` ``correlation``, the curve's lens in ``curve`` and the
    logged metric in ``of_metric``; no rows where nothing was evaluated at six steps at which lenses looked.
    """
    steps = set(table["step"].unique().to_list())
    seen: dict[str, set[int]] = {}
    for one in log:
        for name, value in one.items():
            timing = name.endswith(("runtime", "per_second"))
            if name.startswith("eval_") and not timing and isinstance(value, int | float):
                seen.setdefault(name, set()).add(int(one["step"]))
    parts = [
        curves_with(table, log, name, seed).with_columns(of_metric=pl.lit(name))
        for name, at in sorted(seen.items())
        if len(at & steps) >= FEWEST
    ]
    if not parts:
        return pl.DataFrame(schema={**SCHEMA, "curve": pl.String, "of_metric": pl.String})
    return pl.concat(parts).with_columns(curve=pl.col("lens"), lens=pl.lit("correlation"))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic) if np.ptp(first) and np.ptp(second) else float("nan")


def _interval(first: np.ndarray, second: np.ndarray, seed: int) -> tuple[float, float]:
    rows = np.random.default_rng(seed).integers(0, len(first), (RESAMPLES, len(first)))
    one, two = (rankdata(values[rows], axis=1) for values in (first, second))  # [resamples, steps]
    one, two = (ranks - ranks.mean(1, keepdims=True) for ranks in (one, two))
    size = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.where(
            size > 0, (one * two).sum(1) / size, np.nan
        )  # a resample of one value has no correlation
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(low), float(high)
