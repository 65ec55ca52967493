"""What the verdicts on published claims rest on: the numbers of the run, and what is known of its arms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import polars as pl

from tunescope.config import ArmConfig
from tunescope.config.claims import ClaimNumber
from tunescope.expect.numbers import NothingMatchesError, Number, RunNumbers, numbers_of
from tunescope.lenses import LensOutput
from tunescope.lenses.claims.rules import Arm
from tunescope.lenses.claims.verdicts import Evidence, claims
from tunescope.models.families import family_of
from tunescope.study.context import Context, is_prompted
from tunescope.study.measure import learned, metrics_of


def judged_claims(context: Context, tables: Mapping[str, pl.DataFrame]) -> LensOutput | None:
    """Return the verdicts on the study's claims; None where it makes none.

    Args:
        context: The run; metrics, baselines and comparison are there.
        tables: The tables of the lenses, which are yet to be written to ``results/``.
    """
    study = context.study
    if not study.claims:
        return None
    run = RunNumbers(context.path, tables)

    def find(number: ClaimNumber) -> Sequence[Number]:
        try:
            return numbers_of(run, number)
        except NothingMatchesError as error:
            raise LookupError(str(error)) from error

    arms = {arm.name: _known(context, arm) for arm in context.chosen()}
    trials = {arm.grid: arm.name for arm in reversed(context.chosen()) if arm.grid is not None}
    wanted = [claim.model_copy(update={"arms": [trials.get(one, one) for one in claim.arms]})
              if claim.arms is not None else claim for claim in study.claims]  # fmt: skip

    def chosen(number: ClaimNumber) -> Sequence[Number]:
        """Let a grid's name mean its chosen trial."""
        names = {key: trials.get(getattr(number, key), getattr(number, key)) for key in ("arm", "against")}
        return find(number.model_copy(update=names))

    return claims(wanted, Evidence(tables, arms, study.seeds, chosen))


def _known(context: Context, arm: ArmConfig) -> Arm:
    """Return what a verdict on published claims must know of an arm."""
    if is_prompted(arm) or context.study.task == "summarise":
        return Arm(None, None)  # no class was learnt
    seeds = context.study.seeds
    each = [learned(metrics_of(context, arm, seed)) for seed in seeds]
    config = json.loads(
        (context.arm_folder(arm, seeds[0]) / "model" / "config.json").read_text(encoding="utf-8")
    )
    kind = family_of(config.get("tunescope_model_type") or config["model_type"]).language_kind
    return Arm(None if None in each else all(each), kind == "causal")
