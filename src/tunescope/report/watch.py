"""The section on training as it happened, from what TunescopeCallback left behind."""

from __future__ import annotations

import polars as pl

from tunescope.report.evidence import Group, checked
from tunescope.report.figures import style, watch
from tunescope.report.figures.select import only
from tunescope.report.read import RunFolder
from tunescope.report.text import percent

HOW = (
    "Dark lines are early layers, light ones late. A layer whose curve moves first was tuned first; a curve that has "
    "gone flat long before the last step says that the rest of the training changed little there."
)


def groups(run: RunFolder) -> list[Group]:
    """Return the curves of a watched training as one group."""
    result = run.results.get("watch")
    if result is None:
        return []
    table = checked(result, watch.COLUMNS)
    options = result.provenance.get("options") or {}
    panels = tuple(panel for panel in _panels(table) if panel is not None)
    if not panels:
        return []
    steps = table["step"].n_unique()
    caption = (
        f"{steps} looks at {options.get('texts', 'unknown')} fixed texts; step 0 is before training, and every "
        f"comparison is with it. Looking took {percent(options.get('share_looking'))} of the time. Means over heads or "
        "matrices of a layer, without intervals: the texts are the same in every step."
    )
    return [Group("Step by step", True, (style.Figure("watch", "", panels, caption, HOW),))]


def _panels(table: pl.DataFrame) -> list[style.Panel | None]:
    same = only(table, lens="cka", metric="cka", model="base_tuned")
    if "layer_other" in same.columns:
        same = same.filter(
            (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
        )
    weights = only(only(table, lens="weights", metric="relative_frobenius"), site="block")
    attention = only(table, lens="attention")
    gradients = only(table, lens="gradients")
    norms = (
        gradients.filter(pl.col("layer").is_not_null())
        .group_by("step", "layer")
        .agg((pl.col("value") ** 2).sum().sqrt().alias("value"))
    )
    return [
        watch.layer_curves(same, "CKA with step 0", "CKA"),
        watch.layer_curves(weights, "weight change", "share of the norm"),
        watch.layer_curves(
            only(attention, metric="jensen_shannon"), "attention: distance from step 0", "bits"
        ),
        watch.layer_curves(
            only(attention, metric="entropy_without_sink", model="tuned"), "attention entropy", "normalised"
        ),
        watch.layer_curves(norms, "gradient norm by block, before clipping", "norm"),
        watch.line(
            only(gradients, site="all"), "gradient norm, before clipping", "norm", style.ARM_COLOURS[0]
        ),
    ]
