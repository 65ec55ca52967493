"""The roles of ``her`` (him or his) and ``his`` (her or hers), told by the words around them.

``her`` before a noun phrase is a possessive, elsewhere an object. The next word settles most places; the verb before
it settles what a person is made to do or to be ("made her cry", "left her speechless"). What stays open ("gave her
money", "about her leaving") is told as such. On real text the rules are held against ``him`` and ``his``, which
differ in writing: ``tests/rewriting/test_roles_on_real_text.py``.
"""

from __future__ import annotations

from tunescope.rewriting import english
from tunescope.rewriting.english import word_set
from tunescope.rewriting.lexicon import Entry
from tunescope.rewriting.words import Words

OBJECT, POSSESSIVE = 0, 1
OPEN = "role_of_her"


def role_of_his(words: Words, index: int, entry: Entry) -> int | str | None:
    """Answer 0 for the determiner (her) and 1 for the pronoun that stands alone (hers)."""
    after = words.after(index)
    if words.suffixes[index]:
        return "role_of_his"
    if words.gap(index).strip() == "/":
        return 0
    if not after:
        # A bare "his" that ends a clause stands alone; one before a quoted word or a number has been seen already.
        return 1
    if after in ("and", "or", "amp"):
        return 1 if words.after(index, 2) in ("hers", "mine", "yours", "ours", "theirs", "") else 0
    if after in english.NUMBERS or after in ("own", "other", "all", "every", "many", "few", "her", "hers"):
        return 0
    if after in english.OPEN_ADVERBS or after in (
        "very",
        "most",
        "more",
        "only",
        "own",
        "not",
        "then",
        "past",
        "well",
    ):
        return 0
    if after in (
        "too",
        "just",
        "alone",
        "now",
        "really",
        "being",
        "inside",
        "even",
        "like",
        "down",
        "outside",
    ):
        return 1 if not words.after(index, 2) or words.after(index, 2) in english.FUNCTION else 0
    return 1 if after in english.FUNCTION or after in english.FINITE_VERBS else 0


def role_of_her(words: Words, index: int, entry: Entry) -> int | str | None:
    """Answer 0 for the object (him), 1 for the possessive (his), or say that it is open."""
    if words.suffixes[index]:
        return OPEN
    before, after = words.before(index), words.after(index)
    beside = _beside_his(words, index)
    if beside is not None:
        return beside
    if not after:
        return OBJECT
    if after == "own" or (before == "against" and after == "will"):
        return POSSESSIVE
    settled = _by_function_word(words, index, before, after)
    if settled is not None:
        return settled
    return _by_content_word(words, index, before, after)


def _beside_his(words: Words, index: int) -> int | None:
    """``his/her``, ``him or her``, ``her or his``: her has the role of the word it is paired with."""
    paired = [words.before(index)]
    if index > 0 and words.gap(index - 1).strip() == "/":
        paired.append(words.lower[index - 1])
    if words.gap(index).strip() == "/" and index + 1 < len(words):
        paired.append(words.lower[index + 1])
    if words.before(index) in ("or", "and", "amp"):
        paired.append(words.before(index, 2))
    if words.after(index) == "or":
        paired.append(words.after(index, 2))
    if "his" in paired:
        return POSSESSIVE
    return OBJECT if "him" in paired and words.before(index) != "and" else None


def _by_function_word(words: Words, index: int, before: str, after: str) -> int | str | None:
    """Settle by a next word that begins a new phrase; None where the next word may belong to her."""
    second = words.after(index, 2)
    ended = not second or second in english.FUNCTION
    if after in _PLACES:
        return _by_place(before, after, second)
    counted = after in english.NUMBERS - {"first", "second", "third", "last"} or after[0].isdigit()
    if before in _CHARGE and (counted or after in ("many", "few")):
        return OBJECT
    if after in ("daily", "everyday") and not ended:
        return POSSESSIVE
    if after in ("other", "many", "few", "one"):
        return POSSESSIVE if second and second not in english.FUNCTION else OPEN
    if after in ("every", "first", "last") or after in english.NUMBERS or after[0].isdigit():
        if second in english.TIMES and after not in ("first", "last"):
            return OBJECT if after == "every" else OPEN
        if after == "last" and second in english.TIMES:
            return OBJECT
        return POSSESSIVE if not ended else OBJECT if after == "first" and not second else OPEN
    if after == "left" and second in english.SIDES:
        return POSSESSIVE
    if after in ("well", "better", "inside", "outside", "like", "daily", "everyday", "down", "being"):
        return OBJECT if ended or after in ("like", "being", "down", "inside") else OPEN
    if after in _OPENING:
        if ended:
            return OBJECT if after != "only" or not second else OPEN
        return POSSESSIVE if after == "only" or second in ("own", "first", "best") else OPEN
    if after in english.FINITE_OR_NOUNS:
        return POSSESSIVE if before in english.PREPOSITIONS else OPEN
    if after in english.FUNCTION or after in english.FINITE_VERBS or after in english.TIMES - _OWN_TIMES:
        return OBJECT
    return OBJECT if after.startswith("soo") or after == "half" else None


