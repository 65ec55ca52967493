"""The section on ablation: heads, sublayers, sets, removal curves, picks, seeds, and study 000 as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.evidence import Drawing, Group, lens_sections, strip_edit
from tunescope.report.figures import ablation, style
from tunescope.report.figures import ablation_more as more
from tunescope.report.figures.select import only, values
from tunescope.report.read import LensResult, RunFolder
from tunescope.report.text import finite, interval, listed, number, probability, signed
from tunescope.report.trust import base_heads

HOW_HEADS = (
    "Red: without this head the true class loses margin, so the head helps; blue: without it the model "
    "does better. Compare tuned with base: what is red only in tuned was recruited by tuning."
)
HOW_TOKENS = (
    "Red: without this head the true tokens become less likely, the loss rises; blue: the model does better without. "
    "Compare tuned with base: what is red only in tuned was recruited by tuning."
)
PRIMARY = {
    "margin_change": HOW_HEADS,
    "log_likelihood_change": HOW_TOKENS,
}  # of classifiers, of language models
HOW = PRIMARY | {
    "probability_change": "Red: without this head the true class loses probability; blue: it gains.",
    "predicted_margin_change": "Red: without this head the model is less sure of what it predicted; blue: surer.",
    "kl": "Never below 0 in one model: the stronger the colour, the further answers move without this head, for better "
    "or worse. Tuned minus base is blue where tuned answers move further.",
    "flip": "Never below 0 in one model: the stronger the colour, the more first answers change without this head, for "
    "better or worse. Tuned minus base is blue where more change in tuned.",
}
UNSIGNED = ("kl", "flip")
ADJUSTED = {
    "bh": "q is Benjamini and Hochberg's, over all components of one edit.",
    "max_t": "q is the p value adjusted by permutation of the largest |t| over all components of one edit.",
}
HOW_REMOVAL = (
    "Components were ranked on one half of the rows, and the curves are of the other. Where taking the least important "
    "out costs nothing for long, few components do the work; grey: random orders, the control."
)
HOW_SEEDS = (
    "On the dotted line a component matters as much in both trainings. Filled: the difference is clear of chance (q ≤ "
    "0.05). A head far out in one seed alone belongs to that training, not to the task."
)
HOW_PUBLISHED = (
    "Study 000 printed the first panel as the effect of 'heads'. Its mask zeroed one bias vector a block, and every "
    "column held the probability of one class; the other panels are what the columns and lines should have been."
)


@dataclass(frozen=True)
class _Section:
    """What all figures of the section share: the lens's result and the classes in order."""

    run: RunFolder
    result: LensResult


def ablation_groups(run: RunFolder) -> list[Group]:
    """Return everything that the lens measured, one group per arm and seed."""
    result = run.results.get("ablation")
    if result is None:
        return []
    section = _Section(run, result)
    return lens_sections(run, "ablation", ablation.COLUMNS, lambda one: _figures(section, one))


def _figures(section: _Section, one: Drawing) -> list[style.Figure]:
    heads = base_heads(one.rows)
    base = f"Base logits come from its {listed(heads)} head. " if heads else ""
    options = section.result.provenance.get("options") or {}
    adjusted = ADJUSTED.get(str(options.get("correction", "bh")), "")
    found: list[style.Figure] = []
    for metric in ablation.shown_metrics(one.rows):
        found += _singles(one, metric, base, adjusted)
    return [
        *found,
        *_classes(section, one),
        *_split_half(one, base),
        *_removal(one, base),
        *_all_but_one(one, base),
        *_others(one, base, adjusted),
        *_seeds(one),
        *_screen(one),
        *_published(section, one),
    ]


