"""One step of one training by the name of its kind, here or in a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunescope.config import ArmConfig
from tunescope.runs import Stage
from tunescope.study import fit, measure, work
from tunescope.study.context import Context


def perform(
    context: Context, kind: str, arm: ArmConfig, seed: int | None, stage: Stage
) -> Mapping[str, Any] | None:
    """Do what a stage of one training says, without its record.

    Args:
        context: The run.
        kind: ``scratch``, ``train``, ``trial`` or ``evaluate``.
        arm: The arm.
        seed: The study's seed; None for ``scratch``.
        stage: The stage, whose fingerprint binds checkpoints.
    """
    if kind == "scratch":
        return work.make_scratch(context, arm)
    assert seed is not None
    if context.study.task == "summarise":
        from tunescope.study import summarise

        if kind == "train":
            return summarise.make_training(context, arm, seed, stage)
        summarise.make_evaluation(context, arm, seed, stage)
        return None
    if kind == "train":
        return fit.make_training(context, arm, seed, stage)
    measured = measure.make_trial if kind == "trial" else measure.make_evaluation
    measured(context, arm, seed)
    return None
