"""The figures of the page, chosen and captioned from what the run holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tunescope.report.figures import geometry, probes, similarity, style, training
from tunescope.report.figures.select import only, seeds, values
from tunescope.report.read import LensResult, RunFolder, require
from tunescope.report.readings import told
from tunescope.report.stacks import by_stack
from tunescope.report.text import plural
from tunescope.report.trust import ROWLESS, rows_said

EXACT = "every entry of the weights, no rows"
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
BAND_CAPTION = " Grey band: tuned models of two seeds of this arm, from end to end of their intervals."
HOW_VARIANTS = "Where only the first panel is high, a few loud dimensions make the models look alike."
BOW_TIE_CAPTION = (
    "Mean CKA of layers within the first and within the second half of the depth, minus that between the halves. Grey: "
    "base; coloured: tuned; diamonds: the change. 95 % intervals leave groups of rows out, the same for all."
)
HOW_BOW_TIE = (
    "A map that fades with distance has a bow-tie without any halves, so read the pairs at equal distance, and the "
    "change, not the size. Where standardising takes it away, a few loud dimensions made it."
)


@dataclass(frozen=True)
class ShadedWord:
    """A word of a worked example: its text, the class that shades it, and its effect in words."""

    text: str
    shade: str
    effect: str


@dataclass(frozen=True)
class WorkedExample:
    """One row word by word, in one model."""

    model: str
    row_id: str
    true: str
    predicted: str
    words: tuple[ShadedWord, ...]


@dataclass(frozen=True)
class Group:
    """Figures of one arm and seed, sentences and worked examples under them; ``main`` is open, others folded."""

    title: str
    main: bool
    figures: tuple[style.Figure, ...]
    checks: tuple[str, ...] = ()
    examples: tuple[WorkedExample, ...] = ()


Placed = tuple[str, str, style.Figure]


def all_figures(run: RunFolder) -> list[Placed]:
    """Return every figure of a run as (anchor of its section, title of its group, figure), in the page's order.

    The group's title is the arm, with seed or stack where there are several; empty for figures of all arms together.
    """
    # Their modules draw with what this one offers.
    from tunescope.report import arms, behaviour, costs, grids, model_diagram, slices, strip
    from tunescope.report.sections import sections

    found_grids, found_behaviour = grids.grids(run), behaviour.behaviour(run)
    alone = [
        ("answer", strip.depth_figure(run)),
        ("choice", arms.trade_off_figure(run, arms.arms(run))),
        *(("grids", one.figure) for one in (found_grids.grids if found_grids else ())),
        *(("training", figure) for figure in model_diagram.model_figures(run)),
        ("training", training_figure(run)),
        ("training", costs.memory_figure(run)),
        ("metrics", slices.reliability_figure(run)),
        ("errors", confusion_figure(run)),
    ]
    placed: list[Placed] = [(anchor, "", figure) for anchor, figure in alone if figure is not None]
    for part in found_behaviour.parts if found_behaviour else ():
        placed += [("behaviour", part.title, figure) for figure in part.figures]
    for section in sections(run):
        placed += [(section.anchor, group.title, one) for group in section.groups for one in group.figures]
    return [(anchor, title, told(figure)) for anchor, title, figure in placed]


def strip_edit(table: pl.DataFrame) -> str:
    """Return the edit that the strip shows: ``mean`` where it was run, for it stays nearer to real states."""
    edits = values(table, "edit")
    return "mean" if "mean" in edits or not edits else str(edits[0])


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
    return lens_sections(run, "cka", similarity.COLUMNS, _cka_figures)


def _cka_figures(one: Drawing) -> list[style.Figure]:
    panels = similarity.cka_panels(one.rows)
    if not panels:
        return []
    caption = (
        f"Linear CKA of {one.title} on {one.on}. The hover gives each cell's 95 % interval, "
        "its n, and the control: the same pair with rows shuffled."
    )
    figures = [style.Figure(f"cka-{one.number}", "", panels, caption, HOW_CKA, CKA_SCALE)]
    band = only(one.table, arm=one.arm, model="tuned_seeds")
    variants = geometry.variant_panels(one.rows, one.colour, band)
    if variants:
        said = VARIANTS_CAPTION + (BAND_CAPTION if band.height else "")
        title = "The same with dimensions made equal"
        figures.append(style.Figure(f"cka-variants-{one.number}", title, variants, said, HOW_VARIANTS))
    ties = probes.bow_tie_panels(one.rows, one.colour)
    if ties:
        figures.append(style.Figure(f"bow-tie-{one.number}", "Bow-tie", ties, BOW_TIE_CAPTION, HOW_BOW_TIE))
    return figures


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
    """What a section draws one training from.

    Attributes:
        rows: The rows of this arm and seed.
        colour: The arm's.
        number: The section's number on the page.
        on: The rows looked at, in words.
        arm: The arm.
        title: The arm, with its seed where there are several.
        table: The whole table of the lens.
    """

    rows: pl.DataFrame
    colour: str
    number: int
    on: str
    arm: str
    title: str
    table: pl.DataFrame


def lens_sections(
    run: RunFolder, lens: str, columns: tuple[str, ...], draw: Callable[[Drawing], Sequence[style.Figure]]
) -> list[Group]:
    """Return what ``draw`` makes of every arm and seed of a lens; trainings without figures are left out."""
    result = run.results.get(lens)
    if result is None:
        return []
    table = checked(result, columns)
    on = EXACT if lens in ROWLESS else rows_said(result) or "rows not recorded"
    groups: list[Group] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        for stack, part in by_stack(rows):
            title = group_title(arm, seed, table) + ("" if stack is None else f", {stack}")
            figures = draw(
                Drawing(part, style.arm_colour(run.arm_names, arm), len(groups), on, arm, title, table)
            )
            figures = [one for one in figures if _has_marks(one)]
            if figures:
                groups.append(Group(title, main, measured(figures, title, on)))
    return groups


def _has_marks(figure: style.Figure) -> bool:
    """Whether there is anything to see: a map of a model that tuning left as it was may hold no number."""
    for trace in (trace for panel in figure.panels for trace in panel.figure["data"]):
        if trace["type"] == "heatmap":
            found = any(value is not None for line in trace["z"] for value in line)
        else:
            found = trace.get("hoverinfo") != "skip" and len(trace.get("y") or trace.get("x") or ()) > 0
        if found:
            return True
    return False


def measured(figures: Sequence[style.Figure], title: str, on: str) -> tuple[style.Figure, ...]:
    """Return figures that say on which model and rows they were measured, where they did not say it yet."""
    return tuple(replace(one, measured=one.measured or f"{title}, on {on}.") for one in figures)


def _of_seed(seed: int, table: pl.DataFrame) -> str:
    return f", seed {seed}" if len(seeds(table)) > 1 else ""


def group_title(arm: str, seed: int, table: pl.DataFrame) -> str:
    """Return an arm's name, with its seed where the table holds several."""
    return f"{arm}{_of_seed(seed, table)}"


def payload(figure: dict[str, Any]) -> dict[str, Any]:
    """Return a figure ready for JSON."""
    return dict(style.clean(figure))
