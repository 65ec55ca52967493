"""The section on attention: where heads look, before and after."""

from __future__ import annotations

import polars as pl

from tunescope.report import attention_effect
from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import attention, style
from tunescope.report.figures import attention_parts as parts
from tunescope.report.read import RunFolder, read_examples
from tunescope.report.text import number

HOW_APART = (
    "A dark cell is a head that looks elsewhere after tuning. It need not matter for the answer: the ablation of the "
    "same head says that."
)
HOW_CHANGES = (
    "Blue: more of it after tuning; red: less. A dot marks q ≤ 0.05 after correction over all heads. Less entropy is "
    "a narrower gaze; many heads rest on the first token, so entropy is shown without it."
)


HOW_PARTS = (
    "A row says where the tokens of one part look. Beside even attention a share that is far above it is a choice, and "
    "one at its height is none."
)
HOW_PART_HEADS = (
    "Blue: the head gives more of its attention to this part after tuning; red: less. A dot marks q ≤ 0.05 after "
    "correction over heads."
)
HOW_MAP = (
    "Each line is a token, and the cells of it say which tokens the head reads there; a line sums to 1. In a model "
    "that reads from left to right nothing lies right of the diagonal. One sentence shows what a head can do, not what "
    "it does on average."
)


def groups(run: RunFolder) -> list[Group]:
    """Return maps of heads by layers, one group per arm and seed."""
    ablation = run.results.get("ablation")
    effects = None if ablation is None else ablation.table
    maps = read_examples(run, "attention", parts.MAP_COLUMNS) if "attention" in run.results else None

    def draw(one: Drawing) -> list[style.Figure]:
        by_part = [] if "region" not in one.rows.columns else _parts(one)
        return [*_figures(one), *_effect(one, effects), *by_part, *_maps(one, maps)]

    return lens_sections(run, "attention", attention.COLUMNS, draw)


def _effect(one: Drawing, effects: pl.DataFrame | None) -> list[style.Figure]:
    """Return the figure that holds attention against ablation, where the run has both for this training."""
    if effects is None:
        return []
    own = effects.filter((pl.col("arm") == one.arm) & pl.col("seed").eq_missing(pl.lit(one.rows["seed"][0])))
    every = (attention_effect.agreement(one.rows, own, metric) for metric in attention_effect.METRICS)
    found = [agreed for agreed in every if agreed is not None]
    if not found:
        return []
    return [attention_effect.figure(found, f"attention-effect-{one.number}", one.colour)]


def _parts(one: Drawing) -> list[style.Figure]:
    """Return what attention does by part of the input, where it has parts."""
    found = []
    shares = parts.share_panels(one.rows)
    if shares:
        caption = (
            f"Mean over heads and layers, over the tokens of each part with two visible tokens or more, then over "
            f"{one.on}. Even attention gives every visible token the same."
        )
        found.append(style.Figure(
            f"attention-parts-{one.number}", "From part to part", shares, caption, HOW_PARTS,
            style.Scale("blues", "0 %", "50 %", "100 % of the attention"),
            shows="Which share of attention goes from each part of the input to each.",
            high="The part is looked at more", measured=f"Attention of base and tuned on {one.on}",
        ))  # fmt: skip
    heads = parts.change_panels(one.rows)
    if heads:
        caption = (
            f"Tuned minus base on {one.on}, one scale for all maps; the pairs of parts between which some head changed "
            "most. Hover: 95 % interval over texts, q corrected over heads."
        )
        found.append(style.Figure(
            f"attention-part-heads-{one.number}", "Which heads look at another part", heads, caption, HOW_PART_HEADS,
            style.Scale("diverging", "less after tuning", "0", "more"),
            shows="How much more or less each head looks from one part to another after tuning.",
            high="The head gives this part more of its attention after tuning",
            measured=f"Share of attention, tuned minus base, on {one.on}",
        ))  # fmt: skip
    statistics = parts.statistic_panels(one.rows, one.colour)
    if statistics:
        caption = (
            f"Dots: mean over heads (grey: base); lines: four in five heads. Tokens of each part, {one.on}."
        )
        found.append(style.Figure(
            f"attention-part-numbers-{one.number}", "Statistics by part", statistics, caption, folded=True,
            shows="Each statistic over the tokens of each part of the input.", high="Named over each panel",
            measured=f"Attention of base and tuned on {one.on}",
        ))  # fmt: skip
    return found


def _maps(one: Drawing, maps: pl.DataFrame | None) -> list[style.Figure]:
    """Return whole maps of kept sentences, one figure a head; the first is open."""
    if maps is None:
        return []
    own = maps.filter((pl.col("arm") == one.arm) & pl.col("seed").eq_missing(pl.lit(one.rows["seed"][0])))
    found: list[style.Figure] = []
    keys = own.select("row_id", "layer", "head").unique(maintain_order=True).rows()
    for row_id, layer, head in keys:
        rows = own.filter(
            (pl.col("row_id") == row_id) & (pl.col("layer") == layer) & (pl.col("head") == head)
        )
        place = len(found)
        when = ", before and after tuning" if "base" in rows["model"] else ""
        found.append(style.Figure(
            f"attention-map-{one.number}-{place}", f"L{layer}H{head} on row {row_id}", parts.map_panels(rows),
            "Attention itself: queries down, keys across, named by the tokens.", HOW_MAP if place == 0 else "",
            style.Scale("blues", "0", "0.5", "1"), folded=place > 0,
            shows=f"What head {head} of layer {layer} attends to in one text{when}.",
            high="The token down the side reads the token along the bottom", measured="Attention of one text",
        ))  # fmt: skip
    return found


def _figures(one: Drawing) -> list[style.Figure]:
    figures = []
    apart, top = attention.divergence_panels(one.rows)
    if apart:
        scale = style.Scale("blues", "0 bits", number(top / 2), f"{number(top)} bits of at most 1")
        caption = (
            f"Jensen-Shannon and Kullback-Leibler divergence of base and tuned attention on the same tokens, mean over "
            f"queries, then over {one.on}; the scale is that of the first. Hover: 95 % interval over texts, and how "
            "far two heads of that layer of the base are apart."
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
