"""Subjects made of tiny models and real (short) texts."""

from __future__ import annotations

import numpy as np
import polars as pl

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.lenses.subject import Subject

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "warm",
    "mat",
    "and",
    "rain",
    "good",
    "day",
    "very",
    "sad",
    "old",
    "house",
    "he",
    "was",
    "angry",
    "noise",
    "street",
    "love",
    "film",
]


def make_rows(n: int = 60, classes: int = 3, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(2, 12))) for _ in range(n)]
    frame = pl.DataFrame({
        "row_id": [f"row-{i}" for i in range(n)],
        "position": pl.Series(range(n), dtype=pl.Int64),
        "split": ["train" if i % 3 == 0 else "validation" for i in range(n)],
        "text": texts,
        "label": pl.Series(generator.integers(0, classes, n), dtype=pl.Int64),
    })  # fmt: skip
    return Rows(frame, LabelMap(tuple(["bad", "fine", "good"][:classes])), {})


def splits_of(classifier, rows: Rows) -> dict[str, Tokens]:
    return {
        name: tokenize(rows.split(name), classifier.tokenizer, classifier.max_length)
        for name in ("train", "validation")
    }


def make_subject(base, tuned, rows: Rows | None = None, **options) -> Subject:
    rows = rows or make_rows()
    return Subject(
        "arm", 0, base, tuned, options.pop("base_head", "probe"), splits_of(tuned, rows), **options
    )
