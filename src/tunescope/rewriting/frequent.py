"""The frequent words of a class, counted on train rows alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import polars as pl

from tunescope.errors import DataError
from tunescope.rewriting import english
from tunescope.rewriting.english import word_set
from tunescope.rewriting.rows import shown
from tunescope.rewriting.words import split_words

# What study 000 left out besides its library's list of function words.
EMOTION_STOP_WORDS = word_set("im really ive feel feels feeling get got like")
_MORE_STOP_WORDS = word_set(
    "don't can't it's i'm i've didn didnt doesn wasn isn couldn wouldn t s m d ll re ve don u ur go going been feelings"
)


def stop_words(also: Collection[str] = ()) -> frozenset[str]:
    """Return the function words that frequent words leave out, and ``also``."""
    return english.FUNCTION | english.NUMBERS - {"one"} | _MORE_STOP_WORDS | frozenset(also)


def frequent_words(
    train: pl.DataFrame,
    label: object = None,
    n: int = 10,
    *,
    label_column: str = "label",
    also_stop: Collection[str] = EMOTION_STOP_WORDS,
) -> list[tuple[str, int]]:
    """Return the ``n`` most frequent words of a class with their counts, function words left out.

    Args:
        train: Train rows with ``text``, and the column of labels. Where the table has a column ``split``, it may
            hold train rows only.
        label: The class; None: all rows.
        n: How many words.
        label_column: The column of classes.
        also_stop: Further words to leave out.

    Raises:
        DataError: A column or the class is missing, or the table holds rows of another split: words that are
            picked on the rows they are tested on would fit them by luck.
    """
    needed = ["text"] if label is None else ["text", label_column]
    for column in needed:
        if column not in train.columns:
            raise DataError(
                f"Expected a column {column!r}; the table has: {shown(train.columns)}.",
                hint="Rename your column.",
            )
    others = sorted(set(train["split"].unique()) - {"train"}) if "split" in train.columns else []
    if others:
        raise DataError(
            f"Frequent words are picked on train rows only; the table holds rows of: {', '.join(others)}.",
            hint="Give `rows.split('train').frame`.",
        )
    rows = train if label is None else train.filter(pl.col(label_column) == label)
    if not rows.height:
        known = shown(train[label_column].unique().sort().to_list())
        raise DataError(
            f"No train row is of class {label!r}; the classes are: {known}.", hint="Name one of these."
        )
    stop = stop_words(also_stop)
    counts: Counter[str] = Counter()
    for text in rows["text"]:
        counts.update(word for word in split_words(text).lower if word not in stop and not word.isdigit())
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]
