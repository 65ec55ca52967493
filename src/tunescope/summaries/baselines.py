"""Summaries that need no model: the first sentences, some sentences, and the best sentences there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunescope.errors import DataError
from tunescope.seeds import derive_seed
from tunescope.summaries.metrics import words_of
from tunescope.summaries.sentences import split_sentences

SENTENCES = 3


def lead(article: str, count: int = SENTENCES) -> str:
    """Return the first sentences of an article, one a line; on news this is hard to beat."""
    return "\n".join(_sentences(article)[:count])


def random_sentences(article: str, row_id: str, seed: int, count: int = SENTENCES) -> str:
    """Return some sentences of an article in their order, drawn by seed and row id alone, one a line."""
    sentences = _sentences(article)
    generator = np.random.default_rng(derive_seed(seed, "random sentences", row_id))
    chosen = generator.choice(len(sentences), size=min(count, len(sentences)), replace=False)
    return "\n".join(sentences[index] for index in sorted(chosen.tolist()))


def oracle(article: str, summary: str, count: int = SENTENCES) -> str:
    """Return the article's sentences that overlap most with the reference summary, one a line, in their order.

    Greedy (Nallapati et al. 2017): sentences are added while the mean F1 of shared words and bigrams grows, at most
    ``count``. It sees the reference, so it says about what picking sentences could reach; being greedy, not exactly.
    """
    sentences = _sentences(article)
    words = [words_of(sentence) for sentence in sentences]
    target = words_of(summary)
    if not target:
        raise DataError("The oracle needs a reference summary with at least one word.")
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < count:
        scored = [
            (_overlap([word for one in sorted([*chosen, index]) for word in words[one]], target), -index)
            for index in range(len(sentences))
            if index not in chosen
        ]
        if not scored or max(scored)[0] <= best:
            break
        best, place = max(scored)
        chosen.append(-place)
    return "\n".join(sentences[index] for index in sorted(chosen))


def _sentences(article: str) -> list[str]:
    sentences = split_sentences(article)
    if not sentences:
        raise DataError("An empty article has no sentences to take.", hint="Take the row out.")
    return sentences


def _overlap(ours: Sequence[str], target: Sequence[str]) -> float:
    """Return the mean of the F1 of shared words and of shared bigrams."""
    return (_f1(ours, target, 1) + _f1(ours, target, 2)) / 2


def _f1(ours: Sequence[str], target: Sequence[str], n: int) -> float:
    first, second = (
        Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))
        for words in (ours, target)
    )
    shared = sum((first & second).values())
    return 2 * shared / (first.total() + second.total()) if shared else 0.0
