"""METEOR without any download (Lavie and Agarwal 2007; Banerjee and Lavie 2005).

Words are matched in stages, each on what the stages before left over: equal words, equal stems (Porter), and, where a
source of synonyms is given, synonyms. With m matched words in c runs that stand in the same order in both texts, and
precision P = m / words of the prediction, recall R = m / words of the reference,

    score = (1 - gamma (c / m)^beta) P R / (alpha P + (1 - alpha) R),   alpha 0.9, beta 3, gamma 0.5.

nltk hands *stemmed* words to its stage of synonyms, so that "movie" is looked up as "movi" and finds nothing; here that
stage sees the words themselves.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from tunescope.errors import MissingDependencyError

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
Numbered = list[tuple[int, str]]
Synonyms = Callable[[str], Collection[str]]


def meteor_variant(synonyms: Synonyms | None = None, stems: bool = True) -> str:
    """Return the name of a variant, for tables: which stages there are."""
    return "+".join(["exact", *(["stem"] if stems else []), *([] if synonyms is None else ["synonym"])])


def meteor(
    prediction: Sequence[str],
    reference: Sequence[str],
    *,
    stems: bool = True,
    synonyms: Synonyms | None = None,
) -> float:
    """Return the METEOR score of one prediction, 0 to 1 (1 is never quite reached: there is at least one run).

    Args:
        prediction: Its words, from :func:`meteor_words`.
        reference: The reference's words.
        stems: Whether words with equal stems match.
        synonyms: Returns the synonyms of a word, or None for a variant without that stage.

    Raises:
        MissingDependencyError: Stems are asked for and nltk, which has the stemmer, is not installed.
    """
    ours = list(enumerate(word.lower() for word in prediction))
    theirs = list(enumerate(word.lower() for word in reference))
    if not ours or not theirs:
        return 0.0
    matches, left, right = _match(ours, theirs, lambda word: word)
    if stems:
        stem = _stemmer()
        more, left, right = _match(left, right, stem)
        matches += more
    if synonyms is not None:
        matches += _match_synonyms(left, right, synonyms)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(ours), len(matches) / len(theirs)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * (_runs(sorted(matches)) / len(matches)) ** BETA)


def meteor_words(text: str) -> list[str]:
    """Split a text into words and punctuation by nltk's treebank rules, which need no data.

    Raises:
        MissingDependencyError: nltk is not installed.
    """
    return [str(word) for word in _tokenizer().tokenize(text)]


def _match(
    left: Numbered, right: Numbered, form: Callable[[str], str]
) -> tuple[list[tuple[int, int]], Numbered, Numbered]:
    """Match words of equal form, the last ones first, as the reference implementation does; return what is left."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, (_, word) in enumerate(right):
        places[form(word)].append(index)
    matches, gone_left, gone_right = [], set(), set()
    for index in reversed(range(len(left))):
        open_places = places.get(form(left[index][1]))
        if open_places:
            other = open_places.pop()
            gone_left.add(index)
            gone_right.add(other)
            matches.append((left[index][0], right[other][0]))
    return (
        matches,
        [one for index, one in enumerate(left) if index not in gone_left],
        [one for index, one in enumerate(right) if index not in gone_right],
    )


def _match_synonyms(left: Numbered, right: Numbered, synonyms: Synonyms) -> list[tuple[int, int]]:
    """Match words of the prediction with synonyms of theirs in the reference, the last ones first."""
    free = dict(right)
    matches = []
    for place, word in reversed(left):
        known = {one.lower() for one in synonyms(word)}
        usable = [other for other, candidate in free.items() if candidate in known]
        if usable:
            matches.append((place, max(usable)))
            del free[max(usable)]
    return matches


def _runs(matches: Sequence[tuple[int, int]]) -> int:
    """Count runs of matches that are neighbours in both texts."""
    runs = 1
    for (place, other), (next_place, next_other) in itertools.pairwise(matches):
        runs += (next_place, next_other) != (place + 1, other + 1)
    return runs


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    try:
        from nltk.tokenize.destructive import NLTKWordTokenizer
    except ImportError as error:
        raise _missing() from error
    return NLTKWordTokenizer()


@lru_cache(maxsize=1)
def _stemmer() -> Callable[[str], str]:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise _missing() from error
    return lru_cache(maxsize=65_536)(PorterStemmer().stem)


def _missing() -> MissingDependencyError:
    return MissingDependencyError(
        "METEOR needs nltk's tokenizer and stemmer, and nltk is not installed.",
        hint="pip install 'tunescope[summaries]'",
    )
