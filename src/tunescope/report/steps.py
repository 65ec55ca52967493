"""The section on training steps: maps in one frame, and numbers over steps; ``steps.html`` plays them."""

from __future__ import annotations

import polars as pl

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import geometry, maps, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder, read_examples

COLUMNS = (
    "arm",
    "model",
    "site",
    "layer",
    "step",
    "metric",
    "value",
    "low",
    "high",
    "method",
    "axes",
    "control",
)
PANELS = 8  # steps drawn on the page; steps.html has them all
POINTS = 2400
METRICS = {
    "accuracy": "accuracy",
    "cka": "CKA with the base",
    "movement": "way gone (PCA)",
    "trustworthiness": "trust",
}
HOW = (
    "All steps share one frame, so a row that moves has moved. Where accuracy rises long after the map has stopped "
    "moving, or the map moves on after accuracy has, geometry is not what decides."
)


def groups(run: RunFolder) -> list[Group]:
    """Return maps step by step and numbers over steps, one group per arm and seed."""
    points = read_examples(run, "steps", (*maps.EXAMPLE_COLUMNS, "step")) if "steps" in run.results else None

    def draw(one: Drawing) -> list[style.Figure]:
        own = None if points is None else only(points, arm=one.arm, axes=2)
        if own is not None and values(own, "seed") and values(one.rows, "seed"):
            own = only(own, seed=one.rows["seed"].drop_nulls()[0])
        return _figures(one, own, run.labels)

    return lens_sections(run, "steps", COLUMNS, draw)


def _figures(one: Drawing, points: pl.DataFrame | None, labels: tuple[str, ...]) -> list[style.Figure]:
    figures = []
    lines = _lines(one)
    if lines:
        caption = (
            f"Over the steps of {one.title}, at the last place, on {one.on}. Grey: control (rows shuffled for CKA, "
            "rows of the map permuted for trust). Intervals of 95 %."
        )
        figures.append(style.Figure(f"steps-{one.number}", "Numbers over steps", lines, caption))
    if points is not None and points.height:
        last = points.filter(pl.col("layer") == pl.col("layer").max())
        for place, method in enumerate(name for name in maps.METHOD_NAMES if name in values(last, "method")):
            panels = _maps(only(last, method=method), labels)
            name = maps.METHOD_NAMES[method]
            caption = (
                f"{name} of the pooled states of {one.title} at the last place, all steps in one frame and at one "
                f"scale ({one.on}). Crosses: the model is wrong. All steps, three axes and play: "
                "steps.html beside it; turning: watch-latent-space-*.gif."
            )
            title = f"Steps by {name}"
            figures.append(
                style.Figure(
                    f"steps-map-{one.number}-{method}", title, panels, caption, HOW, folded=place > 0
                )
            )
    return figures


def _lines(one: Drawing) -> tuple[style.Panel, ...]:
    rows = one.rows.filter((pl.col("layer") == pl.col("layer").max()) & pl.col("step").is_not_null())
    first = next((name for name in maps.METHOD_NAMES if name in values(rows, "method")), None)
    panels = []
    for metric, title in METRICS.items():
        own = only(rows, metric=metric).filter(pl.col("value").is_not_null())
        if metric in ("movement", "trustworthiness"):
            own = only(own, method=first, axes=2)
        if metric == "trustworthiness":
            own = only(own, model="tuned")
        if own.height < 2:
            continue
        own = own.sort("step").with_columns(layer=pl.col("step"))
        control = own.filter(pl.col("control").is_not_null()).with_columns(
            value="control", low=None, high=None
        )
        traces = [
            *([geometry.depth_line(control, "control", style.BASE_COLOUR)] if control.height else []),
            geometry.depth_line(own, title, one.colour),
        ]
        layout = style.layout(
            220, xaxis=style.axis("step", showgrid=False), yaxis=style.axis(""), hovermode="closest"
        )
        panels.append(style.Panel(title, {"data": traces, "layout": layout}, 220))
    return tuple(panels)


def _maps(points: pl.DataFrame, labels: tuple[str, ...]) -> tuple[style.Panel, ...]:
    """Return one panel a step, all on one scale, evenly spread over the steps."""
    steps = values(points, "step")
    kept = sorted(
        {
            steps[round(k * (len(steps) - 1) / (min(PANELS, len(steps)) - 1))]
            for k in range(min(PANELS, len(steps)))
        }
    )
    ids = points["row_id"].unique(maintain_order=True).head(max(1, POINTS // len(kept)))
    shown = points.filter(pl.col("row_id").is_in(ids.to_list()))
    reach = maps.reach(shown)
    panels = []
    for step in kept:
        panel = maps.one_panel(only(shown, step=step), labels, reach, legend=step == kept[0])
        panels.append(style.Panel("base" if step == 0 else f"step {step}", panel, maps.HEIGHT))
    return tuple(panels)
