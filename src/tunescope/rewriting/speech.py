"""The part of speech of a word in its place: a caller's tagger where there is one, else a few sure rules."""

from __future__ import annotations

from tunescope.rewriting import english
from tunescope.rewriting.english import word_set
from tunescope.rewriting.lexicon import Entry
from tunescope.rewriting.words import Words

_PENN = {"N": "noun", "V": "verb", "J": "adjective", "R": "adverb"}
_SUBJECTS = word_set("i you we they he she it who u people")
_BEFORE_VERB = word_set(
    "to will would can could should may might must dont do does did didnt doesnt cant couldnt wont wouldnt not never "
    "always really just don didn doesn wouldn couldn lets please i'd"
)
_BETWEEN = word_set("even just really still also always never only")
_LINK = word_set(
    "am is are was were be been being feel feels felt feeling get gets got getting look looks looked seem seems "
    "seemed sound sounds sounded become became im ive hes shes theyre youre its so very too really quite pretty "
    "more most less rather extremely absolutely totally completely find found make makes made a little bit"
)


def part_of_speech(words: Words, index: int, entry: Entry) -> int | str | None:
    """Answer 0 where the word is of the entry's part of speech, None where it is not, or that it is open."""
    tag = words.tag(index)
    if tag:
        return 0 if _PENN.get(tag[0]) == entry.part_of_speech else None
    found = guess(words, index)
    if found is None:
        return "part_of_speech"
    return 0 if found == entry.part_of_speech else None


def guess(words: Words, index: int) -> str | None:
    """Return ``noun``, ``verb``, ``adjective`` or ``adverb`` where the words around settle it, else None."""
    word = words.lower[index]
    if word in _SPECIAL:
        return _SPECIAL[word](words, index)
    return _general(words, index)


def _general(words: Words, index: int) -> str | None:
    before, after = words.before(index), words.after(index)
    if before in _BETWEEN and words.before(index, 2) in _SUBJECTS:
        return "verb"  # "i even know"
    ends = not after or after in english.FUNCTION
    if before == "t" and words.before(index, 2) in english.AUXILIARIES:
        return "verb"  # "don t know"
    if before in _BEFORE_VERB or before in _SUBJECTS:
        return "verb" if before != "really" or not ends else None
    if before in _LINK and before not in ("a", "little", "make", "makes", "made", "find", "found"):
        return "adjective" if ends else None
    if before in english.DETERMINERS or before in ("of", "in", "for", "with"):
        return "noun" if ends else "adjective"
    return None


def _even(words: Words, index: int) -> str | None:
    """``even`` is an adverb but in "an even number", "we are even" and the like."""
    before, after = words.before(index), words.after(index)
    if before in ("an", "more") and after and after not in english.FUNCTION:
        return "adjective" if before == "an" else "adverb"
    if not after and before in ("are", "be", "get", "got", "were"):
        return "adjective"
    return "adverb"


def _still(words: Words, index: int) -> str | None:
    before, after = words.before(index), words.after(index)
    if before in ("a", "stand", "stood", "sit", "sat", "hold", "stay", "lie") or (
        before == "be" and not after
    ):
        return "adjective"
    return "adverb"


def _little(words: Words, index: int) -> str | None:
    """``a little sad`` is an adverb, ``a little dog`` an adjective, ``very little`` a noun."""
    before, after = words.before(index), words.after(index)
    if not after or after in english.FUNCTION | {"bit", "while", "less", "more"}:
        return "noun" if after != "bit" else "adjective"
    if before in (
        "my",
        "your",
        "his",
        "her",
        "our",
        "their",
        "the",
        "this",
        "that",
        "these",
        "those",
        "cute",
        "some",
    ):
        return "adjective"
    if before in ("very", "so", "too", "how"):
        return None
    ended = not words.after(index, 2) or words.after(index, 2) in english.FUNCTION
    if before == "a" and ended and words.before(index, 2) in _LINK:
        return "adverb" if words.before(index, 2).startswith("fe") else None
    if after in english.STATES or after.endswith(("ed", "er", "ful", "less", "ous", "y", "ing", "ive", "ic")):
        return "adverb" if after not in english.POSSESSED | english.ING_NOUNS else "adjective"
    return None if after.endswith(("t", "nt", "ant")) and before == "a" else "adjective"


def _bit(words: Words, index: int) -> str | None:
    before, after = words.before(index), words.after(index)
    if before in ("i", "he", "she", "it", "dog", "they", "we"):
        return "verb"
    if after == "of":
        return "noun" if words.after(index, 2) not in ("a", "an") else "adverb"
    return "adverb" if before in ("a", "little", "quite") else None


def _much(words: Words, index: int) -> str | None:
    whole = words.after(index) == "of" and words.after(index, 2) not in ("a", "an")
    return (
        "noun"
        if whole and words.before(index) not in ("so", "too", "as", "not", "how", "very", "t")
        else "adverb"
    )


def _one(words: Words, index: int) -> str | None:
    before, after = words.before(index), words.after(index)
    if not after or after in english.FUNCTION:
        return "noun"
    return (
        "adjective"
        if before == "the" and after not in english.FINITE_VERBS and not after.endswith("ed")
        else "number"
    )


def _dont(words: Words, index: int) -> str | None:
    return "auxiliary"


def _like_verb(words: Words, index: int) -> str | None:
    """``know``, ``think``, ``make``, ``want``: verbs but after an article and the like."""
    return "noun" if words.before(index) in english.DETERMINERS - {"all", "that", "which", "both"} else "verb"


def _like_noun(words: Words, index: int) -> str | None:
    """``time``, ``life``, ``people``: nouns wherever English uses them without an ending."""
    return (
        "verb"
        if words.before(index) == "to" and words.lower[index] == "time" and words.after(index)
        else "noun"
    )


def _love(words: Words, index: int) -> str | None:
    before, after = words.before(index), words.after(index)
    if before in _BEFORE_VERB or before in _SUBJECTS:
        return "verb"
    if before in english.DETERMINERS | english.PREPOSITIONS or before in (
        "and",
        "true",
        "more",
        "much",
        "feel",
    ):
        return "noun"
    return (
        "verb"
        if after in ("you", "him", "her", "it", "them", "the", "my", "to", "this", "that", "me")
        else None
    )


_SPECIAL = {
    "even": _even, "still": _still, "little": _little, "bit": _bit, "much": _much, "one": _one, "dont": _dont,
    "don't": _dont, "time": _like_noun, "life": _like_noun, "people": _like_noun, "love": _love,
    "know": _like_verb, "think": _like_verb, "make": _like_verb, "want": _like_verb,
}  # fmt: skip
