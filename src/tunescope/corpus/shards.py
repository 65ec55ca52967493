"""Shards: rows that are predicted together, alone, and always the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from tunescope.corpus.request import CorpusRequest
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.errors import DataError
from tunescope.evaluation.predict import logits_of, predict
from tunescope.models import Classifier
from tunescope.rewriting import Lexicon, rewrite
from tunescope.rewriting.rows import Counts, rewrite_chunk, scan_texts, text_chunks

MOST_NAMED = 5


def source_shards(request: CorpusRequest) -> tuple[Iterator[pl.DataFrame], int]:
    """Return the rows of the file in shards, and how many rows there are.

    Returns:
        Tables of ``row_id`` (the file's, else the row's number from 0), ``position`` (Int64, from 0), ``text`` and
        ``label`` (text, or null), each of ``shard_rows`` rows but for the last; and the number of rows.

    Raises:
        DataError: The file, the text column or the label column cannot be read, or there is no row.
    """
    lazy, total = scan_texts(Path(request.data), request.text)
    columns = lazy.collect_schema().names()
    if request.label is not None and request.label not in columns:
        raise DataError(
            f"{request.data} has no column {request.label!r}; it has: {', '.join(columns)}.",
            hint="Name the column of true classes with --label, or leave it out.",
        )
    if not total:
        raise DataError(f"{request.data} has no rows.", hint="Give a file with texts.")
    label = pl.lit(None) if request.label is None else pl.col(request.label)
    kept = lazy.with_row_index("position").select(
        pl.col("row_id").cast(pl.String), pl.col("position").cast(pl.Int64), "text",
        label.cast(pl.String).alias("label"),
    )  # fmt: skip
    return _filled(text_chunks(kept), request.shard_rows), total


def _filled(pieces: Iterator[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Cut and join pieces into shards of ``size`` rows."""
    held: list[pl.DataFrame] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += piece.height
        if count < size:
            continue
        whole = pl.concat(held)
        for offset in range(0, count - count % size, size):
            yield _checked(whole.slice(offset, size))
        held, count = [whole.tail(count % size)], count % size
    if count:
        yield _checked(pl.concat(held))


def _checked(shard: pl.DataFrame) -> pl.DataFrame:
    """Refuse rows without text.

    Raises:
        DataError: With the first rows.
    """
    if shard.schema["text"] != pl.String:
        raise DataError(
            f"The text column holds {shard.schema['text']}, not text.",
            hint="Name another column with --text.",
        )
    bad = shard.filter(pl.col("text").is_null() | (pl.col("text").str.strip_chars() == ""))["position"]
    if len(bad):
        shown = ", ".join(str(place + 1) for place in bad[:MOST_NAMED].to_list())
        raise DataError(
            f"{len(bad)} of {shard.height} rows have no text: rows {shown}{', ...' if len(bad) > MOST_NAMED else ''} "
            "(from 1).",
            hint="Remove those rows.",
        )
    return shard


def predicted_shard(
    classifier: Classifier, shard: pl.DataFrame, request: CorpusRequest, lexicon: Lexicon | None
) -> pl.DataFrame:
    """Predict the rows of a shard, and with a lexicon the rows that hold one of its words once more, rewritten.

    The result depends on the shard's rows alone: the shard is batched by itself.

    Args:
        classifier: Any classifier.
        shard: From :func:`source_shards`.
        request: The request.
        lexicon: Whose words are exchanged, or None.

    Returns:
        One line a row, in order: ``row_id, position, text, label``, ``prediction`` (class index),
        ``label_predicted``, ``logit_*``, ``probability_*``, ``tokens``, ``truncated``; with a lexicon ``rewritten``,
        ``direction``, ``terms`` (parted by commas), ``unresolved`` (why a row with a term could not be rewritten)
        and ``rewritten_logit_*``, null where the row was not rewritten.

    Raises:
        DataError: A label is no class of the model.
    """
    names = list(classifier.labels.names)
    _require_classes(shard, names)
    limit = request.max_length or classifier.max_length
    rows = rows_of_texts(shard["text"].to_list(), classifier.labels)
    table = predict(classifier, tokenize(rows, classifier.tokenizer, limit)).drop("row_id")
    predicted = pl.Series("label_predicted", names, dtype=pl.String).gather(table["prediction"])
    table = table.insert_column(1, predicted)
    out = pl.concat([shard, table], how="horizontal")
    return out if lexicon is None else _with_flips(classifier, out, lexicon, limit)


def _with_flips(classifier: Classifier, table: pl.DataFrame, lexicon: Lexicon, limit: int) -> pl.DataFrame:
    keyed = table.select(pl.col("position").cast(pl.String).alias("row_id"), "text")
    ids = dict(
        zip(keyed["row_id"], table["row_id"], strict=True)
    )  # lexicons with sets draw by the row's own id
    made, left = rewrite_chunk(
        keyed,
        lexicon.name,
        lambda text, place: rewrite(text, lexicon, row_id=ids[place]),
        Counts(),
        frozenset(),
    )
    names = [f"rewritten_logit_{name}" for name in classifier.labels.names]
    logits = np.zeros((0, len(names)))
    if made.height:
        rows = rows_of_texts(made["rewritten"].to_list(), classifier.labels)
        logits = logits_of(classifier, tokenize(rows, classifier.tokenizer, limit))
    flips = made.select(
        pl.col("row_id").cast(pl.Int64).alias("position"), "rewritten", "direction",
        pl.col("terms").list.join(", "),
    ).with_columns([pl.Series(name, logits[:, place]) for place, name in enumerate(names)])  # fmt: skip
    reasons = left.select(
        pl.col("row_id").cast(pl.Int64).alias("position"), pl.col("reason").alias("unresolved")
    )
    joined = table.join(reasons, on="position", how="left", maintain_order="left")
    return joined.join(flips, on="position", how="left", maintain_order="left")


def _require_classes(shard: pl.DataFrame, names: list[str]) -> None:
    others = sorted(set(shard["label"].drop_nulls().unique()) - set(names))
    if others:
        raise DataError(
            f"The label column holds {', '.join(map(repr, others[:MOST_NAMED]))}, which the model does not know; its "
            f"classes are: {', '.join(names)}.",
            hint="Name the model's classes in that column, or leave --label out: words are then counted by prediction.",
        )
