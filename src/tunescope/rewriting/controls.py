"""Controls for rewrites: what a swap that means nothing does to the same texts."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.errors import ConfigError, DataError
from tunescope.progress import SILENT, Progress
from tunescope.rewriting.changes import ARTICLE, Rewrite, Rewritten
from tunescope.rewriting.engine import Edit, assemble, draw, with_articles
from tunescope.rewriting.perturbations import perturb
from tunescope.rewriting.rows import apply_rows, check_rows
from tunescope.rewriting.words import in_case_of, split_words

CONTROLS = ("neutral_names", "random_words")
NEAREST = 25  # candidates to each side in the order of frequency


def controls(
    pairs: pl.DataFrame,
    name: str,
    seed: int = 0,
    train_texts: Iterable[str] | None = None,
    *,
    progress: Progress = SILENT,
) -> Rewritten:
    """Return the control of a table of pairs (or, for names, of any rows).

    ``neutral_names``: every first name of the original becomes another one of the same gender and group; texts
    without a name have no such control. ``random_words``: at each changed place, instead of the new word, a random
    word that is about as frequent in the train texts as the new word is; the same word gets the same replacement
    within a text, and no word that is changed anywhere in the pairs is drawn.

    Args:
        pairs: ``row_id``, ``original`` and, for ``random_words``, ``changes``, as :class:`Rewritten` has them; for
            ``neutral_names`` a table with ``text`` does too.
        name: ``neutral_names`` or ``random_words``.
        seed: Another seed gives other words.
        train_texts: For ``random_words``: the texts in which frequencies are counted.
        progress: Where the work reports to.

    Returns:
        A table of the same form; ``row_id`` joins it with the pairs. Each control has the direction ``control``.

    Raises:
        ConfigError: There is no such control, or ``random_words`` was given no train texts.
        DataError: A column is missing, or the train texts hold too few different words to draw from.
    """
    if name not in CONTROLS:
        raise ConfigError(f"There is no control {name!r}.", hint=f"Choose from: {', '.join(CONTROLS)}.")
    frame = pairs if "text" in pairs.columns else pairs.with_columns(text=pl.col("original"))
    if name == "neutral_names":
        return perturb(frame, "neutral_names", seed=seed, progress=progress)
    check_rows(pairs, "row_id", "original", "changes")
    if train_texts is None:
        raise ConfigError(
            "The control 'random_words' needs train texts to count how frequent words are.",
            hint="Give train_texts=rows.split('train').frame['text'].",
        )
    changes = dict(zip(pairs["row_id"].cast(pl.String), pairs["changes"].to_list(), strict=True))
    banned = {c[key].lower() for found in changes.values() for c in found for key in ("old", "new")}
    vocabulary = Vocabulary.of(train_texts, banned)

    def replaced(text: str, row_id: str) -> Rewrite | None:
        return _randomised(text, row_id, changes[row_id], vocabulary, seed)

    return apply_rows(frame, name, replaced, progress)


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their frequency.

    Attributes:
        counts: How often each word stands in the train texts.
        order: The words that may be drawn, from rare to frequent (alphabetical among equals).
        frequencies: The counts of ``order``.
    """

    counts: Mapping[str, int]
    order: Sequence[str]
    frequencies: Sequence[int]

    @classmethod
    def of(cls, texts: Iterable[str], banned: Iterable[str] = ()) -> Vocabulary:
        """Count the words of texts.

        Raises:
            DataError: Fewer than two words are left to draw from.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text).lower)
        stop = set(banned)
        order = sorted((w for w in counts if w.isalpha() and w not in stop), key=lambda w: (counts[w], w))
        if len(order) < 2:
            raise DataError(
                f"Expected train texts with at least two other words to draw from; came {len(order)}.",
                hint="Give more train texts.",
            )
        return cls(counts, order, [counts[w] for w in order])

    def like(self, word: str, seed: int, row_id: str) -> str:
        """Draw a word about as frequent as ``word``: one of the 25 nearest to each side."""
        middle = bisect_left(self.frequencies, self.counts.get(word, 0))
        low = max(0, min(middle - NEAREST, len(self.order) - 2 * NEAREST))
        high = min(len(self.order), low + 2 * NEAREST)
        return self.order[low + draw(seed, row_id, "random_words", word, below=high - low)]


def _randomised(
    text: str, row_id: str, changes: Sequence[Mapping[str, Any]], vocabulary: Vocabulary, seed: int
) -> Rewrite | None:
    edits = []
    for change in changes:
        if change["category"] == ARTICLE:
            continue
        old = text[change["start"] : change["end"]]
        drawn = vocabulary.like(change["new"].lower(), seed, row_id)
        new = in_case_of(old, drawn)
        edits.append(Edit(change["start"], change["end"], new, change["term"], "random_words", ""))
    return assemble(text, with_articles(split_words(text), edits), "control") if edits else None
