"""Rewriting one text by a lexicon: every term together, or none."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from tunescope.rewriting.changes import ARTICLE, MIXED, Change, Rewrite, Unresolved
from tunescope.rewriting.english import FAMILY_NAMES, FINITE_VERBS, FIRST_NAMES, FUNCTION
from tunescope.rewriting.lexicon import WITHIN, Entry, Lexicon
from tunescope.rewriting.rules import RULES
from tunescope.rewriting.words import Words, hyphen_core, in_case_of, split_words

_ROUGH = re.compile(r"\w+")
_VOWEL_SOUND = re.compile(
    r"^(?:(?!eu|ewe|uni(?!n|m)|use|usu|uti|uk\b|one\b|once\b|ubiq|ura)[aeiou]|hour|heir|hono|honest)"
)
_PRONOUNS = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself", "hes", "shes"})
_EXCLAIMED_GOD = frozenset({"oh", "my", "thank", "omg", "dear", "swear", "for", "good", "by", "hope", "wish"})


@dataclass(frozen=True, slots=True)
class Edit:
    """A place of a text and what stands there afterwards."""

    start: int
    end: int
    new: str
    term: str
    category: str
    side: str


def rewrite(text: str, lexicon: Lexicon, *, row_id: str = "", seed: int = 0) -> Rewrite | Unresolved | None:
    """Rewrite one text.

    Every term is swapped at once, so that what refers to the same person still does. Case, punctuation and
    everything outside the terms stay; an a or an before a changed word follows it. A word inside a longer word,
    an address, an @name or a #tag is no term.

    Args:
        text: The text.
        lexicon: What is swapped with what.
        row_id: With ``seed``, draws the member of a set that another one becomes; pairs need neither.
        seed: The seed of that draw.

    Returns:
        The rewrite; why it cannot be made (:class:`Unresolved`); or None where the text holds no term.
    """
    if not may_touch(text, lexicon):
        return None
    words = split_words(text, lexicon.tagger)
    found = _find_edits(words, lexicon, row_id, seed)
    if isinstance(found, Unresolved):
        return found
    if not found:
        return None
    blocked = _blocked(words, lexicon, found)
    if blocked is not None:
        return blocked
    return assemble(text, with_articles(words, found), _direction(found, lexicon))


def may_touch(text: str, lexicon: Lexicon) -> bool:
    """Say quickly whether a text could hold a term: False is sure, True is not."""
    first = lexicon.rough_words
    return not first.isdisjoint(_ROUGH.findall(text.lower()))


def assemble(text: str, edits: list[Edit], direction: str) -> Rewrite:
    """Apply edits, which must be in order and apart, and note where each came to stand."""
    pieces, changes, last, shift = [], [], 0, 0
    for edit in edits:
        pieces += [text[last : edit.start], edit.new]
        start = edit.start + shift
        changes.append(
            Change(
                edit.start, edit.end, text[edit.start : edit.end],
                start, start + len(edit.new), edit.new, edit.term, edit.category,
            )
        )  # fmt: skip
        shift += len(edit.new) - (edit.end - edit.start)
        last = edit.end
    return Rewrite(text, "".join([*pieces, text[last:]]), tuple(changes), direction)


def draw(seed: int, row_id: str, *purpose: str, below: int) -> int:
    """Return a number from 0 to ``below - 1`` that depends on the seed, the row and the purpose alone."""
    key = "/".join((str(seed), row_id, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % below


def _find_edits(words: Words, lexicon: Lexicon, row_id: str, seed: int) -> list[Edit] | Unresolved:
    edits: list[Edit] = []
    index = 0
    hits = lexicon.hit_words
    while index < len(words):
        if words.lower[index] not in hits and "-" not in words.lower[index]:
            index += 1
            continue
        kept = _kept(words, index, lexicon)
        if kept:
            index += kept
            continue
        step = 1
        for entry, low, high in _matches(words, index, lexicon):
            if entry.term in FAMILY_NAMES and _is_family_name(words, index, edits, lexicon):
                break
            decision = RULES[entry.rule](words, index, entry)
            if isinstance(decision, str):
                return Unresolved(decision, entry.term, low, high)
            if decision is not None:
                target = _target(entry, decision, row_id, seed)
                new = in_case_of(words.text[low:high], target)
                if words.text[low:high] != new:
                    edits.append(Edit(low, high, new, entry.term, entry.category, entry.side))
                step = entry.length
                break
        index += step
    return edits


def _is_family_name(words: Words, index: int, edits: list[Edit], lexicon: Lexicon) -> bool:
    """Whether a first name stands right before a word: a term, one of a list, or an unknown word with a capital."""
    if index == 0 or words.suffixes[index - 1] or words.gap(index - 1) != " ":
        return False
    start, end = words.spans[index - 1]
    if edits and edits[-1].end == end:
        return edits[-1].category.startswith("name") or edits[-1].side == WITHIN
    before = words.lower[index - 1]
    if before in FIRST_NAMES and before not in lexicon.entries:
        return True
    known = before in lexicon.entries or before in FUNCTION or before in FINITE_VERBS
    own = words.text[start].isupper() and not words.starts_sentence(index - 1) and not words.in_title_case
    return own and not known and words.text[start:end] != before.upper()


def _matches(words: Words, index: int, lexicon: Lexicon) -> list[tuple[Entry, int, int]]:
    """The entries that begin at a word, the longest first, with their places in the text."""
    word = words.lower[index]
    start, end = words.spans[index]
    found = []
    for entry in lexicon.first_words.get(word, ()):
        if entry.length == 1:
            found.append((entry, start, end))
            continue
        rest = entry.term.split(" ")[1:]
        if all(words.after(index, step + 1) == part for step, part in enumerate(rest)):
            found.append((entry, start, words.spans[index + len(rest)][1]))
    spoken = None if found else lexicon.spoken_names.get(word)
    if spoken is not None and "'" not in words.text and "’" not in words.text:
        return [(spoken, start, end - 1)]
    if not found and "-" in word and (core := hyphen_core(word)):
        found += [
            (entry, start + core[0], start + core[1])
            for entry in lexicon.first_words.get(word[core[0] : core[1]], ())
            if entry.length == 1
        ]
    return found


def _kept(words: Words, index: int, lexicon: Lexicon) -> int:
    """How many words of a kept phrase begin here; 0: none does."""
    for phrase in lexicon.kept_words.get(words.lower[index], ()):
        if all(words.after(index, step + 1) == part for step, part in enumerate(phrase[1:])):
            return len(phrase)
    return 0


def _target(entry: Entry, decision: int, row_id: str, seed: int) -> str:
    if entry.place < 0:
        return entry.targets[decision]
    # A shift keeps different members of a set different within a text.
    shift = 1 + draw(seed, row_id, entry.category, below=len(entry.targets) - 1)
    return entry.targets[(entry.place + shift) % len(entry.targets)]


def _blocked(words: Words, lexicon: Lexicon, edits: list[Edit]) -> Unresolved | None:
    """Say why a text with terms is left out as a whole, if it is."""
    if not lexicon.leave_out and not lexicon.fixed:
        return None
    pronoun_sides = {edit.side for edit in edits if edit.term in _PRONOUNS}
    for index, word in enumerate(words.lower):
        if word in lexicon.leave_out:
            return Unresolved(lexicon.leave_out[word], word, *words.spans[index])
        side = lexicon.fixed.get(word)
        if side in pronoun_sides and words.before(index) not in _EXCLAIMED_GOD:
            return Unresolved("fixed_reference", word, *words.spans[index])
    return None


def _direction(edits: list[Edit], lexicon: Lexicon) -> str:
    sides = {edit.side for edit in edits}
    if len(sides) > 1:
        return MIXED
    side = sides.pop()
    if side == WITHIN:
        return WITHIN
    one, other = lexicon.sides
    return f"{one}_to_{other}" if side == one else f"{other}_to_{one}"


def with_articles(words: Words, edits: list[Edit]) -> list[Edit]:
    """Let a and an follow the words that changed behind them."""
    at = {start: index for index, (start, _) in enumerate(words.spans)}
    complete: list[Edit] = []
    for edit in edits:
        index = at.get(edit.start, 0)
        article = words.before(index) if index else ""
        if article in ("a", "an") and not words.suffixes[index - 1]:
            old, new = (_article(words.text[edit.start : edit.end]), _article(edit.new))
            if article == old != new:
                start, end = words.spans[index - 1]
                written = words.text[start:end]
                shown = new.upper() if written.isupper() and len(written) > 1 else new
                shown = shown.capitalize() if written[0].isupper() and not shown.isupper() else shown
                complete.append(Edit(start, end, shown, article, ARTICLE, edit.side))
        complete.append(edit)
    return complete


def _article(word: str) -> str:
    return "an" if _VOWEL_SOUND.match(word.lower()) else "a"
