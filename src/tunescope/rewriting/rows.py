"""Rewriting tables and files of any size: chunk by chunk, with bounded memory, in any order and sharding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tunescope.errors import DataError
from tunescope.files import atomic_path
from tunescope.progress import SILENT, Progress
from tunescope.rewriting.changes import (
    CHANGE_FIELDS,
    PAIR_SCHEMA,
    UNRESOLVED_SCHEMA,
    Rewrite,
    Rewritten,
    Unresolved,
)
from tunescope.rewriting.engine import rewrite
from tunescope.rewriting.lexicon import Lexicon

CHUNK = 20_000
SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
Rewriter = Callable[[str, str], Rewrite | Unresolved | None]
Keep = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass
class Counts:
    """What happened to the rows so far; counts of chunks add up."""

    rows: int = 0
    touched: int = 0
    untouched: int = 0
    unresolved: Counter[str] = field(default_factory=Counter)
    terms: Counter[str] = field(default_factory=Counter)
    directions: Counter[str] = field(default_factory=Counter)
    choices: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, counters with their largest counts first."""
        return {
            key: dict(value.most_common()) if isinstance(value, Counter) else value
            for key, value in vars(self).items()
        }


def rewrite_rows(
    frame: pl.DataFrame,
    lexicon: Lexicon,
    *,
    progress: Progress = SILENT,
    seed: int = 0,
    keep: Keep | None = None,
) -> Rewritten:
    """Rewrite the texts of a table.

    Args:
        frame: ``row_id`` (unique), ``text``, and other columns, which are kept.
        lexicon: What is swapped with what.
        progress: Where the work reports to.
        seed: For lexicons with sets; the draw depends on the row id and the seed, not on the order.
        keep: Thins the pairs out after every 20,000 rows, so that memory does not grow; counts are of all rows.

    Returns:
        Pairs, what was left out, and counts. Order and sharding of the rows change nothing.

    Raises:
        DataError: A column is missing, or row ids are not unique.
    """
    return apply_rows(
        frame,
        lexicon.name,
        lambda text, row_id: rewrite(text, lexicon, row_id=row_id, seed=seed),
        progress,
        choices=frozenset(term for term, entry in lexicon.entries.items() if entry.choice),
        keep=keep,
    )


def apply_rows(
    frame: pl.DataFrame,
    name: str,
    rewriter: Rewriter,
    progress: Progress = SILENT,
    *,
    choices: frozenset[str] = frozenset(),
    keep: Keep | None = None,
) -> Rewritten:
    """Apply any rewriter to a table, as :func:`rewrite_rows` does.

    Raises:
        DataError: A column is missing, or row ids are not unique.
    """
    check_rows(frame)
    counts = Counts()
    pairs: list[pl.DataFrame] = []
    unresolved = []
    with progress.task(f"rewriting ({name})", frame.height, "rows") as task:
        for offset in range(0, frame.height, CHUNK):
            chunk = frame.slice(offset, CHUNK)
            made, left = rewrite_chunk(chunk, name, rewriter, counts, choices)
            pairs = [*pairs, made] if keep is None else [keep(pl.concat([*pairs, made]))]
            unresolved.append(left)
            task.advance(chunk.height)
    empty = rewrite_chunk(frame.clear(), name, rewriter, Counts(), choices)
    return Rewritten(pl.concat([empty[0], *pairs]), pl.concat([empty[1], *unresolved]), counts.as_dict())


