"""What the page says of a run that summarises: the answer, the table of quality, what was cut, and worked examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tunescope.files import read_json
from tunescope.report.figures.select import over_seeds, pooled
from tunescope.report.quality import Estimate, Piece, record_of
from tunescope.report.read import RunFolder, reading
from tunescope.report.tables import Table
from tunescope.report.text import number, percent, plural, probability

SHOWN = ("rouge1", "rouge2", "rougeL", "rougeLsum", "meteor")
LIKE = ("words", "compression", "copy_rate", "novel_2grams", "repetition", "ended", "loss_per_token")
HEADINGS = {
    "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum", "meteor": "METEOR",
    "words": "words", "compression": "compression", "copy_rate": "copy rate", "novel_2grams": "new bigrams",
    "repetition": "repetition", "ended": "ended by itself", "loss_per_token": "loss per token",
}  # fmt: skip
EXAMPLES = 4
ARTICLE_CHARACTERS = 1200


@dataclass(frozen=True)
class Line:
    """An arm or a baseline in the table of quality: its name, its values, and whether it is a baseline."""

    name: str
    values: tuple[Estimate, ...]
    baseline: bool
    about: str


@dataclass(frozen=True)
class Example:
    """One article with its reference, and what every arm and baseline wrote: (name, text, ROUGE-1)."""

    row_id: str
    article: str
    longer: bool
    reference: str
    written: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Summaries:
    """The section of the page."""

    split: str
    quality: tuple[Line, ...]
    quality_columns: tuple[str, ...]
    like: tuple[Line, ...]
    like_columns: tuple[str, ...]
    comparison: Table | None
    about: str
    cut: tuple[str, ...]
    examples: tuple[Example, ...]
    method: str


def summaries(run: RunFolder) -> Summaries | None:
    """Return the section, or None where the run does not summarise or measured nothing."""
    if (run.study or {}).get("task") != "summarise" or run.split is None:
        return None
    quality = _lines(run, SHOWN)
    like = tuple(replace(line, about="") for line in _lines(run, LIKE))  # said once, in the first table
    comparison, about = _comparison(run)
    return Summaries(
        run.split, quality, tuple(HEADINGS[one] for one in SHOWN), like, tuple(HEADINGS[one] for one in LIKE),
        comparison, about, tuple(_cut(run)), tuple(_examples(run)), _method(run),
    )  # fmt: skip


def answer(run: RunFolder, found: Summaries) -> list[Piece]:
    """Return the sentence that stands first: the arms' ROUGE-1 and 2 beside lead-3's, in (text, bold) pieces."""
    arms = [line for line in found.quality if not line.baseline and line.values[0].known]
    if not arms:
        return [("No arm has written summaries yet.", False)]
    ranked = sorted(arms, key=lambda line: -(line.values[0].value or 0.0))
    count = ranked[0].values[0].n
    pieces: list[Piece] = [
        (f"On {plural(count, f'{found.split} article') if count else found.split}, ", False)
    ]
    for index, line in enumerate(ranked[:3]):
        pieces.append(("" if index == 0 else ", ", False))
        pieces.append((f"{line.name} reaches ROUGE-1 " if index == 0 else f"{line.name} ", False))
        pieces.append((str(line.values[0]), True))
        pieces.append((f" (ROUGE-2 {number(line.values[1].value)})", False))
    lead = next((line for line in found.quality if line.name == "lead-3"), None)
    if lead is not None and lead.values[0].value is not None:
        best = ranked[0].values[0].value or 0.0
        pieces.append(("; the article's first three sentences reach ", False))
        pieces.append((str(lead.values[0]), True))
        if best < lead.values[0].value:
            pieces.append((", more than any arm", False))
    return [*pieces, (".", False)]


def _lines(run: RunFolder, metrics: tuple[str, ...]) -> tuple[Line, ...]:
    lines = []
    for arm in run.arm_names:
        trained = [item.metrics for item in run.of(arm) if item.metrics is not None]
        values = tuple(_of_arm(run, arm, metric, trained) for metric in metrics)
        lines.append(Line(arm, values, False, str((trained[0].get("notes") or [""])[0]) if trained else ""))
    for baseline in run.baselines:
        values = tuple(pooled([record_of(baseline.metrics, run.split, metric)]) for metric in metrics)
        lines.append(Line(baseline.name, values, True, baseline.about))
    return tuple(lines)


def _of_arm(run: RunFolder, arm: str, metric: str, trained: list[dict[str, Any]]) -> Estimate:
    """Return an arm's metric; over several seeds as the comparison resampled it, else from the trainings' intervals."""
    measured = over_seeds(record_of(one, run.split, metric) for one in trained)
    path = run.folder / "summaries.json"
    if len(trained) < 2 or not path.is_file():
        return measured
    for one in read_json(path).get("arms", []):
        if (one["arm"], one["split"], one["metric"]) == (arm, run.split, metric) and one["low"] is not None:
            return replace(measured, low=one["low"], high=one["high"], note=one["note"] or measured.note)
    return measured


def _method(run: RunFolder) -> str:
    for item in run.arms:
        own = record_of(item.metrics, run.split, "meteor")
        if own.get("method"):
            return f"METEOR's variant and the intervals: {own['method']}."
    return ""


def _comparison(run: RunFolder) -> tuple[Table | None, str]:
    path = run.folder / "summaries.json"
    if not path.is_file():
        return None, ""
    document = read_json(path)
    with reading(run.folder, path.name):
        own = [one for one in document["records"] if one["split"] == run.split]
        rows = tuple(
            (
                (str(one["first"]), str(one["first"])), (str(one["second"]), str(one["second"])),
                (HEADINGS.get(one["metric"], one["metric"]), str(one["metric"])),
                (str(pooled([one])), repr(one["value"])), (probability(one["p"]), repr(one["p"])),
                (probability(one["q"]), repr(one["q"])),
            )
            for one in own
        )  # fmt: skip
        about = str(document["about"])
    columns = ("first", "second", "metric", "first minus second", "p", "corrected p")
    return (Table(columns, (False, False, False, True, True, True), rows, len(rows)) if rows else None), about


def _cut(run: RunFolder) -> list[str]:
    """Say of every arm what the budget cut of articles and summaries."""
    said = []
    with reading(run.folder, "data/summary.json"):
        found: Mapping[str, Any] = (run.summary or {}).get("cut") or {}
        for arm, splits in found.items():
            for split, one in splits.items():
                sentence = (
                    f"{arm}, {split}: {number(one['rows_cut'])} of {plural(one['rows'], 'article')} cut "
                    f"({percent(one['article_share_cut'])} of their tokens); "
                )
                if one["summary_tokens_cut"]:
                    share = one["summary_tokens_cut"] / max(1, one["summary_tokens"])
                    sentence += (
                        f"{number(one['summaries_cut'])} summaries cut, {number(one['summaries_lost'])} of them wholly "
                        f"({percent(share)} of the summaries' tokens)."
                    )
                else:
                    sentence += "every summary whole."
                said.append(sentence)
    return said


def _examples(run: RunFolder) -> list[Example]:
    """Return the first rows by id with what everything wrote for them: picked by nothing that was measured."""
    tables: dict[str, pl.DataFrame] = {}
    for arm in run.arm_names:
        table = next((one.written for one in run.of(arm) if one.written is not None), None)
        if table is not None:
            tables[arm] = table.filter(pl.col("split") == run.split)
    if not tables or run.rows is None:
        return []
    for baseline in run.baselines:
        path = run.folder / "baselines" / baseline.name / "predictions.parquet"
        if path.is_file():
            tables[baseline.name] = pl.read_parquet(path, glob=False).filter(pl.col("split") == run.split)
    first = next(iter(tables.values()))
    found = []
    for row_id in sorted(first["row_id"].to_list())[:EXAMPLES]:
        source = run.rows.filter(pl.col("row_id") == row_id)
        if not source.height:
            continue
        article = str(source["text"][0])
        written = []
        for name, table in tables.items():
            own = table.filter(pl.col("row_id") == row_id)
            if own.height:
                written.append((name, str(own["generated"][0] or ""), number(own["rouge1"][0])))
        reference = str(source["summary"][0]) if "summary" in source.columns else ""
        longer = len(article) > ARTICLE_CHARACTERS
        found.append(Example(row_id, article[:ARTICLE_CHARACTERS], longer, reference, tuple(written)))
    return found
