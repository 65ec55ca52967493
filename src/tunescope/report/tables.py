"""Tables of the page: the data, planted against recovered, worked examples, and lenses without figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.cards import said
from tunescope.report.figures import style
from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, strip
from tunescope.report.read import SPLITS, LensResult, RunFolder, require
from tunescope.report.text import Estimate, finite, listed, number, percent, probability, visible
from tunescope.report.trust import flat, rows_said

SHOWN_ELSEWHERE = ("planted", "behaviour", "claims")  # results with sections that are no lens's
SHOWN_ROWS = 200
SHOWN_EXAMPLES = 6
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Table:
    """A plain table: column names, which are numbers, and cells as (text, sort key)."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]
    total: int


@dataclass(frozen=True)
class Lens:
    """A lens the page has no figure for: its sentence, the rows it saw, and its table."""

    name: str
    what: str
    rows: str
    notes: tuple[str, ...]
    table: Table


def other_lenses(run: RunFolder) -> list[Lens]:
    """Return every result that has no section of its own, so that new lenses show at once."""
    from tunescope.report.sections import SECTIONS  # its builders use the tables of this module

    known = {*SHOWN_ELSEWHERE, *(section.lens for section in SECTIONS)}
    return [_lens(result) for name, result in run.results.items() if name not in known]


def _lens(result: LensResult) -> Lens:
    what = result.provenance.get("what")
    return Lens(
        name=result.lens,
        what=str(what)
        if what
        else f"What {result.lens} measures is not said: results/{result.lens}.json is missing.",
        rows=rows_said(result),
        notes=tuple(str(note) for note in result.provenance.get("notes") or []),
        table=plain_table(result.table),
    )


def plain_table(table: pl.DataFrame, limit: int = SHOWN_ROWS) -> Table:
    """Return the first rows of a table without its empty columns."""
    columns = [name for name in table.columns if table[name].null_count() < table.height]
    head = table.select(columns).head(limit)
    numeric = tuple(head[name].dtype.is_numeric() for name in columns)
    rows = tuple(
        tuple(_cell(name, value) for name, value in zip(columns, row, strict=True))
        for row in head.iter_rows()
    )
    return Table(tuple(columns), numeric, rows, table.height)