def _by_place(before: str, after: str, second: str) -> int | str:
    """``her back``, ``her home``, ``her right``: adverbs or hers."""
    if after == "right":
        return (
            POSSESSIVE
            if second in english.SIDES
            else OBJECT
            if not second or second in english.FUNCTION
            else OPEN
        )
    if after == "back" and before in english.BACK_VERBS:
        return OBJECT
    if after == "home" and before in _HOMEWARD:
        return OBJECT
    return POSSESSIVE if before in english.PREPOSITIONS | english.CONJUNCTIONS else OPEN


def _by_content_word(words: Words, index: int, before: str, after: str) -> int | str:
    second = words.after(index, 2)
    ended = not second or second in english.FUNCTION
    own = after in english.POSSESSED
    if after.endswith("ly") and after not in english.NOT_ADVERBS_LY:
        return OBJECT if ended else OPEN
    if before in english.CAUSE and (settled := _caused(before, after, own, ended)) is not None:
        return settled
    if after in english.BARE_VERBS and after not in english.VERBS_OR_NOUNS:
        return OBJECT
    if after.endswith("ing") and after not in english.ING_NOUNS:
        return _by_ing(before, after, ended)
    if after in english.VERBS_OR_NOUNS and before in english.PERCEIVE:
        return POSSESSIVE if own or before in _TASTES else OPEN
    if (
        before in _SENSES
        and not own
        and not after.endswith("s")
        and second not in english.POSSESSED
        and ended
    ):
        return OPEN
    if after in english.STATES:
        if not ended and before in english.GIVE:
            return OPEN
        if not ended:
            return OBJECT if before in english.LEAVE and second in english.STATES else POSSESSIVE
        return OBJECT if before in english.LEAVE and second not in ("and", "or", "but") else OPEN
    if before in english.NAME or (before in english.GIVE and not own):
        return OPEN
    if after.endswith("ed") and ended:
        return OBJECT if before in english.LEAVE | english.PERCEIVE else OPEN
    return POSSESSIVE


def _caused(before: str, after: str, own: bool, ended: bool) -> int | str | None:
    """``make her X``, ``let her X``: what she is made to do or be, or something of hers."""
    if own and after not in english.VERBS_OR_NOUNS:
        return POSSESSIVE
    if after in english.BARE_VERBS | english.VERBS_OR_NOUNS:
        return OBJECT
    if before in ("let", "lets", "letting"):
        return OBJECT if after != "guard" else POSSESSIVE
    if after in english.STATES:
        return OBJECT if ended or after in ("pretty", "less", "more") else OPEN
    if before in ("make", "makes", "made", "making", "help", "helps", "helped", "helping"):
        return POSSESSIVE if after in english.MADE_OF_HERS or own else OPEN
    return None


def _by_ing(before: str, after: str, ended: bool) -> int | str:
    if after in english.ING_ADJECTIVES and not ended:
        return POSSESSIVE
    if before in english.PERCEIVE or before == "with":
        return OBJECT
    return OPEN


_PLACES = ("back", "home", "right", "past")
_HOMEWARD = word_set(
    "take took taking taken bring brought bringing drive drove driving walk walked send sent"
)
_SENSES = word_set("see seeing saw seen watch watching watched hear hearing heard having")
_TASTES = word_set("love loves loved like likes liked hate hates hated remember")
_CHARGE = english.GIVE | {"charge", "charged", "charges", "cost", "costs"}
_OPENING = word_set("very most more only ever once always already never still rather quite")
_OWN_TIMES = word_set(
    "day days night nights time times moment year years week life second seconds single fall spring"
)
