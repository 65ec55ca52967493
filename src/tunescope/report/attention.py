"""The section on attention: where heads look, before and after."""

from __future__ import annotations

import polars as pl

from tunescope.report import attention_effect
from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import attention, style
from tunescope.report.read import RunFolder
from tunescope.report.text import number

HOW_APART = (
    "A dark cell is a head that looks elsewhere after tuning. It need not matter for the answer: the ablation of the "
    "same head says that."
)
HOW_CHANGES = (
    "Blue: more of it after tuning; red: less. A dot marks q ≤ 0.05 after correction over all heads. Less entropy is "
    "a narrower gaze; many heads rest on the first token, so entropy is shown without it."
)


def groups(run: RunFolder) -> list[Group]:
    """Return maps of heads by layers, one group per arm and seed."""
    ablation = run.results.get("ablation")
    effects = None if ablation is None else ablation.table

    def draw(one: Drawing) -> list[style.Figure]:
        return [*_figures(one), *_effect(one, effects)]

    return lens_sections(run, "attention", attention.COLUMNS, draw)


def _effect(one: Drawing, effects: pl.DataFrame | None) -> list[style.Figure]:
    """Return the figure that holds attention against ablation, where the run has both for this training."""
    if effects is None:
        return []
    own = effects.filter((pl.col("arm") == one.arm) & pl.col("seed").eq_missing(pl.lit(one.rows["seed"][0])))
    found = attention_effect.agreement(one.rows, own)
    if found is None:
        return []
    return [attention_effect.figure(found, f"attention-effect-{one.number}", one.colour)]


def _figures(one: Drawing) -> list[style.Figure]:
    figures = []
    apart, top = attention.divergence_panels(one.rows)
    if apart:
        scale = style.Scale("blues", "0 bits", number(top / 2), f"{number(top)} bits of at most 1")
        caption = (
            f"Jensen-Shannon divergence of base and tuned attention on the same tokens, mean over queries, then over "
            f"{one.on}. Hover: 95 % interval over texts, and how far two heads of that layer of the base are apart."
        )
        figures.append(
            style.Figure(f"attention-{one.number}", "How far heads moved", apart, caption, HOW_APART, scale)
        )
    changes = attention.change_panels(one.rows)
    if changes:
        caption = (
            f"Tuned minus base on {one.on}, each map on its own scale. Hover: 95 % interval, q, and the base."
        )
        scale = style.Scale("diverging", "less after tuning", "0", "more")
        figures.append(
            style.Figure(
                f"attention-changes-{one.number}", "What changed", changes, caption, HOW_CHANGES, scale
            )
        )
    return figures
