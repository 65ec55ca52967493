"""Tables of encoder-decoders, drawn stack by stack: layer 3 of the encoder and of the decoder are two places."""

from __future__ import annotations

import polars as pl

READ = "decoder"  # the stack that the head reads
CROSS = "cross_"
CROSS_ATTENTION = "cross-attention"


def by_stack(rows: pl.DataFrame) -> list[tuple[str | None, pl.DataFrame]]:
    """Split the rows of one training into encoder, decoder and cross-attention; one part without a name elsewhere.

    In the part of cross-attention its sites bear the names of self-attention's (``head_out``, ``attn_out``), so that
    the same figures draw them. Pairs of places in two stacks are in no part: they stay in the table. Rows of no stack,
    such as named sets across both, are with the decoder.
    """
    if "stack" not in rows.columns or rows["stack"].is_null().all():
        return [(None, rows)]
    if "stack_other" in rows.columns:
        rows = rows.filter(pl.col("stack").eq_missing(pl.col("stack_other")))
    cross = pl.col("site").str.contains(CROSS, literal=True).fill_null(False)
    decoder = pl.col("stack").fill_null(READ) == READ
    parts = [
        ("encoder", rows.filter(pl.col("stack") == "encoder")),
        (READ, rows.filter(decoder & ~cross)),
        (
            CROSS_ATTENTION,
            rows.filter(decoder & cross).with_columns(pl.col("site").str.replace(CROSS, "", literal=True)),
        ),
    ]
    return [(name, part) for name, part in parts if not part.is_empty()]


def read_stack(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table without the encoder and cross-attention of encoder-decoders, for figures of all arms together."""
    if "stack" not in table.columns:
        return table
    kept = pl.col("stack").fill_null(READ) == READ
    if "stack_other" in table.columns:
        kept &= pl.col("stack").eq_missing(pl.col("stack_other"))
    return table.filter(kept & ~pl.col("site").str.contains(CROSS, literal=True).fill_null(False))


def says_stack(table: pl.DataFrame) -> str:
    """Return what the caption of such a figure adds; nothing without encoder-decoders."""
    return " Of encoder-decoders: the decoder." if "stack" in table.columns else ""