def rewrite_chunk(
    chunk: pl.DataFrame, name: str, rewriter: Rewriter, counts: Counts, choices: frozenset[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rewrite one chunk into its pairs and what was left out, and add to ``counts``."""
    made_pairs: list[tuple[str, Rewrite]] = []
    left: dict[str, list[Any]] = {key: [] for key in UNRESOLVED_SCHEMA}
    places: list[int] = []
    texts, ids = chunk["text"].to_list(), chunk["row_id"].cast(pl.String).to_list()
    for place, (text, row_id) in enumerate(zip(texts, ids, strict=True)):
        made = rewriter(text, row_id) if text else None
        if made is None:
            counts.untouched += 1
        elif isinstance(made, Unresolved):
            counts.unresolved[made.reason] += 1
            for key in ("reason", "term", "start", "end"):
                left[key].append(getattr(made, key))
            left["row_id"].append(row_id)
        else:
            counts.touched += 1
            counts.terms.update(made.terms)
            counts.directions[made.direction] += 1
            counts.choices.update(c.term for c in made.changes if c.term in choices)
            places.append(place)
            made_pairs.append((row_id, made))
    counts.rows += len(texts)
    own = chunk[places].drop([c for c in (*PAIR_SCHEMA, "text") if c in chunk.columns])
    pairs = _table(made_pairs, name)
    return pl.concat([pairs, own], how="horizontal"), pl.DataFrame(left, schema=UNRESOLVED_SCHEMA)


def _table(made: Sequence[tuple[str, Rewrite]], name: str) -> pl.DataFrame:
    """Return rewrites as a table; changes are laid out flat and cut into lists, which is fast."""
    flat = [change for _, rewritten in made for change in rewritten.changes]
    fields = pl.DataFrame(
        {key: [getattr(change, key) for change in flat] for key in CHANGE_FIELDS}, schema=CHANGE_FIELDS
    )
    numbers = np.cumsum([0, *(len(rewritten.changes) for _, rewritten in made)])
    struct = fields.to_struct("changes").to_arrow()
    lists = pa.LargeListArray.from_arrays(pa.array(numbers, pa.int64()), struct)
    columns = {
        "pair_id": [f"{row_id}:{name}" for row_id, _ in made],
        "row_id": [row_id for row_id, _ in made],
        "direction": [rewritten.direction for _, rewritten in made],
        "original": [rewritten.text for _, rewritten in made],
        "rewritten": [rewritten.rewritten for _, rewritten in made],
        "terms": [rewritten.terms for _, rewritten in made],
        "categories": [rewritten.categories for _, rewritten in made],
        "changes": pl.Series("changes", pl.from_arrow(lists), dtype=PAIR_SCHEMA["changes"]),
    }
    return pl.DataFrame(columns, schema=PAIR_SCHEMA)


def check_rows(frame: pl.DataFrame, *needed: str) -> None:
    """Check that a table can be rewritten.

    Raises:
        DataError: A column is missing, or row ids are not unique.
    """
    for column in needed or ("row_id", "text"):
        if column not in frame.columns:
            raise DataError(
                f"Expected a column {column!r} to rewrite; the table has: {shown(frame.columns)}.",
                hint="Rename your column, or number the rows with `frame.with_row_index('row_id')`.",
            )
    if frame["row_id"].n_unique() != frame.height:
        twice = frame["row_id"].value_counts().filter(pl.col("count") > 1)["row_id"].sort()
        raise DataError(
            f"Row ids must be unique; {len(twice):,} stand more than once: {shown(twice.to_list())}.",
            hint="Number the rows with `frame.with_row_index('row_id')`.",
        )


def shown(names: Iterable[object], limit: int = 20) -> str:
    """Return names as a message lists them, the first ones only where they are many."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(repr(name) for name in every[:limit]) + more


def rewrite_file(
    source: Path | str,
    output: Path | str,
    lexicon: Lexicon,
    *,
    text: str = "text",
    progress: Progress = SILENT,
    seed: int = 0,
) -> dict[str, Any]:
    """Rewrite a file into a Parquet file of pairs, chunk by chunk.

    Memory does not grow with the file. A file without a column ``row_id`` gets its row numbers, from 0.

    Args:
        source: A .parquet, .csv, .tsv or .jsonl file.
        output: The Parquet file to write, whole or not at all.
        lexicon: What is swapped with what.
        text: The column that holds the text.
        progress: Where the work reports to.
        seed: For lexicons with sets.

    Returns:
        The counts of :class:`Rewritten`.

    Raises:
        DataError: The file cannot be read, is of another kind, or has no such column.
    """
    import pyarrow.parquet as pq

    counts = Counts()
    choices = frozenset(term for term, entry in lexicon.entries.items() if entry.choice)
    lazy, total = scan_texts(Path(source), text)
    with atomic_path(Path(output)) as temporary, progress.task("rewriting", total, "rows") as task:
        writer = None
        try:
            for chunk in text_chunks(lazy):
                made, _ = rewrite_chunk(
                    chunk, lexicon.name,
                    lambda words, row_id: rewrite(words, lexicon, row_id=row_id, seed=seed), counts, choices,
                )  # fmt: skip
                table = made.to_arrow()
                writer = writer or pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
                task.advance(chunk.height)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"{source} has no rows.", hint="Give a file with texts.")
    return counts.as_dict()


def scan_texts(source: Path, text: str) -> tuple[pl.LazyFrame, int]:
    """Return a file as a lazy table with the columns `row_id` and `text`, and its number of rows.

    Raises:
        DataError: The file cannot be read, is of another kind, or has no such column.
    """
    if not source.is_file():
        raise DataError(f"There is no file {source}.", hint="Check the path.")
    readers: dict[str, Callable[[], pl.LazyFrame]] = {
        ".parquet": lambda: pl.scan_parquet(source),
        ".csv": lambda: pl.scan_csv(source),
        ".tsv": lambda: pl.scan_csv(source, separator="\t", quote_char=None),
        ".jsonl": lambda: pl.scan_ndjson(source),
        ".ndjson": lambda: pl.scan_ndjson(source),
    }
    if source.suffix not in readers:
        raise DataError(
            f"Expected a {', '.join(SUFFIXES)} file; came {source.name}.",
            hint="Convert it, or rewrite a table.",
        )
    try:
        lazy = readers[source.suffix]()
        columns = lazy.collect_schema().names()
        if text not in columns:
            raise DataError(
                f"{source} has no column {text!r}; it has: {shown(columns)}.",
                hint="Name the column of the text.",
            )
        if text != "text":
            lazy = lazy.drop([c for c in ("text",) if c in columns]).rename({text: "text"})
        if "row_id" not in columns:
            lazy = lazy.with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String))
        return lazy, int(lazy.select(pl.len()).collect().item())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source} cannot be read: {error}.", hint="Check the file.") from error