def _singles(one: Drawing, metric: str, base: str, adjusted: str) -> list[style.Figure]:
    name = ablation.METRIC_NAMES.get(metric, metric.replace("_", " "))
    said, folded = f"{name[:1].upper()}{name[1:]}.", metric not in PRIMARY
    found = []
    moved = ablation.no_op(one.rows, metric)
    nothing = (
        "" if moved is None else f"A change of nothing, block by block, moves it by {moved:.1g} at most. "
    )
    bars = ablation.sublayer_panels(one.rows, metric, one.colour)
    if bars:
        caption = (
            f"{said} Mean over {one.on}; whiskers are 95 % intervals over rows, diamonds the control, a random "
            f"direction of equal norm (drawn for the first edit). {nothing}Grey: base; coloured: tuned. {base}"
        )
        title = f"Sublayers: {name}"
        found.append(style.Figure(f"sublayers-{one.number}-{metric}", title, bars, caption, folded=folded))
    panels, limit = ablation.head_panels(one.rows, metric)
    if panels:
        caption = (
            f"{said} Mean over {one.on}, all maps on one scale. {base}A dot marks q ≤ 0.05. {adjusted} The control: "
            "in each head's place a random direction as long as the edit's change (drawn for the first edit). "
            f"{nothing}Hover: 95 % interval, p, q, n and control."
        )
        key, title = f"heads-{one.number}-{metric}", f"Heads: {name}"
        found.append(
            style.Figure(key, title, panels, caption, HOW.get(metric, ""), _scale(limit, metric), folded)
        )
    return found


def _scale(limit: float, metric: str = "margin_change") -> style.Scale:
    said = ("answers move less than in the base", "answers move") if metric in UNSIGNED else (
        "taking it out hurts", "helps"
    )  # fmt: skip
    return style.Scale(
        "diverging", f"{signed(-limit, 2)} ({said[0]})", "0", f"{signed(limit, 2)} ({said[1]})"
    )


def _classes(section: _Section, one: Drawing) -> list[style.Figure]:
    found = []
    edit = strip_edit(one.rows)
    panels, limit = ablation.class_panels(one.rows, section.run.labels, edit)
    if panels:
        caption = (
            f"Change of the logit margin of the true class, rows of each class apart, on {one.on}. Hover: 95 % "
            "interval, p, q and n. Control: the random directions in the bars above, over all classes."
        )
        how = "A column that is red at one layer only is a class that needs that layer."
        found.append(
            style.Figure(f"classes-{one.number}", "Classes by layers", panels, caption, how, _scale(limit))
        )
    rows = only(one.rows, **{"class": None}, metric="class_probability_change", model="tuned", edit=edit)
    rows = rows.filter(pl.col("site").is_in(list(ablation.SUBLAYERS)))
    if rows.height:
        randoms, rows = only(rows, control="random"), only(rows, control="none")
        limit = _largest(rows)
        columns = _ordered(section.run.labels, values(rows, "of"))
        said = ablation.EDIT_NAMES.get(edit, edit)
        drawn = tuple(
            more.column_map(own, columns, "of", f"{name} {said}, tuned", limit, only(randoms, site=site))
            for site, name in ablation.SUBLAYERS.items()
            if (own := only(rows, site=site)).height
        )
        caption = (
            f"Mean change of every class's probability over {one.on}; a line sums to 0. Hover: 95 % interval, p, q, n "
            "and control (a random direction of equal norm)."
        )
        title = "Where the probability goes: layers by classes"
        key = f"probabilities-{one.number}"
        found.append(style.Figure(key, title, drawn, caption, scale=_scale(limit), folded=True))
    return found


def _largest(rows: pl.DataFrame) -> float:
    return max((abs(v) for v in map(finite, rows["value"]) if v is not None), default=0.0) or 1e-9


def _ordered(labels: Sequence[str], known: Sequence[str]) -> list[str]:
    return [name for name in labels if name in known] + [name for name in known if name not in labels]


