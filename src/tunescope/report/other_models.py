"""The section on other models: their layers against those of base and tuned, on the same rows."""

from __future__ import annotations

import polars as pl

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import geometry, similarity, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder
from tunescope.report.text import for_plotly

COLUMNS = (
    "arm",
    "model",
    "other",
    "metric",
    "site",
    "layer",
    "site_other",
    "layer_other",
    "value",
    "low",
    "high",
)
HOW = (
    "Compare the two maps: what the tuned model has in common with the other one and the base has too is no sign "
    "of the task. Only what the tuned map adds is."
)
HOW_SHARED = "Dimensions that the base shares with the other model were loud before any tuning."


def groups(run: RunFolder) -> list[Group]:
    """Return maps and shared dimensions, one group per arm and seed."""
    return lens_sections(run, "other_models", COLUMNS, _figures)


def _figures(one: Drawing) -> list[style.Figure]:
    figures = []
    for place, name in enumerate(values(one.rows, "other")):
        rows = only(one.rows, other=name)
        shown = for_plotly(name, 28)
        note = next((str(item) for item in rows["note"].drop_nulls()), "")
        panels = tuple(
            panel
            for model, title in (("base_other", "base"), ("tuned_other", "tuned"))
            if (panel := similarity.cka_panel(rows, model, title, shown)) is not None
        )
        if panels:
            caption = (
                f"CKA of {one.title} with {name} on {one.on}, every layer against every layer. "
                f"{f'{note}. ' if note else ''}The hover gives intervals of 95 % and rows shuffled."
            )
            title = f"Against {name}"
            figures.append(style.Figure(f"other-{one.number}-{place}", title, panels, caption, HOW))
        shared = _shared(rows, one.colour)
        if shared:
            top = int(rows["top"].drop_nulls()[0])
            caption = (
                f"How many of the {top} dimensions of greatest variance {one.title} shares with {name}, on {one.on}. "
                "Grey: the base; dotted level: by chance."
            )
            key = f"other-shared-{one.number}-{place}"
            figures.append(
                style.Figure(key, f"Loud dimensions shared with {name}", shared, caption, HOW_SHARED)
            )
    return figures


def _shared(rows: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    own = only(rows, metric="shared_top_dimensions").filter(pl.col("value").is_not_null()).sort("layer")
    if own.is_empty():
        return ()
    tuned = only(own, model="tuned_other")
    chance = tuned.with_columns(value=pl.col("control"))
    traces = [
        geometry.depth_line(chance, "by chance", style.BASE_COLOUR),
        geometry.depth_line(only(own, model="base_other"), "base", style.BASE_COLOUR),
        geometry.depth_line(tuned, "tuned", colour),
    ]
    traces[0]["line"]["dash"] = "dot"
    layout = geometry.depth_layout(own, 230, {"rangemode": "tozero"})
    return (style.Panel("", {"data": traces, "layout": layout}, 230),)