def _cell(column: str, value: Any) -> tuple[str, str]:
    """Return a cell as shown and as sorted."""
    if value is None:
        return "", ""
    if column in ("p", "q"):
        return probability(value), repr(finite(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = str(visible(str(value), SHOWN_CHARACTERS))
        return text, text.casefold()
    plain = column in ("seed", "layer", "head", "layer_other") or column.endswith("_id")
    return (str(value) if plain else number(value)), repr(value)


NOTHING = Table((), (), (), 0)


def tested(run: RunFolder) -> Table:
    """Return how each finding was tested, as a table."""
    seed = ("seed",) if any(item.get("seed") is not None for item in run.findings or []) else ()
    columns = ("arm", *seed, "lens", "metric", "test", "control", "rows", "verdict")
    rows = [
        tuple((said(item.get(key)), said(item.get(key))) for key in columns) for item in run.findings or []
    ]
    return Table(columns, (False,) * len(columns), tuple(rows), len(rows))


@dataclass(frozen=True)
class Planted:
    """One planted truth beside what one model recovered of it."""

    metric: str
    model: str
    planted: float | None
    recovered: Estimate
    verdict: str
    drawn: Strip | None
    inside: bool | None
    where: str
    control: float | None
    how: str


def planted(run: RunFolder) -> tuple[str, list[Planted]] | None:
    """Return the sentence and the rows of the planted truths, or None where nothing was planted."""
    result = run.results.get("planted")
    if result is None:
        return None
    require(result.table, ("metric", "planted", "value", "low", "high"), "results/planted.parquet")
    what = str(
        result.provenance.get("what")
        or "Truths planted in the generated data, beside what this run recovered."
    )
    truths: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in result.table.to_dicts():
        axes = (record.get("arm"), record.get("seed"), record["metric"], record.get("class"))
        truths.setdefault(axes, []).append(record)
    # The rows of one truth stand together on one scale, tuned before base.
    return what, [
        _planted(record, _domain(records))
        for records in truths.values()
        for record in sorted(records, key=lambda record: record.get("model") == "base")
    ]


def _domain(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the stretch that holds the truth and everything recovered of it."""
    found = [finite(record[key]) for record in records for key in ("planted", "value", "low", "high")]
    bounds = [bound for bound in found if bound is not None] or [0.0, 1.0]
    room = 0.12 * ((max(bounds) - min(bounds)) or abs(bounds[0]) or 1.0)
    return min(bounds) - room, max(bounds) + room


def _planted(record: Mapping[str, Any], domain: tuple[float, float]) -> Planted:
    truth = finite(record["planted"])
    found = estimate(dict(record))
    inside = None
    if truth is not None and found.low is not None and found.high is not None:
        inside = found.low <= truth <= found.high
    names = {key: str(record[key]) for key in ("arm", "class", "words") if record.get(key) is not None}
    return Planted(
        metric=str(record["metric"]).replace("_", " "),
        model=str(record.get("model") or ""),
        planted=truth,
        recovered=found,
        verdict=str(record.get("verdict") or ""),
        drawn=strip(found, [truth], domain),
        inside=inside,
        where="; ".join(names.values()),
        control=finite(record.get("control")),
        how=str(record.get("how") or ""),
    )


@dataclass(frozen=True)
class Data:
    """The data section: counts per class and split, tokens, truncation, notes."""

    splits: tuple[str, ...]
    counts: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    totals: tuple[int, ...]
    tokens: Table | None
    truncated: Table | None
    notes: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]


def data(run: RunFolder) -> Data | None:
    """Return the data section, or None where data/summary.json is missing."""
    if run.summary is None:
        return None
    counts = run.summary.get("counts") or {}
    splits = tuple([s for s in reversed(SPLITS) if s in counts] + [s for s in counts if s not in SPLITS])
    totals = tuple(sum(counts[split].values()) for split in splits)
    labels = list(dict.fromkeys([*run.labels, *(label for split in splits for label in counts[split])]))
    lines = tuple(
        (
            label,
            tuple(
                (counts[split].get(label, 0), counts[split].get(label, 0) / total if total else 0.0)
                for split, total in zip(splits, totals, strict=True)
            ),
        )
        for label in labels
    )
    return Data(
        splits, lines, totals, _tokens(run), _truncated(run),
        tuple(str(note) for note in run.summary.get("notes") or []),
        tuple(flat(run.summary.get("provenance") or {})),
    )  # fmt: skip


def _shared(arms: Mapping[str, Any]) -> dict[str, Any]:
    """Return what arms have, those with the same (arms that share a tokenizer) under one name."""
    groups: list[tuple[list[str], Any]] = []
    for arm, value in arms.items():
        group = next((names for names, known in groups if known == value), None)
        if group is None:
            groups.append(([str(arm)], value))
        else:
            group.append(str(arm))
    named = [
        (names if len(names) < 4 else [*names[:2], f"{len(names) - 2} more"], value)
        for names, value in groups
    ]
    return {listed(names): value for names, value in named}


def _tokens(run: RunFolder) -> Table | None:
    keys = ("mean", "median", "p95", "max")
    rows = [
        (
            (str(arm), str(arm)),
            (str(split), str(split)),
            *((number(stats.get(k), 1), repr(stats.get(k))) for k in keys),
        )
        for arm, splits in _shared(run.of_arms("tokens")).items()
        for split, stats in splits.items()
    ]
    columns = ("arm", "split", "mean", "median", "95th percentile", "longest")
    return Table(columns, (False, False, True, True, True, True), tuple(rows), len(rows)) if rows else None


def _truncated(run: RunFolder) -> Table | None:
    rows = []
    for arm, splits in _shared(run.of_arms("truncated")).items():
        for split, labels in splits.items():
            for label, cell in labels.items():
                cut, of = cell.get("truncated", 0), cell.get("rows", 0)
                share = cut / of if of else None
                cells = [(str(name), str(name)) for name in (arm, split, label)]
                cells += [
                    (number(of), repr(of)),
                    (number(cut), repr(cut)),
                    (percent(share), repr(share or 0.0)),
                ]
                rows.append(tuple(cells))
    columns = ("arm", "split", "class", "rows", "truncated", "share")
    return Table(columns, (False, False, False, True, True, True), tuple(rows), len(rows)) if rows else None


@dataclass(frozen=True)
class Example:
    """One confidently wrong row."""

    row_id: str
    text: str
    true: str
    predicted: str
    probability: float | None


@dataclass(frozen=True)
class Examples:
    """The most confident errors of one arm."""

    arm: str
    colour: int
    split: str
    errors: int
    rows: int
    shown: tuple[Example, ...]


def examples(run: RunFolder) -> list[Examples]:
    """Return the most confident errors per arm (first seed, headline split), joined to texts by row id."""
    if run.rows is None or "label" not in run.rows.columns or "split" not in run.rows.columns:
        return []
    found = []
    for position, arm in enumerate(run.arm_names):
        trained = next((item for item in run.of(arm) if item.predictions is not None), None)
        if trained is not None and trained.predictions is not None:
            made = _errors(run, trained.predictions, arm, position % len(style.ARM_COLOURS))
            if made is not None:
                found.append(made)
    return found


def _errors(run: RunFolder, predictions: pl.DataFrame, arm: str, colour: int) -> Examples | None:
    probabilities = [name for name in predictions.columns if name.startswith("probability_")]
    if run.rows is None or not probabilities:
        return None
    own = predictions.select("row_id", "prediction", pl.max_horizontal(probabilities).alias("confidence"))
    joined = run.rows.select("row_id", "split", "text", "label").join(own, on="row_id", how="inner")
    joined = joined.filter(pl.col("label").is_not_null())
    splits = joined["split"].unique().to_list()
    split = run.split if run.split in splits else next((name for name in SPLITS if name in splits), None)
    if split is None:
        return None
    joined = joined.filter(pl.col("split") == split)
    wrong = joined.filter(pl.col("prediction") != pl.col("label"))
    ranked = wrong.sort(["confidence", "row_id"], descending=[True, False])
    top = ranked.unique("text", keep="first", maintain_order=True).head(SHOWN_EXAMPLES)
    shown = tuple(
        Example(
            str(record["row_id"]),
            str(visible(record["text"] or "", SHOWN_CHARACTERS)),
            _label(run.labels, record["label"]),
            _label(run.labels, record["prediction"]),
            finite(record["confidence"]),
        )
        for record in top.iter_rows(named=True)
    )
    return Examples(arm, colour, split, wrong.height, joined.height, shown)


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if 0 <= index < len(labels) else f"class {index}"
