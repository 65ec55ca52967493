"""The rules that decide whether a word is meant, and which counterpart it gets.

A rule takes the words of a text, a place and the entry found there, and answers with the index of a target, with None
(the word is something else here and stays) or with a reason why it cannot be told (the text is left out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunescope.rewriting import english
from tunescope.rewriting.english import word_set
from tunescope.rewriting.lexicon import Entry
from tunescope.rewriting.person import person
from tunescope.rewriting.roles import role_of_her, role_of_his
from tunescope.rewriting.speech import part_of_speech
from tunescope.rewriting.words import Words

Decision = int | str | None
Rule = Callable[[Words, int, Entry], Decision]

_TITLES = frozenset(
    {"mr", "mrs", "ms", "mister", "dr", "prof", "professor", "judge", "st", "saint", "king", "lake"}
)
_EXCLAIMED = word_set(
    "oh aw aww awww ah hey damn yo well yeah ya no yes sorry bro ok okay wow thanks thank please ugh whoa shit fuck "
    "dang dude man boy ooh ha haha lol c'mon on right"
)
_ADDRESSED = word_set("you u ya it me that him her them us this too now here though anyway dude lol")
_OPENERS = word_set(
    "i im ive id ill it its this that what how why when do did does am is are was were can could will would if my "
    "we you he she they the these those there oh so let just dont not thank"
)
_GREETING = word_set(
    "you hi hey hello thanks thank ok okay sorry well so dear alright goodbye bye goodnight yall but please u and "
    "because cause love see tell that when feel"
)
_OWNERS = frozenset({"my", "your", "his", "her"})
_CONTRACTED_NEXT = word_set(
    "be been never always have rather like probably get go come love want make take feel see just also still even "
    "not know find need understand give keep do say tell stay think become end grow gotten gone had better soon "
    "prefer already say only forget eventually definitely surely let leave start look ask"
)
_NOT_CONTRACTED_BEFORE = word_set(
    "the a an my your his her its our their of in to as like bloody raise hurt this that no some living hot what "
    "egg sea my i we you they will would could can should must dont not didnt had have been from was is tool and "
    "through oh beat scared scare such little"
)


def always(words: Words, index: int, entry: Entry) -> Decision:
    """The word always means the term."""
    return 0


def exclaimed(words: Words, index: int, entry: Entry) -> Decision:
    """``man``, ``boy``, ``dude``: a person, unless it is called out or stands for mankind."""
    before, after = words.before(index), words.after(index)
    if words.suffixes[index]:
        return 0
    made_by = after == "made" and words.after(index, 2) and words.after(index, 2) not in english.FUNCTION
    if before in _EXCLAIMED or made_by:
        return None
    if not before and (words.starts_sentence(index) or not after):
        return None if not after or after in _OPENERS else 0
    if (
        before in _ADDRESSED
        and before not in ("this", "that", "her")
        and (not after or after in english.FUNCTION)
    ):
        return "address_or_person"
    if before in english.PREPOSITIONS and entry.term in ("man", "boy") and before not in ("like", "than"):
        return "mankind_or_person" if entry.term == "man" else 0
    return 0


def addressed(words: Words, index: int, entry: Entry) -> Decision:
    """``guys``: men, unless people of any gender are spoken to."""
    before, after = words.before(index), words.after(index)
    if before in ("you", "u", "hey", "hi", "hello", "thanks", "ok", "okay", "sorry", "yall"):
        return None
    if before in english.DETERMINERS or (
        before and before not in _GREETING and before not in english.FUNCTION
    ):
        return 0
    if not before and not after:
        return None
    if after in english.AUXILIARIES or after in ("who", "that", "like") or before in english.BE:
        return 0
    if before in ("of", "with", "by", "for", "like", "between", "about", "from", "at") and before != after:
        return 0
    return "address_or_person"


def title(words: Words, index: int, entry: Entry) -> Decision:
    """``Mr.``, ``Mrs.``: before a name."""
    following = words.lower[index + 1] if index + 1 < len(words) else ""
    near = words.gap(index).strip() in ("", ".")
    if not following or not near or following in english.FUNCTION:
        return None
    if entry.term in ("miss", "sir", "madam", "madame"):
        capital = words.written(index)[0].isupper() and words.written(index + 1)[0].isupper()
        shouted = words.written(index).isupper()
        if not capital or shouted:
            return None
    return 0


def polite(words: Words, index: int, entry: Entry) -> Decision:
    """``sir`` as address; before a name it is an honour whose counterpart (Dame, Lady) depends on the person."""
    following = words.written(index + 1) if words.after(index) else ""
    if words.written(index)[0].isupper() and following[:1].isupper() and not words.written(index).isupper():
        return "honour"
    return 0


def crowned(words: Words, index: int, entry: Entry) -> Decision:
    """``king``, ``prince``: a rank; right after a first name it is a family name."""
    before = words.before(index)
    near = {words.before(index, step) for step in (1, 2, 3)}
    return 0 if not before or before in english.FUNCTION or near & english.DETERMINERS else None


def contraction(words: Words, index: int, entry: Entry) -> Decision:
    """``shed``, ``shell``, ``hell``: she'd, she'll and he'll without the apostrophe, where a verb follows."""
    if words.suffixes[index]:
        return None
    before, after = words.before(index), words.after(index)
    if after in _CONTRACTED_NEXT and before not in _NOT_CONTRACTED_BEFORE:
        if after == "like" and words.after(index, 2) not in ("to", "me", "him", "her", "it", "us", "them"):
            return None
        return 0
    return None