def text_chunks(lazy: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield a table in pieces of at most 20,000 rows, in order, without reading it whole."""
    for batch in lazy.collect_batches(chunk_size=CHUNK, maintain_order=True):
        for offset in range(0, batch.height, CHUNK):
            yield batch.slice(offset, CHUNK)


def mark_token_counts(
    pairs: pl.DataFrame, count_tokens: Callable[[Sequence[str]], Iterable[int]]
) -> pl.DataFrame:
    """Mark the pairs whose two texts have the same number of tokens, as patching needs.

    Args:
        pairs: A table with ``original`` and ``rewritten``.
        count_tokens: Gives the number of tokens of each of several texts, as
            ``lambda texts: map(len, tokenizer(list(texts))["input_ids"])``.

    Returns:
        The table with ``original_tokens``, ``rewritten_tokens`` (Int64) and ``same_token_count`` (Boolean).
    """
    check_rows(pairs.with_columns(row_id=pl.int_range(pl.len())), "original", "rewritten")
    found: dict[str, list[int]] = {"original": [], "rewritten": []}
    for side, numbers in found.items():
        for offset in range(0, pairs.height, CHUNK):
            numbers += [int(n) for n in count_tokens(pairs[side].slice(offset, CHUNK).to_list())]
    return pairs.with_columns(
        pl.Series("original_tokens", found["original"], dtype=pl.Int64),
        pl.Series("rewritten_tokens", found["rewritten"], dtype=pl.Int64),
    ).with_columns(same_token_count=pl.col("original_tokens") == pl.col("rewritten_tokens"))
