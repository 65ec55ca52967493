"""The figures of the page, chosen and captioned from what the run holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.figures import ablation, depth, geometry, probes, similarity, style, training
from tunescope.report.figures.select import only, seeds, values
from tunescope.report.read import LensResult, RunFolder, require
from tunescope.report.text import listed, plural, signed
from tunescope.report.trust import base_heads, rows_said

PARTS_SET = {"zero": "set to zero", "mean": "set to their mean"}
CKA_SCALE = style.Scale("cividis", "0 (nothing in common)", "0.5", "1 (same geometry)")
SHARE_SCALE = style.Scale("blues", "0 % of the true class", "50 %", "100 %")
HOW_CKA = (
    "A cell compares the rows' geometry at two places. 1: the same up to rotation and scale; 0: nothing "
    "in common. In the middle map, a diagonal that fades with depth says from where on tuning "
    "changed the representation."
)
VARIANTS_CAPTION = (
    "CKA of base against tuned at the same site: as it is, with every dimension divided by its standard deviation, and "
    "without each site's dimensions of greatest variance. Grey: rows shuffled."
)
HOW_VARIANTS = "Where only the first panel is high, a few loud dimensions make the models look alike."
BOW_TIE_CAPTION = (
    "Mean CKA of layers within the first and within the second half of the depth, minus that between the halves. Grey: "
    "base; coloured: tuned; diamonds: the change. 95 % intervals leave groups of rows out, the same for all."
)
HOW_BOW_TIE = (
    "A map that fades with distance has a bow-tie without any halves, so read the pairs at equal distance, and the "
    "change, not the size. Where standardising takes it away, a few loud dimensions made it."
)
HOW_HEADS = (
    "Red: without this head the true class loses margin, so the head helps; blue: without it the model "
    "does better. A dot marks q ≤ 0.05 after correction over all heads. Compare tuned with base: what is "
    "red only in tuned was recruited by tuning."
)


@dataclass(frozen=True)
class Group:
    """Figures of one arm and seed; ``main`` groups are open, the others folded."""

    title: str
    main: bool
    figures: tuple[style.Figure, ...]


def depth_figure(run: RunFolder) -> style.Figure | None:
    """Return the depth strip, or None where the run holds neither CKA nor ablation."""
    arms = run.arm_names
    lanes: list[depth.Lane | None] = []
    said = []
    if "cka" in run.results:
        table = checked(run.results["cka"], similarity.COLUMNS)
        lanes.append(depth.cka_lane(table, arms))
        said.append(f"CKA on {rows_said(run.results['cka']) or 'rows not recorded'}")
    if "ablation" in run.results:
        table = checked(run.results["ablation"], ablation.COLUMNS)
        edit = strip_edit(table)
        lanes += [
            depth.sublayer_lane(table, arms, "attn_out", "attention", edit),
            depth.sublayer_lane(table, arms, "mlp_out", "MLP", edit),
            depth.head_lane(table, arms, edit),
        ]
        rows = rows_said(run.results["ablation"]) or "rows not recorded"
        said.append(f"parts {PARTS_SET.get(edit, edit)} on {rows}")
    kept = [lane for lane in lanes if lane is not None]
    if not kept:
        return None
    caption = (
        f"{_sentence('; '.join(said))} Solid: tuned, with 95 % interval{_seed_words(run)}. Dotted with open "
        "marks: base. Grey band: control (rows shuffled for CKA; a random direction of equal norm for "
        "ablation). The strongest head is picked on the rows it is shown on, so its size is flattering."
    )
    return style.Figure("depth", "Layer by layer", (depth.depth_strip(kept),), caption)


def inside_sentence(run: RunFolder) -> list[tuple[str, bool]]:
    """Return where tuning changed the representation most, as pieces of a sentence; empty without CKA."""
    result = run.results.get("cka")
    lane = None if result is None else depth.cka_lane(checked(result, similarity.COLUMNS), run.arm_names)
    pieces: list[tuple[str, bool]] = []
    for line in lane.lines[:3] if lane else ():
        layer, point = min(line.points.items(), key=lambda item: item[1].value or 0.0)
        place = lane.names.get(layer, f"L{layer}") if lane else ""
        pieces += [
            (", " if pieces else "Inside, ", False),
            (f"{line.name} is least like its base at {place}, CKA ", False),
        ]
        pieces.append((str(point), True))
    return [*pieces, (".", False)] if pieces else []


def strip_edit(table: pl.DataFrame) -> str:
    """Return the edit that the strip shows: ``mean`` where it was run, for it stays nearer to real states."""
    edits = values(table, "edit")
    return "mean" if "mean" in edits or not edits else str(edits[0])


def _seed_words(run: RunFolder) -> str:
    return "" if len(run.seeds) < 2 else f" from the lowest to the highest of {len(run.seeds)} seeds"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def checked(result: LensResult, wanted: tuple[str, ...]) -> pl.DataFrame:
    """Return the table after checking that it has the columns that its figures read."""
    require(result.table, wanted, f"results/{result.lens}.parquet")
    return result.table


def training_figure(run: RunFolder) -> style.Figure | None:
    """Return loss and accuracy over epochs for every arm and seed that logged."""
    logs = {(item.arm, item.seed): item.log for item in run.arms if item.log and item.arm in run.arm_names}
    panels = training.curve_panels(logs, run.arm_names)
    if not panels:
        return None
    many = f", {plural(len(run.seeds), 'seed')} as lines of one colour" if len(run.seeds) > 1 else ""
    caption = (
        f"As logged while training {plural(len({arm for arm, _ in logs}), 'arm')}{many}. Training loss is "
        "of the batch (or the mean since the last log); validation values are over all validation rows, "
        "without intervals."
    )
    return style.Figure("training", "Loss and accuracy over epochs", panels, caption)


def confusion_figure(run: RunFolder) -> style.Figure | None:
    """Return one confusion matrix per arm, for the headline split and the first seed."""
    panels = []
    for arm in run.arm_names:
        for trained in run.of(arm):
            matrix = ((trained.metrics or {}).get("confusion") or {}).get(run.split)
            if matrix:
                title = arm if len(run.of(arm)) == 1 else f"{arm}, seed {trained.seed}"
                panels.append(training.confusion_panel(matrix, run.labels, title))
                break
    if not panels:
        return None
    caption = (
        f"Rows of {run.split}, true classes down, predictions across. Numbers are counts; colour is the "
        "share of the true class. No interval: those of recall and precision stand under Metrics."
    )
    how = "A dark diagonal is right; a dark cell elsewhere is a pair of classes taken for one another."
    return style.Figure("confusion", "What is taken for what", tuple(panels), caption, how, SHARE_SCALE)


def cka_groups(run: RunFolder) -> list[Group]:
    """Return the CKA maps, one group per arm and seed."""
    result = run.results.get("cka")
    if result is None:
        return []
    table = checked(result, similarity.COLUMNS)
    groups: list[Group] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        panels = similarity.cka_panels(rows)
        if panels:
            caption = (
                f"Linear CKA of {arm}{_of_seed(seed, table)} on {rows_said(result) or 'rows not recorded'}. "
                "The hover gives each cell's 95 % interval, its n, and the control: the same pair with "
                "rows shuffled."
            )
            figures = [style.Figure(f"cka-{len(groups)}", "", panels, caption, HOW_CKA, CKA_SCALE)]
            variants = geometry.variant_panels(rows, style.arm_colour(run.arm_names, arm))
            if variants:
                title = "The same with dimensions made equal"
                key = f"cka-variants-{len(groups)}"
                figures.append(style.Figure(key, title, variants, VARIANTS_CAPTION, HOW_VARIANTS))
            ties = probes.bow_tie_panels(rows, style.arm_colour(run.arm_names, arm))
            if ties:
                key = f"bow-tie-{len(groups)}"
                figures.append(style.Figure(key, "Bow-tie", ties, BOW_TIE_CAPTION, HOW_BOW_TIE))
            groups.append(Group(group_title(arm, seed, table), main, tuple(figures)))
    return groups


def ablation_groups(run: RunFolder) -> list[Group]:
    """Return sublayer bars, head maps and classes per layer, one group per arm and seed."""
    result = run.results.get("ablation")
    if result is None:
        return []
    table = checked(result, ablation.COLUMNS)
    groups: list[Group] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        figures = _ablation_figures(run, result, rows, arm, f"{len(groups)}")
        if figures:
            groups.append(Group(group_title(arm, seed, table), main, tuple(figures)))
    return groups


def _ablation_figures(
    run: RunFolder, result: LensResult, rows: pl.DataFrame, arm: str, key: str
) -> list[style.Figure]:
    on = rows_said(result) or "rows not recorded"
    colour = style.arm_colour(run.arm_names, arm)
    heads = base_heads(rows)
    base = f"Base logits come from its {listed(heads)} head. " if heads else ""
    figures = []
    for metric in values(rows, "metric"):
        name = ablation.METRIC_NAMES.get(metric, str(metric))
        folded = metric != "margin_change"
        bars = ablation.sublayer_panels(rows, metric, colour)
        if bars:
            caption = (
                f"{_sentence(name)} Mean over {on}; whiskers are 95 % intervals over rows, diamonds the "
                f"control, a random direction of equal norm. Grey: base; coloured: tuned. {base}"
            )
            title = f"Sublayers: {name}"
            figures.append(style.Figure(f"sublayers-{key}-{metric}", title, bars, caption, folded=folded))
        panels, limit = ablation.head_panels(rows, metric)
        if panels:
            scale = _effect_scale(limit)
            caption = (
                f"{_sentence(name)} Mean over {on}, all maps on one scale. {base}Hover: 95 % interval, p, "
                "q, n and control (a random direction of equal norm)."
            )
            title = f"Heads: {name}"
            figures.append(
                style.Figure(f"heads-{key}-{metric}", title, panels, caption, HOW_HEADS, scale, folded=folded)
            )
    edit = strip_edit(rows)
    panels, limit = ablation.class_panels(rows, run.labels, edit)
    if panels:
        caption = (
            f"Change of the logit margin of the true class, rows of each class apart, on {on}. Hover: 95 % "
            "interval, p, q and n. Control: the random directions in the bars above, over all classes."
        )
        how = "A column that is red at one layer only is a class that needs that layer."
        scale = _effect_scale(limit)
        figures.append(style.Figure(f"classes-{key}", "Classes by layers", panels, caption, how, scale))
    return figures


def _effect_scale(limit: float) -> style.Scale:
    return style.Scale(
        "diverging", f"{signed(-limit, 2)} (taking it out hurts)", "0", f"{signed(limit, 2)} (helps)"
    )


def arm_seeds(table: pl.DataFrame, arms: Sequence[str]) -> list[tuple[str, int, pl.DataFrame, bool]]:
    """Return (arm, seed, its rows, whether it is the arm's first seed) in the order of the arms."""
    found: list[tuple[str, int, pl.DataFrame, bool]] = []
    for arm in arms:
        own = only(table, arm=arm)
        for index, seed in enumerate(seeds(own) if own.height else []):
            rows = only(own, seed=seed) if values(own, "seed") else own
            found.append((arm, seed, rows, index == 0))
    return found


@dataclass(frozen=True)
class Drawing:
    """What a section draws one training from: its rows, its colour, its number on the page, and the rows looked at."""

    rows: pl.DataFrame
    colour: str
    number: int
    on: str


def lens_sections(
    run: RunFolder, lens: str, columns: tuple[str, ...], draw: Callable[[Drawing], Sequence[style.Figure]]
) -> list[Group]:
    """Return what ``draw`` makes of every arm and seed of a lens; trainings without figures are left out."""
    result = run.results.get(lens)
    if result is None:
        return []
    table = checked(result, columns)
    on = rows_said(result) or "rows not recorded"
    groups: list[Group] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        figures = draw(Drawing(rows, style.arm_colour(run.arm_names, arm), len(groups), on))
        if figures:
            groups.append(Group(group_title(arm, seed, table), main, tuple(figures)))
    return groups


def _of_seed(seed: int, table: pl.DataFrame) -> str:
    return f", seed {seed}" if len(seeds(table)) > 1 else ""


def group_title(arm: str, seed: int, table: pl.DataFrame) -> str:
    """Return an arm's name, with its seed where the table holds several."""
    return f"{arm}{_of_seed(seed, table)}"


def payload(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure ready for JSON."""
    return dict(style.clean(figure))
