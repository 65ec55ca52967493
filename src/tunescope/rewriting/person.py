"""Whether ``black`` and ``white`` (and words like them) describe a person."""

from __future__ import annotations

from tunescope.rewriting import english
from tunescope.rewriting.english import word_set
from tunescope.rewriting.lexicon import Entry
from tunescope.rewriting.words import Words

_ENDED = frozenset({"", "and", "or", "but", "so", "because", "too", "while", "though", "when", "in", "with"})
_PLURAL_BEFORE = word_set(
    "the by of between among some young poor many for against and other most all us american few to from towards "
    "rich that are than southern middle-class those these"
)
_PLURAL_AFTER = word_set(
    "are were have had who in and do did can could should will would get feel think from as to that or"
)


def person(words: Words, index: int, entry: Entry) -> int | str | None:
    """Answer 0 where the word describes a person, None where it describes a thing, or that it is open."""
    if "plural" in entry.category:
        return _plural(words, index)
    if words.suffixes[index]:
        return None
    if _before_person(words, index):
        return 0
    return 0 if _said_of_person(words, index) else None


def _before_person(words: Words, index: int) -> bool:
    """A noun for a person follows, with at most three words for persons between."""
    place = index + entry_length(words, index)
    for step in range(4):
        word = words.after(index, place - index + step)
        if word in english.PERSON_NOUNS:
            return True
        if word not in english.PERSON_ADJECTIVES:
            return False
    return False


def entry_length(words: Words, index: int) -> int:
    """How far the next word is from the term's first word: two for ``african american``."""
    return 2 if words.lower[index] in ("african", "european") and words.after(index) == "american" else 1


def _said_of_person(words: Words, index: int) -> bool:
    """``he is black``, ``they were both white``."""
    if words.after(index, entry_length(words, index)) not in _ENDED:
        return False
    steps = 1
    while words.before(index, steps) in english.DEGREE:
        steps += 1
    verb = words.before(index, steps)
    if verb in ("im", "hes", "shes", "theyre", "youre"):
        return True
    place = index - steps
    if place >= 0 and words.suffixes[place] and verb in ("i", "he", "she", "they", "you", "we", "who"):
        return True
    if verb not in english.BE:
        return False
    return words.before(index, steps + 1) in english.HUMAN_SUBJECTS


def _plural(words: Words, index: int) -> int | str | None:
    before, after = words.before(index), words.after(index)
    if after == "of" or before in ("my", "his", "her", "your", "their", "egg", "tooth", "in"):
        return None
    if before in _PLURAL_BEFORE or (not before and after in _PLURAL_AFTER):
        return 0
    return "person_or_thing"
