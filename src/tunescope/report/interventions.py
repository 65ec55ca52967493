"""The sections on patching between texts, patching across models, and weight grafts."""

from __future__ import annotations

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import patching, style
from tunescope.report.figures.select import only
from tunescope.report.read import RunFolder
from tunescope.report.text import percent

HOW_PATCH = (
    "Blue: this place brings the answer of the donor's text; red: it moves the answer away from it. A dot marks q ≤ "
    "0.05 after correction over all places; = marks a place that carries all or nothing by construction, whatever the "
    "model learnt (hover says which). Where the stream at the changed words fades and the pooled token takes "
    "over, the information has moved. Shares need not sum to 100 %."
)
HOW_CROSS = (
    "Left: tuned activations in the base; right: base activations in the tuned model. The stream carries everything "
    "that earlier layers made, so read where it jumps; single parts show who writes it. = marks a place that carries "
    "all or nothing by which weights tuning changed at all."
)
HOW_CURVE = (
    "0: the base under the tuned head, 1: the tuned model. The depth at which the curve rises is where tuning put the "
    "task; the whole trunk is 1 by construction. Grey: the same weights moved as far in random directions."
)
HOW_PARTS = (
    "Left: the part's tuned weights in the base; right: what the tuned model loses with the base's weights there. Blue "
    "left and white right is a part that suffices but is not missed. = marks a part that holds all weights that tuning "
    "changed, or none."
)
DIRECTIONS = {
    "denoising": ("Clean into corrupted", "brought back"),
    "noising": ("Corrupted into clean", "taken away"),
}  # fmt: skip


def patch_groups(run: RunFolder) -> list[Group]:
    """Return maps of patching between texts, one group per arm and seed."""
    return lens_sections(run, "patching", patching.PATCH_COLUMNS, _patch_figures)


def _patch_figures(one: Drawing) -> list[style.Figure]:
    figures = []
    for direction, (title, what) in DIRECTIONS.items():
        for heads in (False, True):
            panels, limit = patching.patch_panels(one.rows, direction, heads)
            if not panels:
                continue
            own = only(one.rows, direction=direction, control="none")
            pairs = ", ".join(
                f"{name} {int(only(own, model=model)['n'].to_list()[0])}"
                for model, name in patching.MODEL_NAMES.items()
                if only(own, model=model).height
            )
            caption = (
                f"Share of the gap in margin between the two texts that is {what}, as a ratio of sums over pairs above "
                f"the floor ({pairs} pairs). Hover: 95 % interval over texts, q, n; control: patched from an unrelated "
                "text of equal length, drawn from all rows of the split."
            )
            name = f"{title}: {'heads' if heads else 'stream and sublayers by position'}"
            key = f"patching-{one.number}-{direction}-{'heads' if heads else 'sites'}"
            figures.append(
                style.Figure(
                    key,
                    name,
                    panels,
                    caption,
                    "" if heads else HOW_PATCH,
                    _scale(limit),
                    direction == "noising",
                )
            )
    return figures


def cross_groups(run: RunFolder) -> list[Group]:
    """Return maps of patching across models, one group per arm and seed."""
    return lens_sections(run, "patching_cross", patching.CROSS_COLUMNS, _cross_figures)


def _cross_figures(one: Drawing) -> list[style.Figure]:
    panels, limit = patching.cross_panels(one.rows)
    if not panels:
        return []
    caption = (
        f"Share of tuning's gain in margin that is recovered or lost, both models under the tuned head, on {one.on}. "
        "Hover: 95 % interval over texts, q, n; control: moved as far in a random direction."
    )
    return [style.Figure(f"cross-{one.number}", "Across models", panels, caption, HOW_CROSS, _scale(limit))]


def graft_groups(run: RunFolder) -> list[Group]:
    """Return curves and maps of weight grafts, one group per arm and seed."""
    return lens_sections(run, "grafting", patching.GRAFT_COLUMNS, _graft_figures)


def _graft_figures(one: Drawing) -> list[style.Figure]:
    figures = []
    curves = patching.curve_panels(one.rows, one.colour)
    if curves:
        caption = (
            f"Share of tuning's gain in accuracy that the base has with tuned weights, under the tuned head, on "
            f"{one.on}; bands are 95 % intervals over texts. Shares of rows are shown on the half of the texts that "
            "did not pick them."
        )
        figures.append(
            style.Figure(f"graft-curve-{one.number}", "Where tuning put the task", curves, caption, HOW_CURVE)
        )
    panels, limit = patching.cross_panels(one.rows, "one")
    if panels:
        caption = (
            f"Share of tuning's gain in margin by single parts, on {one.on}. Hover: 95 % interval over texts, q, n; "
            f"control: a random change of the part's weights, as large. {_smallest(one)}"
        )
        figures.append(
            style.Figure(
                f"graft-parts-{one.number}", "Single parts", panels, caption, HOW_PARTS, _scale(limit)
            )
        )
    return figures


def _smallest(one: Drawing) -> str:
    own = only(one.rows, scope="greedy", metric="recovered_accuracy", control="none", picked=True)
    if own.is_empty() or own["value"][0] is None:
        return ""
    return f"Smallest set: {own['component'][0]} ({percent(own['value'][0])} of the gain in accuracy)."


def _scale(limit: float) -> style.Scale:
    return style.Scale("diverging", f"{-100 * limit:.0f} % (away)", "0", f"{100 * limit:.0f} % (towards)")
