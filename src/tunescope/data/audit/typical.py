"""The words of each class: the most frequent ones, and those that tell it from the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.data.audit.words import Corpus

PRIOR_WORDS = 1000.0  # the weight of the prior, in words ...
PRIOR_SHARE = 0.1  # ... and at most this share of the words there are, so that it does not drown few texts
LEAST_COUNT = 5  # words met less often are not called typical

# what the list of scikit-learn lacks: contractions, whole and as they are typed without an apostrophe
_CONTRACTIONS = (
    "im ive id ill youre youve youll youd hes shes its were theyre theyve thats whats theres dont doesnt didnt "
    "isnt arent wasnt werent havent hasnt hadnt wont wouldnt couldnt shouldnt cant cannot did does doing just "
    "don doesn didn isn aren wasn weren haven hasn hadn won wouldn couldn shouldn can"
)
_CONTRACTED = frozenset(_CONTRACTIONS.split())


def is_stop_word(word: str) -> bool:
    """Say whether a word in lower case is an English function word (scikit-learn's list, and contractions)."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    bare = word.replace("’", "'")
    if bare in ENGLISH_STOP_WORDS or bare in _CONTRACTED:
        return True
    if "'" not in bare:
        return len(bare) < 2 and not bare.isdigit()
    head = bare.removesuffix("n't") if bare.endswith("n't") else bare.partition("'")[0]
    return head in ENGLISH_STOP_WORDS or head in _CONTRACTED or bare.replace("'", "") in _CONTRACTED


def count_words(corpus: Corpus, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each word stands in texts of each class, int64 [C, V]; label -1 is left out."""
    size = len(corpus.vocabulary)
    per_word = np.repeat(labels, corpus.lengths)
    known = per_word >= 0
    flat = np.bincount(per_word[known] * size + corpus.codes[known], minlength=classes * size)
    return flat.reshape(classes, size)


def log_odds(counts: np.ndarray, prior_words: float = PRIOR_WORDS) -> np.ndarray:
    """Return how typical each word is of each class against all others, as z-scores, float64 [C, V].

    The log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi & Quinn 2008, equations 16, 20
    and 22): the prior of a word is its share of all words times ``prior_words``, which keeps rare words from
    looking extreme. Beyond 1.96 a word is typical at the 5 % level, before correction for many words.

    Args:
        counts: Occurrences per class and word [C, V].
        prior_words: The weight of the prior, in words.

    Returns:
        z-scores; 0 where a word does not occur, and everywhere if there is one class.
    """
    total = counts.sum(axis=0).astype(np.float64)
    scores = np.zeros(counts.shape)
    there = total > 0
    if not there.any():
        return scores
    prior = prior_words * total[there] / total.sum()
    for label, own in enumerate(counts):
        inside = own[there].astype(np.float64)
        outside = total[there] - inside
        if inside.sum() == 0 or outside.sum() == 0:
            continue
        odds_in = np.log(inside + prior) - np.log(inside.sum() + prior_words - inside - prior)
        odds_out = np.log(outside + prior) - np.log(outside.sum() + prior_words - outside - prior)
        scores[label, there] = (odds_in - odds_out) / np.sqrt(1 / (inside + prior) + 1 / (outside + prior))
    return scores


def audit_words(corpus: Corpus, labels: np.ndarray, names: tuple[str, ...], top: int) -> dict[str, Any]:
    """List each class's words.

    Returns:
        ``classes``: per class ``frequent`` (without stop-words: ``word, count``) and ``typical`` (stop-words
        included, for they may be typical too: ``word, z, count, elsewhere``), at most ``top`` each.
        ``words``, ``vocabulary`` and ``prior_words``: what they were counted on.
    """
    counts = count_words(corpus, labels, len(names))
    total = counts.sum(axis=0)
    prior_words = min(PRIOR_WORDS, PRIOR_SHARE * float(total.sum()))
    scores = log_odds(counts, prior_words)
    found = {}
    for label, name in enumerate(names):
        own = counts[label]
        frequent: list[dict[str, Any]] = []
        for word in np.argsort(-own, kind="stable"):
            if len(frequent) == top or own[word] == 0:
                break
            if not is_stop_word(corpus.vocabulary[word]):
                frequent.append({"word": corpus.vocabulary[word], "count": int(own[word])})
        score = np.where((total >= LEAST_COUNT) & (scores[label] > 1.96), scores[label], -np.inf)
        typical = [
            {
                "word": corpus.vocabulary[word],
                "z": round(float(score[word]), 3),
                "count": int(own[word]),
                "elsewhere": int(total[word] - own[word]),
            }
            for word in np.argsort(-score, kind="stable")[:top]
            if np.isfinite(score[word])
        ]
        found[name] = {"frequent": frequent, "typical": typical}
    return {
        "classes": found,
        "words": len(corpus.codes),
        "vocabulary": len(corpus.vocabulary),
        "prior_words": prior_words,
    }
