"""Words that tell a class by train rows, and the texts in which one is replaced by another class's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunescope.data.frame import encode
from tunescope.data.tokens import Tokens
from tunescope.evaluation.words import plain_word, word_spans

TYPICAL = 200  # words a class that may stand in for another class's
STRONGEST = 60  # of them a class, that are tried
PLACES, TRIED, EACH = 3, 24, 4  # places of a text, words tried at each, and how many that fit are kept


def telling_words(texts: Mapping[str, str], tokens: Tokens, classes: int) -> list[dict[str, float]]:
    """Return per class the words that tell it and how well: log odds against all other rows.

    The smoothed log odds ratio with an informative Dirichlet prior (Monroe et al. 2008), as a z score; words count
    once a row. Words with a z score of 2 or more are kept, the highest first, :data:`TYPICAL` at most.
    """
    counts: list[Counter[str]] = [Counter() for _ in range(classes)]
    for row_id, label in zip(tokens.row_ids, tokens.labels, strict=True):
        if label >= 0:
            text = texts[row_id]
            counts[int(label)].update({plain_word(text[start:end]) for start, end in word_spans(text)})
    every: Counter[str] = sum(counts, Counter())
    total, found = sum(every.values()), []
    prior = {word: 10.0 * number / max(total, 1) for word, number in every.items()}
    for own in counts:
        size, scores = sum(own.values()), {}
        for word, number in own.items():
            other = every[word] - number
            first, second = number + prior[word], other + prior[word]
            odds = np.log(first / (size + 10.0 - first)) - np.log(second / (total - size + 10.0 - second))
            scores[word] = float(odds / np.sqrt(1 / first + 1 / second))
        best = sorted((word for word in scores if scores[word] >= 2), key=lambda word: (-scores[word], word))
        found.append({word: scores[word] for word in best[:TYPICAL]})
    return found


def replacements(
    tokenizer: Any,
    text: str,
    label: int,
    telling: Sequence[Mapping[str, float]],
    generator: np.random.Generator,
) -> list[str]:
    """Return the text with one of its telling words replaced by one of another class, of as many tokens in all.

    Args:
        tokenizer: Counts the tokens.
        text: The text.
        label: Its class.
        telling: Of every class its words, from :func:`telling_words`.
        generator: Draws which words are tried.

    Returns:
        Up to ``PLACES x EACH`` texts, those with the most telling word replaced first; none where nothing fits.
    """
    spans = word_spans(text)
    words = [plain_word(text[start:end]) for start, end in spans]
    ranked = sorted((place for place, word in enumerate(words) if word in telling[label]),
                    key=lambda place: -telling[label][words[place]])  # fmt: skip
    others = [
        word for other, own in enumerate(telling) if other != label
        for word in list(own)[:STRONGEST] if word not in telling[label]
    ]  # fmt: skip
    if not ranked or not others:
        return []
    length = len(encode(tokenizer, [text])["input_ids"][0])
    found = []
    for place in ranked[:PLACES]:
        start, end = spans[place]
        begin = text[start:end].lower().find(words[place])
        if begin < 0:
            continue
        before, after = text[: start + begin], text[start + begin + len(words[place]) :]
        tried = [before + others[index] + after for index in generator.permutation(len(others))[:TRIED]]
        fits = [
            one for one, ids in zip(tried, encode(tokenizer, tried)["input_ids"], strict=True) if len(ids) == length
        ]  # fmt: skip
        found += fits[:EACH]
    return found
