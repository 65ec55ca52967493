"""WordNet synonyms and a tagger, where they are installed; never needed by the shipped lexicons."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunescope.errors import ConfigError, MissingDependencyError
from tunescope.rewriting import english
from tunescope.rewriting.lexicon import ONE_WAY, Entry, Lexicon, load_lexicon
from tunescope.rewriting.wordnet_files import WordNetFolder

_WORD = re.compile(r"[a-z]{4,}")
_POS = {"noun": "n", "verb": "v", "adjective": "a", "adverb": "r"}
SEARCH_FOLDER = "WNSEARCHDIR"  # WordNet's own variable for the folder of its database
DEBIAN = Path("/usr/share/wordnet")
_SOURCE = "WordNet (Fellbaum 1998), synonym by the most frequent sense of both words"
LEAST_USES, LEAST_SHARE = 5, 0.02  # a synonym that stands less often in the texts is a word of other texts


def nltk_tagger() -> Callable[[Sequence[str]], Sequence[str]]:
    """Return nltk's tagger as a function from words to Penn tags.

    Raises:
        MissingDependencyError: nltk or the tagger's data is not installed.
    """
    nltk = _nltk("averaged_perceptron_tagger_eng")
    _find(nltk, "taggers/averaged_perceptron_tagger_eng", "averaged_perceptron_tagger_eng")
    return lambda words: [tag for _, tag in nltk.pos_tag(list(words))]


def wordnet_lexicon(
    words: Iterable[tuple[str, str]], *, smallest_share: float = 0.5, known: Mapping[str, int] | None = None,
    reader: Any = None,
) -> Lexicon:  # fmt: skip
    """Return a one-way lexicon of synonyms by part of speech and frequency of senses.

    A word's sense is the one with the most counted uses (SemCor counts in WordNet); it serves only where it makes
    up ``smallest_share`` of the word's uses. The synonym is the other single word of that sense with the most
    counted uses that also means the same to a reader: the sense makes up ``smallest_share`` of *its* uses as this part
    of speech, it is more often of this part of speech than not, and it is neither a function word nor the same word
    with another ending. Words without such a synonym are left out.

    Args:
        words: Words, each with ``noun``, ``verb``, ``adjective`` or ``adverb``.
        smallest_share: From 0 to 1: how much of the uses of a word, and of its synonym, the sense must make up.
        known: How often words stand in the texts; a synonym stands there 5 times or more, and at least a fiftieth as
            often as the word. None: any word may be a synonym.
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
        synonym = _synonym(source, word.lower(), _POS[kind], smallest_share, known)
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


def frequent_synonyms(
    texts: Sequence[str], labels: Sequence[str | None] | None = None, *, most: int = 300, reader: Any = None
) -> Lexicon:
    """Return WordNet synonyms of the words that stand most often in some texts, each as its commonest part of speech.

    With labels, the most frequent words of each class are taken, and each is replaced in rows of the classes that it is
    frequent in. Function words, and words that are more often a form of another word (``thought`` of think), are passed
    over; so are synonyms that hardly stand in the texts themselves.

    Args:
        texts: Texts to count words in; those of train, never of the split that is rewritten.
        labels: The class of each text, or None; None: all texts are counted together.
        most: How many words are looked up (of each class, with labels), the most frequent first; shorter ones than four
            letters are passed over.
        reader: An object like ``nltk.corpus.wordnet``; None: what :func:`wordnet` finds.

    Raises:
        MissingDependencyError: There is neither WordNet's folder nor nltk with its data.
        ConfigError: No word has a synonym.
    """
    source = reader if reader is not None else wordnet()
    by_class: dict[str | None, Counter[str]] = {}
    for text, label in zip(texts, labels or [None] * len(texts), strict=True):
        by_class.setdefault(label, Counter()).update(_WORD.findall(text.lower()))
    known = Counter[str]()
    for counts in by_class.values():
        known.update(counts)
    if labels is not None:
        by_class.pop(None, None)
    classes: dict[str, list[str]] = {}
    for label, counts in by_class.items():
        for word in sorted(counts, key=lambda word: (-counts[word], word))[:most]:
            classes.setdefault(word, []).extend([] if label is None else [label])
    kinds = [(word, kind) for word in classes if (kind := _kind(source, word)) is not None]
    found = wordnet_lexicon(kinds, known=known, reader=source)
    entries = {
        word: replace(entry, labels=tuple(sorted(classes[word]))) for word, entry in found.entries.items()
    }
    return replace(found, entries=entries)


def _kind(source: Any, word: str) -> str | None:
    """Return the part of speech in which a word is used most; None where it is a name or mostly another word's form.

    ``thought`` is more often a form of think than a noun, and ``might`` is no noun where English has an auxiliary.
    """
    if word in english.FUNCTION or word in load_lexicon("names").entries:
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


def _synonym(
    source: Any, word: str, pos: str, smallest_share: float, known: Mapping[str, int] | None
) -> str | None:
    senses = [(sense, _count(sense, word)) for sense in source.synsets(word, pos=pos)]
    total = sum(count for _, count in senses)
    if not senses or not total:
        return None
    sense, count = max(senses, key=lambda pair: pair[1])  # of equals the first, WordNet's own order
    if count / total < smallest_share:
        return None
    others = sorted(
        (
            (lemma.count(), lemma.name())
            for lemma in sense.lemmas()
            if lemma.name().isalpha() and lemma.count()
        ),
        reverse=True,
    )
    for uses, name in others:
        if name == word or not name.islower():
            continue
        if known is not None and known.get(name, 0) < max(LEAST_USES, LEAST_SHARE * known.get(word, 0)):
            continue
        if name in english.FUNCTION or name.startswith(word) or word.startswith(name):
            continue
        by_part = {
            part: sum(_count(one, name) for one in source.synsets(name, pos=part)) for part in _POS.values()
        }
        if uses >= smallest_share * by_part[pos] and 2 * by_part[pos] > sum(by_part.values()):
            return name
    return None


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