def _split_half(one: Drawing, base: str) -> list[style.Figure]:
    panels = [
        more.list_panel(f"{ablation.EDIT_NAMES.get(edit, edit)}", more.picks(one.rows, edit), one.colour)
        for edit in ablation.edits(one.rows)
    ]
    kept = tuple(panel for panel in panels if panel is not None)
    if not kept:
        return []
    caption = (
        "Change of the logit margin. Each component was picked on one half of the rows (by text) and is shown on the "
        f"other, so its size is not inflated by the pick. Bars: 95 % intervals; diamonds: a random direction of equal "
        f"norm on the same rows (drawn for the first edit). Open: base. {base}"
    )
    title = "Picked on one half of the rows, shown on the other"
    return [style.Figure(f"picks-{one.number}", title, kept, caption)]


def _removal(one: Drawing, base: str) -> list[style.Figure]:
    found = []
    for metric in ablation.shown_metrics(one.rows):
        panels = more.removal_panels(one.rows, one.colour, metric)
        if panels:
            n = only(one.rows, scope="removal", metric=metric)["n"].max()
            name = ablation.METRIC_NAMES.get(metric, metric)
            caption = (
                f"{name.capitalize()} as more and more is removed, on {number(n)} rows. Solid: strongest first; "
                f"dashed: least important first; grey: random orders. Bars: 95 % intervals. {base}"
            )
            key, folded = f"removal-{one.number}-{metric}", metric not in PRIMARY
            title = f"Removed one after another: {name}"
            found.append(style.Figure(key, title, panels, caption, HOW_REMOVAL, folded=folded))
    return found


def _all_but_one(one: Drawing, base: str) -> list[style.Figure]:
    panels, limit = ablation.head_panels(one.rows, "margin_change", "all_but_one:head_out")
    if not panels:
        return []
    caption = (
        f"Change of the logit margin when every head but this one is taken out, mean over {one.on}, on one scale. "
        f"{base}Hover: 95 % interval, p, q and n. Control: the same head taken out alone, above."
    )
    how = "The least red head carries most by itself; where all are alike, no single head does the task."
    key, title = f"all-but-one-{one.number}", "All heads but one"
    return [style.Figure(key, title, panels, caption, how, _scale(limit))]


def _others(one: Drawing, base: str, adjusted: str) -> list[style.Figure]:
    panels = []
    for edit in ablation.edits(one.rows):
        for kind, entries in more.others(one.rows, edit, "margin_change").items():
            kept = [entry for entry in entries if not _is_head(entry[1]["tuned"])]
            panel = more.list_panel(f"{kind}: {ablation.EDIT_NAMES.get(edit, edit)}", kept, one.colour)
            if panel is not None:
                panels.append(panel)
    if not panels:
        return []
    caption = (
        f"Change of the logit margin over {one.on}, with 95 % intervals. Filled: tuned; open: base; diamonds: a random "
        f"direction of equal norm. {base}{adjusted} Of more than {more.SHOWN} the largest are shown; the table has all."
    )
    return [style.Figure(f"sets-{one.number}", "Sets, places and pairs", tuple(panels), caption)]


def _is_head(record: dict[str, Any]) -> bool:
    """Whether an entry stands in the map of all heads but one already."""
    return record["site"] == "all_but_one:head_out"


def _seeds(one: Drawing) -> list[style.Figure]:
    edits = values(only(one.rows, model="tuned_seeds"), "edit")
    panels = more.seed_panels(one.rows, str(edits[0])) if edits else ()
    if not panels:
        return []
    said = []
    for record in only(one.rows, metric="seed_rank_correlation").iter_rows(named=True):
        name = {"head_out": "heads", "attn_out": "attention", "mlp_out": "MLPs"}[record["site"]]
        against = f"seed {record['seed_other']}" if record["control"] == "none" else "its own base"
        said.append(
            f"{name} against {against} {interval(record['value'], record['low'], record['high'])} "
            f"(p {probability(record['p'])})"
        )
    caption = (
        f"Change of the margin of the same component in two trainings that differ in the seed alone, on {one.on}, "
        f"{ablation.EDIT_NAMES.get(str(edits[0]), str(edits[0]))}; bars are 95 % intervals of the difference. "
        f"Rank correlations of the maps: {'; '.join(said)}."
    )
    return [style.Figure(f"seeds-{one.number}", "The same in another seed", panels, caption, HOW_SEEDS)]


