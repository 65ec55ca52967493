"""What is said about rows: provenance for machines, notes for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from tunescope.data.labels import Encoding
from tunescope.data.pieces import UNSPLIT, Piece
from tunescope.data.rows import SPLITS
from tunescope.data.text import TextRule

if TYPE_CHECKING:
    from tunescope.config import DataConfig


def provenance_of(
    data: DataConfig, rule: TextRule, pieces: Sequence[Piece], encoding: Encoding
) -> dict[str, Any]:
    """Return where the rows come from and how text and labels were made of them, JSON-able."""
    sources = []
    for piece in pieces:
        splits = sorted({str(split) for split in piece.splits} - {UNSPLIT})
        files = [
            {"path": part.path, "rows": part.rows, "bytes": part.size, "sha256": part.sha256}
            for part in piece.table.parts
        ]
        sources.append({"splits": splits, "rows": len(piece.table), **piece.table.details, "files": files})
    path = dict(data.path) if isinstance(data.path, Mapping) else data.path
    return {
        "path": path,
        "sources": sources,
        "encoding": data.encoding,
        "text": rule.fields if not rule.plain else rule.columns[0],
        "template": rule.template,
        "label": data.label,
        "values": encoding.index,
        "id": data.id,
        "group_by": data.group_by,
    }


def notes_on(
    found: Mapping[str, Any], made: Mapping[str, Any] | None, frame: pl.DataFrame, encoding: Encoding
) -> list[str]:
    """Say in sentences what a reader of results should know about the rows."""
    notes = []
    for kind, word in (("shared", "text"), ("shared_groups", "group")):
        for pair, count in found.get(kind, {}).items():
            if count:
                first, second = pair.split("/")
                notes.append(f"{_counted(count, word)} in both {first} and {second}, as given.")
    if found["repeats"]:
        count = found["repeats"]
        notes.append(_in_source(f"{count:,} row{'s repeat' if count > 1 else ' repeats'} an earlier text"))
    if found["label_conflicts"]:
        notes.append(_in_source(f"{_counted(found['label_conflicts'], 'text')} under more than one label"))
    if made is not None:
        parts = [f"{name} ({share:.0%})" for name, share in made["shares"].items()]
        if "fold" in made:
            parts.insert(0, f"{made['held_out']} (fold {made['fold']} of {made['folds']}, counted from 0)")
        notes.append(f"Made from {made['from']}: {' and '.join(parts)}; {made['how']}, seed {made['seed']}.")
    for split in SPLITS:
        column = frame.filter(pl.col("split") == split)["label"]
        missing = [name for i, name in enumerate(encoding.labels.names) if not (column == i).any()]
        if len(column) and missing and column.null_count() < len(column):
            notes.append(f"{split} has no row of {', '.join(map(repr, missing))}.")
    return notes


def _in_source(said: str) -> str:
    """Say what was counted on all rows: the audit counts again, on those that are left."""
    return f"{said} in the source, counted over all splits before rows were left out as repeats or drawn."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}s stand" if count > 1 else f"1 {noun} stands"
