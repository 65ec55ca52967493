"""The audit of labelled rows: every part in turn, and its findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tunescope.data.audit.balance import audit_balance
from tunescope.data.audit.characters import audit_characters
from tunescope.data.audit.columns import Labelled, audit_columns
from tunescope.data.audit.duplicates import audit_conflicts, audit_duplicates
from tunescope.data.audit.findings import Finding, findings_of
from tunescope.data.audit.lengths import audit_lengths
from tunescope.data.audit.near import NearPairs, near_pairs
from tunescope.data.audit.typical import audit_words
from tunescope.data.audit.words import Corpus, corpus_of
from tunescope.data.repeats import first_equal
from tunescope.data.rows import RESERVED, Rows
from tunescope.errors import DataError
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT_VERSION = 1


@dataclass(frozen=True)
class AuditOptions:
    """How rows are audited.

    Attributes:
        tokenizer: Of the model that is to read the texts; None measures lengths in words only.
        max_length: The most tokens of a text; None means the tokenizer's limit, at most 512.
        near: Look for near duplicates too.
        threshold: The least Jaccard similarity of near duplicates, above 0, at most 1.
        shingle: Words in a shingle, from 1.
        top: Words listed a class.
    """

    tokenizer: PreTrainedTokenizerBase | None = None
    max_length: int | None = None
    near: bool = True
    threshold: float = 0.7
    shingle: int = 3
    top: int = 15


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        rows: Rows per split and ``total``, labels, left-out rows, cleaning and deduplication by reading.
        findings: Red first, then amber, then notes; within these the weightiest first.
        parts: The parts by name: ``duplicates, conflicts, columns, balance, lengths, words, characters,
            missing``.
    """

    rows: dict[str, Any]
    findings: list[Finding]
    parts: dict[str, Any] = field(default_factory=dict)

    def count(self, severity: str) -> int:
        """Return how many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able, as ``data/audit.json`` wants it."""
        return {
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            "findings": [asdict(finding) for finding in self.findings],
            **self.parts,
        }


def audit(rows: Rows | Path | str, options: AuditOptions | None = None, progress: Progress = SILENT) -> Audit:
    """Audit labelled rows.

    Columns are judged on the labelled rows of train (on all of them where there is no train) and tried on
    test. What is made of files by hand is audited as it is: give splits, or none.

    Args:
        rows: Rows, or the Parquet file that :meth:`Rows.save` wrote.
        options: How.
        progress: Where to report.

    Raises:
        DataError: There is no row, or an option is out of its range.
        RunError: The file is missing or damaged.
        MissingDependencyError: Near duplicates are asked for, and rensa is not installed.
    """
    options = options or AuditOptions()
    _check(options)
    rows = rows if isinstance(rows, Rows) else Rows.load(Path(rows))
    if not len(rows):
        raise DataError("There is no row to audit.", hint="Check the file and what was left out of it.")
    corpus = corpus_of(rows.frame["text"], progress)
    pairs = _near(corpus, options, progress) if options.near else None
    parts: dict[str, Any] = {
        "duplicates": audit_duplicates(rows, corpus, pairs)
        | {"method": {"threshold": options.threshold, "shingle": options.shingle} if options.near else None},
        "conflicts": audit_conflicts(rows, corpus),
        "columns": audit_columns(_labelled(rows), _text_columns(rows)),
        "balance": audit_balance(rows),
        "lengths": audit_lengths(rows, options.tokenizer, options.max_length, progress),
        "words": audit_words(corpus, rows.label_array, rows.labels.names, options.top),
        "characters": audit_characters(rows),
        "missing": _missing(rows),
    }
    counts = _counts(rows)
    return Audit(counts, findings_of(counts, parts), parts)


def _check(options: AuditOptions) -> None:
    if not 0 < options.threshold <= 1:
        raise DataError(
            f"The similarity of near duplicates lies above 0 and at most at 1; came {options.threshold}.",
            hint="Use .7, or nearer to 1 to find fewer.",
        )
    for name, value in (
        ("shingle", options.shingle),
        ("top", options.top),
        ("max_length", options.max_length),
    ):
        if value is not None and value < 1:
            raise DataError(f"{name} is a whole number from 1; came {value}.", hint="Give a larger number.")


def _near(corpus: Corpus, options: AuditOptions, progress: Progress) -> NearPairs:
    distinct = np.unique(first_equal(corpus.normalised))
    return near_pairs(corpus, distinct, options.shingle, options.threshold, progress)


def _labelled(rows: Rows) -> Labelled:
    frame = rows.frame.filter(pl.col("label").is_not_null())
    train = frame.filter(pl.col("split") == "train")
    test = frame.filter(pl.col("split") == "test")
    if not train.height:
        train, test = frame, frame.clear()
    return Labelled(train, test, rows.labels.names)


def _text_columns(rows: Rows) -> list[str]:
    """Name the columns that the text is made of by a template: they are text, not metadata."""
    text = rows.provenance.get("text")
    return list(text.values()) if isinstance(text, dict) else []


def _counts(rows: Rows) -> dict[str, Any]:
    provenance = rows.provenance
    return {
        "total": len(rows),
        "splits": {split: int((rows.frame["split"] == split).sum()) for split in rows.splits},
        "labels": rows.labels.to_list(),
        "unlabelled": int((rows.label_array < 0).sum()),
        "left_out": provenance.get("dropped", {}),
        "cleaning": provenance.get("cleaning", []),
        "deduplicated": provenance.get("deduplicated"),
        "text": provenance.get("text"),
        "label": provenance.get("label"),
        "group_by": provenance.get("group_by"),
        "made": provenance.get("splits", {}).get("made"),
    }


def _missing(rows: Rows) -> dict[str, int]:
    """Count empty cells per column of the source; rows without text or label were left out by reading."""
    found = {}
    for column in rows.frame.columns:
        if column in RESERVED:
            continue
        cells = rows.frame[column]
        empty = cells.null_count()
        if cells.dtype == pl.String:
            empty += int((cells.str.strip_chars() == "").sum())
        elif cells.dtype.is_float():
            empty += int(cells.is_nan().sum())
        found[column] = empty
    return found