def _screen(one: Drawing) -> list[style.Figure]:
    """How well the screen by attribution ranked; its estimates themselves are never shown."""
    found = only(one.rows, metric="screen_rank_correlation")
    names = {"graddrop": "attribution with GradDrop", "plain": "plain attribution"}
    entries = [
        (names.get(r["by"], str(r["by"])), {"tuned": r})
        for r in found.iter_rows(named=True)
        if finite(r["value"]) is not None
    ]
    panel = more.list_panel("rank correlation with exact effects", entries, one.colour)
    if panel is None:
        return []
    first = found.row(0, named=True)
    worst, rank = (only(one.rows, metric=f"screen_worst_miss{kind}") for kind in ("", "_rank"))
    missed = "It missed nothing that was run."
    if worst.height and rank.height:
        record = worst.row(0, named=True)
        missed = (
            f"Its worst miss is {record['component']}, {interval(record['value'], record['low'], record['high'])} "
            f"logits of margin, number {number(rank['value'][0])} of all by exact effect."
        )
    over = f" ({first['note']})" if first["note"] else ""
    caption = (
        f"Attribution patching passed on the {first['step']} best components{over}; effects elsewhere on this page are "
        f"exact. {missed} GradDrop is AtP*'s correction; its other, for queries and keys, applies to none of these "
        f"components. Bars: 95 % intervals over {number(first['n'])} rows."
    )
    return [
        style.Figure(f"screen-{one.number}", "How well the screen ranked", (panel,), caption, folded=True)
    ]


def _published(section: _Section, one: Drawing) -> list[style.Figure]:
    rows = one.rows.filter(
        pl.col("metric").is_in(["published_probability_change", "predicted_probability_change"])
    )
    if rows.is_empty():
        return []
    columns = _ordered(section.run.labels, values(rows, "class"))
    read = values(only(rows, metric="published_probability_change"), "of")[0]
    drawn = (
        ("published_probability_change", ["attention_bias", "all_but_one:attention_bias"],
         f"As published: bias zeroed, P({read}) in every column"),
        ("predicted_probability_change", ["attention_bias", "all_but_one:attention_bias"],
         "The same bias, each column's own class"),
        ("predicted_probability_change", ["attn_out"], "The attention sublayer zeroed, own class"),
    )  # fmt: skip
    panels = []
    for metric, sites, title in drawn:
        cells = only(rows, metric=metric).filter(pl.col("site").is_in(sites))
        own, randoms = only(cells, control="none"), only(cells, control="random")
        if own.height:
            panels.append(more.column_map(own, columns, "class", title, 1.0, randoms))
    strongest = _strongest_heads(only(rows, metric="predicted_probability_change", site="head_out"))
    if strongest.height:
        own, randoms = only(strongest, control="none"), only(strongest, control="random")
        title = "Each layer's strongest head zeroed, own class"
        panels.append(more.column_map(own, columns, "class", title, 1.0, randoms))
    caption = (
        f"Mean change of a probability over the rows of each predicted class ({one.on}); all panels on one scale. The "
        "last line of the bias panels is all biases but the first block's, zeroed together. Heads are picked by the "
        "mean over classes on the rows shown, so their size is flattering. Hover: 95 % interval, p, q, n and a random "
        "direction of equal norm where one was drawn."
    )
    title, scale = "Study 000 as published, and as it was meant", _scale(1.0)
    return [style.Figure(f"published-{one.number}", title, tuple(panels), caption, HOW_PUBLISHED, scale)]


def _strongest_heads(rows: pl.DataFrame) -> pl.DataFrame:
    """Return of every layer the head whose loss costs the predicted classes most probability on average."""
    means = (
        only(rows, control="none")
        .group_by("layer", "component").agg(pl.col("value").mean().alias("mean")).sort("mean", "component")
    )  # fmt: skip
    best = means.group_by("layer", maintain_order=True).first()["component"].to_list()
    return rows.filter(pl.col("component").is_in(best))