def spoken_possessive(words: Words, index: int, entry: Entry) -> Decision:
    """``husbands``: the plural (target 0), or the possessive without an apostrophe (target 1)."""
    before, after = words.before(index), words.after(index)
    written_out = "'" in words.text or "’" in words.text
    owned = (
        (before in _OWNERS or words.before(index, 2) in _OWNERS) and after and after not in english.FUNCTION
    )
    return 1 if owned and not written_out else 0


def name(words: Words, index: int, entry: Entry) -> Decision:
    """A first name; after a title it is a family name."""
    return None if words.before_title(index, _TITLES) else 0


def name_with_capital(words: Words, index: int, entry: Entry) -> Decision:
    """``Will``, ``Hope``: a name only with a capital inside a sentence that is not all capitals."""
    capital = (
        words.written(index)[0].isupper() and not words.text.isupper() and not words.starts_sentence(index)
    )
    return 0 if capital and not words.before_title(index, _TITLES) and not words.in_title_case else None


def name_or_word(words: Words, index: int, entry: Entry) -> Decision:
    """``Mark``, ``Rose``: a name with a capital inside a sentence; in lower case only context can tell."""
    if words.before_title(index, _TITLES):
        return None
    before, after = words.before(index), words.after(index)
    if words.written(index)[0].isupper() and not words.written(index).isupper():
        if not words.starts_sentence(index):
            return 0
        verb = after in english.AUXILIARIES or after in english.FINITE_VERBS
        return 0 if verb or words.suffixes[index] in ("'s", "’s") else "name_or_word"
    if words.has_capitals and not words.text.isupper():
        return None
    if before in english.DETERMINERS or before in (
        "to",
        "i",
        "you",
        "we",
        "they",
        "will",
        "can",
        "would",
        "dont",
    ):
        return None
    return "name_or_word"


RULES: Final[dict[str, Rule]] = {
    "always": always,
    "exclaimed": exclaimed,
    "addressed": addressed,
    "title": title,
    "polite": polite,
    "contraction": contraction,
    "crowned": crowned,
    "spoken_possessive": spoken_possessive,
    "name": name,
    "name_or_word": name_or_word,
    "name_with_capital": name_with_capital,
    "person": person,
    "part_of_speech": part_of_speech,
    "role_of_her": role_of_her,
    "role_of_his": role_of_his,
}
"""Every rule that a lexicon may name."""
