"""WordNet synonyms and a tagger, where they are installed; never needed by the shipped lexicons."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tunescope.errors import ConfigError, MissingDependencyError
from tunescope.rewriting import english
from tunescope.rewriting.lexicon import ONE_WAY, Entry, Lexicon
from tunescope.rewriting.wordnet_files import WordNetFolder

_WORD = re.compile(r"[a-z]{4,}")
_POS = {"noun": "n", "verb": "v", "adjective": "a", "adverb": "r"}
SEARCH_FOLDER = "WNSEARCHDIR"  # WordNet's own variable for the folder of its database
DEBIAN = Path("/usr/share/wordnet")
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
    counted uses; words without one that was counted are left out.

    Args:
        words: Words, each with ``noun``, ``verb``, ``adjective`` or ``adverb``.
        smallest_share: From 0 to 1: how much of a word's uses the sense must make up.
        reader: An object like ``nltk.corpus.wordnet``; None: what :func:`wordnet` finds.

    Raises:
        MissingDependencyError: There is neither WordNet's folder nor nltk with its data.
        ConfigError: A part of speech is unknown, or no word has a synonym.
    """
    source = reader if reader is not None else wordnet()
    entries: dict[str, Entry] = {}
    for word, kind in words:
        if kind not in _POS:
            raise ConfigError(f"{kind!r} is not a part of speech.", hint=f"Choose from: {', '.join(_POS)}.")
        synonym = _synonym(source, word.lower(), _POS[kind], smallest_share)
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

    Function words, and words that are more often a form of another word (``thought`` of think), are passed over.

    Args:
        texts: Texts to count words in; those of train, never of the split that is rewritten.
        most: How many words are looked up, the most frequent first; shorter ones than four letters are passed over.
        reader: An object like ``nltk.corpus.wordnet``; None: what :func:`wordnet` finds.

    Raises:
        MissingDependencyError: There is neither WordNet's folder nor nltk with its data.
        ConfigError: No word has a synonym.
    """
    source = reader if reader is not None else wordnet()
    counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:most]
    kinds = [(word, kind) for word in ranked if (kind := _kind(source, word)) is not None]
    return wordnet_lexicon(kinds, reader=source)


def _kind(source: Any, word: str) -> str | None:
    """Return the part of speech in which a word is used most; None where it is mostly a form of another word.

    ``thought`` is more often a form of think than a noun, and ``might`` is no noun where English has an auxiliary.
    """
    if word in english.FUNCTION:
        return None
    own: dict[str, int] = {}
    other = 0
    for kind, pos in _POS.items():
        senses = source.synsets(word, pos=pos)
        own[kind] = sum(_count(sense, word) for sense in senses)
        without = [sense for sense in senses if not any(one.name().lower() == word for one in sense.lemmas())]
        other += sum(_count_of_stem(sense, word) for sense in without)
    best = max(own, key=lambda kind: own[kind])
    return best if own[best] > other else None


def _count_of_stem(sense: Any, word: str) -> int:
    """Return the uses of the word of this sense that another one is a form of: one with its first letter, if any."""
    counts = {lemma.name().lower(): lemma.count() for lemma in sense.lemmas()}
    alike = [count for name, count in counts.items() if name[0] == word[0]]
    return int(max(alike or counts.values()))


def _synonym(source: Any, word: str, pos: str, smallest_share: float) -> str | None:
    senses = [(sense, _count(sense, word)) for sense in source.synsets(word, pos=pos)]
    total = sum(count for _, count in senses)
    if not senses or not total:
        return None
    sense, count = max(senses, key=lambda pair: pair[1])  # of equals the first, WordNet's own order
    if count / total < smallest_share:
        return None
    others = [
        (lemma.count(), lemma.name()) for lemma in sense.lemmas()
        if lemma.name().lower() != word and lemma.name().isalpha() and lemma.name().islower() and lemma.count()
    ]  # fmt: skip
    return max(others, key=lambda pair: (pair[0], pair[1]))[1] if others else None


def _count(sense: Any, word: str) -> int:
    return sum(lemma.count() for lemma in sense.lemmas() if lemma.name().lower() == word)


def wordnet() -> Any:
    """Return a reader of WordNet: the folder that ``WNSEARCHDIR`` names, else nltk's data, else Debian's folder.

    Raises:
        MissingDependencyError: There is none of them.
        DataError: The folder lacks a file of the database.
    """
    if given := os.environ.get(SEARCH_FOLDER):
        return WordNetFolder(given)
    try:
        _find(_nltk("wordnet"), "corpora/wordnet", "wordnet")
    except MissingDependencyError as error:
        if DEBIAN.is_dir():
            return WordNetFolder(DEBIAN)
        hint = f"{error.hint}; or apt install wordnet-base; or let {SEARCH_FOLDER} name WordNet's folder"
        raise MissingDependencyError(error.message, hint=hint) from error
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
