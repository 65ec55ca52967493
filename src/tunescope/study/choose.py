"""Grids: how many trainings they are, which trial each chooses, and the table and curves of all trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.grid import TRAIN_SHARE
from tunescope.config.problems import unknown
from tunescope.errors import ConfigError
from tunescope.evaluation.comparison.inputs import LOWER_IS_BETTER
from tunescope.files import read_json, write_json
from tunescope.study.context import GRIDS, Context


def grids_of(study: StudyConfig) -> dict[str, list[ArmConfig]]:
    """Return the trials of every grid, by the arm that it was written as, in order."""
    grids: dict[str, list[ArmConfig]] = {}
    for arm in study.arms:
        if arm.grid is not None:
            grids.setdefault(arm.grid, []).append(arm)
    return grids


def trials_of(study: StudyConfig) -> dict[str, int]:
    """Return how many trials every arm as it was written gets, those of a learning curve counted once."""
    counts: dict[str, int] = {}
    for arm in study.arms:
        counts.setdefault(arm.grid or arm.name, 1)
    for name, trials in grids_of(study).items():
        counts[name] = len(trials) // max(1, len({trial.train_share for trial in trials}))
    return counts


def unequal_trials(study: StudyConfig) -> str | None:
    """Say that arms were given unequal numbers of trials, or None where all had the same."""
    counts = trials_of(study)
    if len(set(counts.values())) < 2:
        return None
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return (
        f"The arms are given unequal numbers of trials ({listed}): an arm with more trials has more chances to look "
        "good, so a difference between arms is in part one of effort."
    )


def say_trials(study: StudyConfig) -> Iterator[str]:
    """Say, before anything starts, how many trainings the grids are."""
    seeds = len(study.seeds)
    for name, trials in grids_of(study).items():
        axes = " x ".join(f"{key} ({len(values)})" for key, values in axes_of(trials).items())
        yield (
            f"  grid {name}: {len(trials)} trials over {axes}, {seeds} seed{'s' if seeds > 1 else ''}: "
            f"{len(trials) * seeds} trainings; {_how(study, trials)}"
        )
    unequal = unequal_trials(study)
    if unequal and grids_of(study):
        yield f"  {unequal}"


def _how(study: StudyConfig, trials: Sequence[ArmConfig]) -> str:
    if set(axes_of(trials)) == {TRAIN_SHARE}:
        return "a learning curve, every point evaluated"
    each = " for each train_share" if TRAIN_SHARE in axes_of(trials) else ""
    return f"one is chosen{each} by {study.selection.metric} on validation rows"


def axes_of(trials: Sequence[ArmConfig]) -> dict[str, list[Any]]:
    """Return the values that each field takes among trials, in order."""
    axes: dict[str, list[Any]] = {}
    for trial in trials:
        for key, value in trial.point.items():
            if value not in axes.setdefault(key, []):
                axes[key].append(value)
    return axes


def make_grids(context: Context) -> None:
    """Choose the trial of every grid and write ``grids.json``: all points with their intervals, and the choice.

    Raises:
        ConfigError: The metric that chooses is none that was measured.
    """
    study = context.study
    content = {
        "format_version": 1,
        "metric": study.selection.metric,
        "lower_is_better": study.selection.metric in LOWER_IS_BETTER,
        "split": "validation",
        "trials": trials_of(study),
        "note": unequal_trials(study),
        "grids": [_grid(context, name, trials) for name, trials in grids_of(study).items()],
    }
    write_json(context.path / GRIDS, content)


def _grid(context: Context, name: str, trials: Sequence[ArmConfig]) -> dict[str, Any]:
    study = context.study
    points = [_point(context, trial) for trial in trials]
    sign = -1.0 if study.selection.metric in LOWER_IS_BETTER else 1.0
    shares: dict[float, list[dict[str, Any]]] = {}
    for trial, point in zip(trials, points, strict=True):
        shares.setdefault(trial.train_share, []).append(point)
    chosen = []
    for group in shares.values():
        defined = [point for point in group if point["mean"] is not None]
        # The first of equal ones: the order is that of the study, and nothing else may decide.
        best = max(defined, key=lambda point: sign * point["mean"]) if defined else group[0]
        chosen.append(best["arm"])
    axes = axes_of(trials)
    curve = set(axes) == {TRAIN_SHARE}
    return {
        "grid": name, "axes": [{"key": key, "values": values} for key, values in axes.items()],
        "kind": "learning_curve" if curve else "selection", "points": points, "chosen": chosen,
        "how": _how(study, trials), "seeds": list(study.seeds),
    }  # fmt: skip


def _point(context: Context, trial: ArmConfig) -> dict[str, Any]:
    metric = context.study.selection.metric
    seeds = []
    for seed in context.study.seeds:
        content = read_json(context.arm_folder(trial, seed) / "trial.json")
        own = [one for one in content["records"] if one["class"] is None]
        record = next((one for one in own if one["metric"] == metric), None)
        if record is None:
            known = [one["metric"] for one in own]
            raise ConfigError(
                f"selection.metric: {unknown('metric', metric, known)}",
                hint="Choose a metric that is measured.",
            )
        kept = {key: record[key] for key in ("value", "low", "high", "n", "method", "note")}
        price = content["cost"]
        seeds.append({"seed": seed, **kept, "seconds": price["seconds"]})
    values = [one["value"] for one in seeds if one["value"] is not None]
    return {
        "arm": trial.name, "point": trial.point, "seeds": seeds,
        "mean": sum(values) / len(values) if values else None,
        "trainable_parameters": price["trainable_parameters"], "parameters": price["parameters"],
    }  # fmt: skip
