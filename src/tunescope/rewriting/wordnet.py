"""WordNet synonyms and a tagger, where nltk and its data are installed; never needed by the shipped lexicons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tunescope.errors import ConfigError, MissingDependencyError
from tunescope.rewriting.lexicon import ONE_WAY, Entry, Lexicon

_WORD = re.compile(r"[a-z]{4,}")
_POS = {"noun": "n", "verb": "v", "adjective": "a", "adverb": "r"}
_SOURCE = "WordNet (Fellbaum 1998), first synonym of the most frequent sense"


def nltk_tagger() -> Callable[[Sequence[str]], Sequence[str]]:
    """Return nltk's tagger as a function from words to Penn tags.

    Raises:
        MissingDependencyError: nltk or the tagger's data is not installed.
    """
    nltk = _nltk("averaged_perceptron_tagger_eng")
    _find(nltk, "taggers/averaged_perceptron_tagger_eng", "averaged_perceptron_tagger_eng")
    return lambda words: [tag for _, tag in nltk.pos_tag(list(words))]


def wordnet_lexicon(
    words: Iterable[tuple[str, str]], *, smallest_share: float = 0.5, reader: Any = None
) -> Lexicon:
    """Return a one-way lexicon of synonyms by part of speech and frequency of senses.

    A word's sense is the one with the most counted uses (SemCor counts in WordNet); it serves only where it makes
    up ``smallest_share`` of the word's uses. The synonym is the other single word of that sense with the most
    counted uses; words without one are left out.

    Args:
        words: Words, each with ``noun``, ``verb``, ``adjective`` or ``adverb``.
        smallest_share: From 0 to 1: how much of a word's uses the sense must make up.
        reader: An object like ``nltk.corpus.wordnet``; None: that one.

    Raises:
        MissingDependencyError: nltk or its WordNet data is not installed.
        ConfigError: A part of speech is unknown, or no word has a synonym.
    """
    wordnet = reader if reader is not None else _wordnet()
    entries: dict[str, Entry] = {}
    for word, kind in words:
        if kind not in _POS:
            raise ConfigError(f"{kind!r} is not a part of speech.", hint=f"Choose from: {', '.join(_POS)}.")
        synonym = _synonym(wordnet, word.lower(), _POS[kind], smallest_share)
        if synonym is not None and word.lower() not in entries:
            entries[word.lower()] = Entry(
                word.lower(),
                (synonym,),
                "synonym",
                ONE_WAY[0],
                "part_of_speech",
                _SOURCE,
                part_of_speech=kind,
            )
    if not entries:
        raise ConfigError(
            f"WordNet has no synonym for any of these words at smallest_share={smallest_share}.",
            hint="Give more words, or a smaller share.",
        )
    return Lexicon("wordnet", ONE_WAY, {"synonym": _SOURCE}, entries)


def frequent_synonyms(texts: Iterable[str], *, most: int = 300, reader: Any = None) -> Lexicon:
    """Return WordNet synonyms of the words that stand most often in some texts, each as its commonest part of speech.

    Args:
        texts: Texts to count words in; those of train, never of the split that is rewritten.
        most: How many words are looked up, the most frequent first; shorter ones than four letters are passed over.
        reader: An object like ``nltk.corpus.wordnet``; None: that one.

    Raises:
        MissingDependencyError: nltk or its WordNet data is not installed.
        ConfigError: No word has a synonym.
    """
    wordnet = reader if reader is not None else _wordnet()
    counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:most]
    kinds = []
    for word in ranked:
        uses = {
            kind: sum(_count(sense, word) for sense in wordnet.synsets(word, pos=pos))
            for kind, pos in _POS.items()
        }
        best = max(uses, key=lambda kind: uses[kind])
        if uses[best]:
            kinds.append((word, best))
    return wordnet_lexicon(kinds, reader=wordnet)


def _synonym(wordnet: Any, word: str, pos: str, smallest_share: float) -> str | None:
    senses = [(sense, _count(sense, word)) for sense in wordnet.synsets(word, pos=pos)]
    total = sum(count for _, count in senses)
    if not senses or not total:
        return None
    sense, count = max(senses, key=lambda pair: pair[1])  # of equals the first, WordNet's own order
    if count / total < smallest_share:
        return None
    others = [
        (lemma.count(), lemma.name()) for lemma in sense.lemmas()
        if lemma.name().lower() != word and lemma.name().isalpha() and lemma.name().islower()
    ]  # fmt: skip
    return max(others, key=lambda pair: (pair[0], pair[1]))[1] if others else None


def _count(sense: Any, word: str) -> int:
    return sum(lemma.count() for lemma in sense.lemmas() if lemma.name().lower() == word)


def _wordnet() -> Any:
    nltk = _nltk("wordnet")
    _find(nltk, "corpora/wordnet", "wordnet")
    from nltk.corpus import wordnet

    return wordnet


def _nltk(data: str) -> Any:
    try:
        import nltk
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "nltk is not installed.", hint=f"pip install nltk, then python -m nltk.downloader {data}"
        ) from error
    return nltk


def _find(nltk: Any, resource: str, data: str) -> None:
    for name in (resource, f"{resource}.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return
    raise MissingDependencyError(
        f"nltk is installed, its data {data!r} is not.", hint=f"python -m nltk.downloader {data}"
    )
