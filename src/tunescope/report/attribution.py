"""The sections on who wrote the answer: the logit lens, direct attribution, and words."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.report.evidence import (
    Drawing,
    Group,
    ShadedWord,
    WorkedExample,
    arm_seeds,
    checked,
    group_title,
    lens_sections,
    measured,
)
from tunescope.report.figures import attribution, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder
from tunescope.report.stacks import by_stack
from tunescope.report.text import finite, number, signed
from tunescope.report.trust import rows_said

HOW_LENS = (
    "Where the tuned curve has reached its end early, later layers add little that this head can read. A low curve "
    "does not prove that a layer knows nothing: only that the final head cannot read it there. Dotted: labels (for the "
    "last panel: answers) dealt to the rows at random."
)
HOW_DIRECT = (
    "Blue: the part writes towards the true class, red: against it. A dot marks q ≤ 0.05 after correction over all "
    "parts. Shares add up to the logits; what a part does through later blocks is not in them."
)
HOW_WORDS = (
    "A word far to the right speaks for the class: without it the class loses that much margin. Filled: q ≤ 0.05 after "
    "correction over words and classes. What is right only in tuned was learnt by tuning."
)
STEPS = 4  # shades of each colour in worked examples


def lens_groups(run: RunFolder) -> list[Group]:
    """Return the logit lens over depth, one group per arm and seed."""
    return lens_sections(run, "logit_lens", attribution.LENS_COLUMNS, _lens_figures)


def _lens_figures(one: Drawing) -> list[style.Figure]:
    panels = attribution.lens_panels(one.rows, one.colour)
    if panels:
        caption = (
            f"The model's own head read at every layer, on {one.on}, with 95 % "
            f"intervals. Grey: base; coloured: tuned. {_settled(one.rows)}"
        )
        figure = style.Figure(
            f"logit-lens-{one.number}", "The answer, layer by layer", panels, caption, HOW_LENS
        )
        return [figure]
    return []


def _settled(rows: pl.DataFrame) -> str:
    said = []
    for record in only(rows, metric="settled_layer").iter_rows(named=True):
        if record["model"] in ("base", "tuned") and finite(record["value"]) is not None:
            layer = "the embeddings" if record["value"] < 0 else f"layer {record['value']:.0f}"
            said.append(f"{record['model']} from {layer}")
    return f"Within the stated distance of the final accuracy: {', '.join(said)}." if said else ""


def direct_groups(run: RunFolder) -> list[Group]:
    """Return maps of direct attribution, one group per arm and seed."""
    result = run.results.get("attribution_direct")
    if result is None:
        return []
    table = checked(result, attribution.DIRECT_COLUMNS)
    on = rows_said(result) or "rows not recorded"
    groups: list[Group] = []
    parts = (
        (arm, seed, part, main, stack)
        for arm, seed, every, main in arm_seeds(table, run.arm_names) for stack, part in by_stack(every)
    )  # fmt: skip
    for arm, seed, rows, main, stack in parts:
        figures = []
        panels, limit = attribution.direct_panels(rows)
        unit = "class" if values(rows, "class") else "token"  # language models have no classes
        if panels:
            caption = (
                f"Mean share in the true {unit}'s logit over the mean of the others, on {on}, all maps on one scale. "
                f"Hover: 95 % interval, p, q, n, and a random vector of equal norm. {_rest(rows)}"
            )
            title = "Who writes the answer"
            key = f"direct-{len(groups)}"
            how = HOW_DIRECT.replace("class", unit)
            figures.append(style.Figure(key, title, panels, caption, how, _scale(limit, unit)))
        classes = [name for name in run.labels or values(rows, "class") if name in values(rows, "class")]
        panels, limit = attribution.direct_panels(rows, classes[: attribution.SHOWN_CLASSES], ("tuned",))
        if panels:
            caption = f"The same for the rows of each true class apart, tuned model, on {on}."
            key = f"direct-classes-{len(groups)}"
            figures.append(
                style.Figure(key, "By true class", panels, caption, scale=_scale(limit), folded=True)
            )
        if figures:
            title = group_title(arm, seed, table) + ("" if stack is None else f", {stack}")
            groups.append(Group(title, main, measured(figures, title, on)))
    return groups


def _rest(rows: pl.DataFrame) -> str:
    """Say what the embeddings and the constant write, which have no place on the map."""
    said = []
    for site, name in (("embeddings", "Embeddings"), ("constant", "biases of norms and head")):
        own = only(rows, **{"class": None}, metric="contrast", model="tuned", control="none", site=site)
        if own.height:
            said.append(f"{name} {signed(own['value'][0])}")
    return f"{', '.join(said)} (tuned)." if said else ""


def _scale(limit: float, unit: str = "class") -> style.Scale:
    return style.Scale(
        "diverging", f"{signed(-limit)} (against)", "0", f"{signed(limit)} (towards the true {unit})"
    )


def word_groups(run: RunFolder) -> list[Group]:
    """Return deciding words and worked examples, one group per arm and seed."""
    result = run.results.get("words")
    if result is None:
        return []
    table = checked(result, attribution.WORD_COLUMNS)
    on = rows_said(result) or "rows not recorded"
    groups: list[Group] = []
    for arm, seed, rows, main in arm_seeds(table, run.arm_names):
        panels = attribution.word_panels(rows, run.labels or [], style.arm_colour(run.arm_names, arm))
        figures = []
        if panels:
            caption = (
                f"The {attribution.SHOWN_WORDS} words whose loss most surely costs each class margin in the tuned "
                "model (by the lower end of the interval), with "
                f"95 % intervals. Grey: base. Picked on the rows they are shown on ({on}), so their size is flattering."
            )
            figures.append(style.Figure(f"words-{len(groups)}", "Deciding words", panels, caption, HOW_WORDS))
        examples = _examples(rows)
        if figures or examples:
            title = group_title(arm, seed, table)
            groups.append(Group(title, main, measured(figures, title, on), tuple(_checks(rows)), examples))
    return groups


def _checks(rows: pl.DataFrame) -> list[str]:
    """Return sentences on how well the methods agree and whether the gradients added up."""
    said = []
    for record in only(rows, metric="rank_agreement").iter_rows(named=True):
        if finite(record["value"]) is not None:
            ends = (
                f" [{number(record['low'])}, {number(record['high'])}]" if record["low"] is not None else ""
            )
            model = "" if record["model"] == "base_tuned" else f" ({record['model']})"
            said.append(
                f"Rank correlation over the words of a row, {str(record['by']).replace('_', ' ')}{model}: "
                f"{number(record['value'])}{ends}."
            )
    for record in only(rows, metric="incomplete_rows").iter_rows(named=True):
        said.append(
            f"Integrated gradients did not add up in {record['value']:.0f} of {record['n']} rows ({record['model']}); "
            "those rows were left out."
        )
    return said


def _examples(rows: pl.DataFrame) -> tuple[WorkedExample, ...]:
    own = only(rows, metric="example")
    if own.is_empty() or "row_id" not in own.columns:
        return ()
    found = []
    for (_, model), part in own.group_by(["row_id", "model"], maintain_order=True):
        records = part.sort("place").to_dicts()
        sizes = [abs(value) for value in (finite(record["value"]) for record in records) if value is not None]
        words = tuple(_shaded(record, max(sizes, default=0.0)) for record in records)
        first = records[0]
        found.append(
            WorkedExample(
                str(model),
                str(first["row_id"]),
                str(first["class"]),
                str(first.get("prediction") or ""),
                words,
            )
        )
    order = {row_id: index for index, row_id in enumerate(dict.fromkeys(one.row_id for one in found))}
    return tuple(sorted(found, key=lambda one: (order[one.row_id], one.model)))


def _shaded(record: dict[str, Any], largest: float) -> ShadedWord:
    value = finite(record["value"])
    if value is None:
        return ShadedWord(str(record["word"]), "shade-none", "not left out")
    step = round(STEPS * value / largest) if largest > 0 else 0
    shade = "shade-0" if step == 0 else f"shade-{'for' if step > 0 else 'against'}-{abs(step)}"
    return ShadedWord(str(record["word"]), shade, f"{signed(value)} logits")
