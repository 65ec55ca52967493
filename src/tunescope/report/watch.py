"""The section on training as it happened, from what TunescopeCallback left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tunescope.report import watch_file
from tunescope.report.evidence import Group, checked
from tunescope.report.figures import style, watch
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder
from tunescope.report.text import percent

HOW = (
    "Dark lines are early layers, light ones late. A layer whose curve moves first was tuned first; a curve that has "
    "gone flat long before the last step says that the rest of the training changed little there."
)

CORRELATION = (
    "Spearman's rank correlation of each curve (mean over heads or matrices of a layer) with {metric} over the steps; "
    "95 % intervals resample steps. Left: the curves themselves; right: their changes from look to look, without a "
    "common trend. The strongest of either; all are in results/watch.parquet."
)
HOW_CORRELATION = (
    "Two curves that both rise through a training go together for that reason alone, so believe the right panel "
    "sooner. Neighbouring steps are alike: intervals of the left are too narrow."
)


def groups(run: RunFolder) -> list[Group]:
    """Return the curves over the steps, one group a training."""
    result = run.results.get("watch")
    if result is None:
        return []
    checked(result, watch.COLUMNS)
    about = result.provenance.get("options") or {}
    found: list[Group] = []
    movies = watch_file.movies(run)
    for training in watch_file.trainings(run):
        figures = _curves(training, about)
        if figures:
            figures += [_still(one) for one in movies if one.key.startswith(training.prefix)]
            found.append(Group(training.name or "Step by step", not found, tuple(figures)))
    return found


def _curves(training: watch_file.Training, about: Mapping[str, Any]) -> list[style.Figure]:
    """Return the curves of one training, and what they go with."""
    table, key = training.table, f"watch-{training.prefix}".rstrip("-")
    panels = tuple(panel for panel in _panels(table) if panel is not None)
    if not panels:
        return []
    steps = table["step"].drop_nulls().n_unique()
    texts = about.get("texts")
    fixed = "the same texts" if texts is None else f"{texts} fixed texts"
    took = about.get("share_looking")
    caption = (
        f"{steps} looks at {fixed}; step 0 is before training, and every comparison is with it."
        f"{'' if took is None else f' Looking took {percent(took)} of the time.'} Means over heads or matrices of a "
        "layer, without intervals: the texts are the same in every step."
    )
    figures = [style.Figure(
        key, "", panels, caption, HOW, shows="What lenses saw on the same texts at every step of the training.",
        high="Named over each panel", measured="The model in training against what it was at step 0",
    )]  # fmt: skip
    for metric in values(only(table, lens="correlation"), "of_metric"):
        drawn = watch.correlation_panels(only(table, lens="correlation", of_metric=metric))
        if drawn:
            figures.append(style.Figure(
                f"{key}-with-{metric}", f"What goes with {metric}", drawn, CORRELATION.format(metric=metric),
                HOW_CORRELATION, shows=f"How far each internal curve rises and falls with {metric} over the steps.",
                high=f"The curve rises where {metric} rises", measured="Spearman's correlation over steps",
            ))  # fmt: skip
    return figures


def _still(movie: watch_file.Movie) -> style.Figure:
    """Return the first and the last frame of what plays in the files beside the page."""
    panels = tuple(watch.still(movie.grids[index], movie, f"step {movie.steps[index]}") for index in (0, -1))
    return style.Figure(
        f"watch-{movie.key}", movie.title, panels,
        f"First and last of {len(movie.steps)} steps, one scale. All of them play in {watch_file.PAGE} and "
        f"watch-{movie.key}.gif beside this page.",
        shows=movie.title, high="A dark (blue) cell is high", measured="The model in training on the same texts",
    )  # fmt: skip


def _similarity(table: pl.DataFrame) -> pl.DataFrame:
    """Return RSA (cosine distances) of each place with itself at step 0."""
    own = only(table, lens="similarity", metric="rsa_cosine", model="base_tuned")
    if "layer_other" in own.columns:
        own = own.filter(pl.col("layer_other").is_null() | (pl.col("layer") == pl.col("layer_other")))
    return own


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
        watch.layer_curves(only(attention, metric="kl"), "attention: KL from step 0", "nats"),
        watch.layer_curves(
            only(attention, metric="entropy_without_sink", model="tuned"), "attention entropy", "normalised"
        ),
        watch.layer_curves(
            only(table, lens="activations", metric="magnitude", model="tuned", site="resid_post"),
            "mean magnitude of the stream",
            "magnitude",
        ),
        watch.layer_curves(_similarity(table), "RSA with step 0", "correlation"),
        watch.layer_curves(
            only(table, lens="probes", metric="probe_accuracy", model="tuned"), "probe accuracy", "accuracy"
        ),
        watch.layer_curves(norms, "gradient norm by block, before clipping", "norm"),
        watch.line(
            only(gradients, site="all"), "gradient norm, before clipping", "norm", style.ARM_COLOURS[0]
        ),
    ]
