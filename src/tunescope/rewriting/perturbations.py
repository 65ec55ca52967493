"""Perturbations that should not change a label: typos, casing, contractions, punctuation, neutral names.

Each depends on the seed and the row id alone, so that order and sharding of the rows change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import polars as pl

from tunescope.errors import ConfigError
from tunescope.progress import SILENT, Progress
from tunescope.rewriting.changes import Rewrite, Rewritten, Unresolved
from tunescope.rewriting.engine import Edit, assemble, draw, rewrite
from tunescope.rewriting.english import word_set
from tunescope.rewriting.lexicon import Lexicon, load_lexicon
from tunescope.rewriting.rows import Keep, apply_rows
from tunescope.rewriting.words import Words, in_case_of, split_words

WORDS_PER_TYPO = 10
SHORTEST_WITH_TYPO = 4
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ENDS = ".!?…"


def perturb(
    frame: pl.DataFrame,
    name: str,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
    keep: Keep | None = None,
) -> Rewritten:
    """Perturb the texts of a table.

    ``typos``: a key's neighbour, two letters exchanged, or a letter lost, in one word of four letters or more for
    every ten words, never its first letter. ``casing``: lower, UPPER, Title or Sentence case, one that the text is
    not in. ``contractions``: expanded (``don't`` -> ``do not``), or contracted where there is none to expand; endings
    with two readings (``he'd``) stay. ``punctuation``: the last full stop added, or the closing marks taken off.
    ``neutral_names``: every first name becomes another one of the same gender and group.

    Args:
        frame: ``row_id`` (unique), ``text``, and other columns, which are kept.
        name: One of :data:`PERTURBATIONS`.
        seed: Another seed gives other typos, cases and names.
        progress: Where the work reports to.
        keep: Thins the pairs out after every 20,000 rows, so that memory does not grow; counts are of all rows.

    Raises:
        ConfigError: There is no such perturbation.
        DataError: A column is missing, or row ids are not unique.
    """
    if name not in PERTURBATIONS:
        raise ConfigError(
            f"There is no perturbation {name!r}.", hint=f"Choose from: {', '.join(PERTURBATIONS)}."
        )
    return apply_rows(frame, name, partial(PERTURBATIONS[name], seed=seed), progress, keep=keep)


def typos(text: str, row_id: str, *, seed: int) -> Rewrite | None:
    """Make one typo for every ten words, at least one."""
    words = split_words(text)
    fit = [i for i, word in enumerate(words.lower) if len(word) >= SHORTEST_WITH_TYPO and word.isalpha()]
    order = sorted(fit, key=lambda i: draw(seed, row_id, "typo", str(i), below=2**32))
    edits = []
    for index in sorted(order[: max(1, len(words) // WORDS_PER_TYPO)]):
        old = words.written(index)
        new = _mistyped(old, seed, row_id, str(index))
        if new != old:
            edits.append(Edit(*words.spans[index], new, words.lower[index], "typos", ""))
    return assemble(text, edits, "typos") if edits else None


def _mistyped(word: str, seed: int, row_id: str, place: str) -> str:
    kind = draw(seed, row_id, "kind", place, below=3)
    at = 1 + draw(seed, row_id, "at", place, below=len(word) - 1)
    if kind == 0:
        keys = NEIGHBOURS.get(word[at].lower(), "")
        if not keys:
            return word
        return (
            word[:at]
            + in_case_of(word[at], keys[draw(seed, row_id, "key", place, below=len(keys))])
            + word[at + 1 :]
        )
    if kind == 1:
        at = min(at, len(word) - 2)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return swapped if swapped != word else word[:at] + word[at + 1 :]
    return word[:at] + word[at + 1 :]


def casing(text: str, row_id: str, *, seed: int) -> Rewrite | None:
    """Write a text in another case than its own."""
    kinds = ("lower", "upper", "title", "sentence")
    possible = [kind for kind in kinds if any(e.new for e in _cased(text, kind))]
    if not possible:
        return None
    kind = possible[draw(seed, row_id, "casing", below=len(possible))]
    return assemble(text, _cased(text, kind), kind)


def _cased(text: str, kind: str) -> list[Edit]:
    words = split_words(text)
    edits = []
    for index, (start, end) in enumerate(words.spans):
        stop = end + len(words.suffixes[index])
        old = text[start:stop]
        capital = kind == "title" or words.starts_sentence(index) or words.lower[index] == "i"
        new = {"lower": old.lower(), "upper": old.upper()}.get(kind) or (
            old[:1].upper() + old[1:].lower() if capital else old.lower()
        )
        if new != old and len(new) == len(old):
            edits.append(Edit(start, stop, new, words.lower[index], "casing", ""))
    return edits


def contractions(text: str, row_id: str, *, seed: int) -> Rewrite | None:
    """Expand the contractions of a text; where there is none, contract."""
    words = split_words(text)
    edits = _expanded(words)
    if edits:
        return assemble(text, edits, "expand")
    edits = _contracted(words)
    return assemble(text, edits, "contract") if edits else None


def _expanded(words: Words) -> list[Edit]:
    edits = []
    for index, word in enumerate(words.lower):
        start, end = words.spans[index]
        stop = end + len(words.suffixes[index])
        written = words.text[start:stop]
        plain = written.lower().replace("’", "'")
        full = _EXPANDED.get(plain)
        if full is None and plain in _WITH_S:
            full = f"{_WITH_S[plain]} {'has' if words.after(index) in _HAS_BEFORE else 'is'}"
        if full is None and words.suffixes[index].lower().lstrip("'’") in ("ll", "ve", "re", "m"):
            full = f"{word} {_ENDINGS[words.suffixes[index].lower().lstrip(chr(39) + '’')]}"
        if full is not None:
            edits.append(Edit(start, stop, in_case_of(written, full), plain, "contractions", ""))
    return edits


def _contracted(words: Words) -> list[Edit]:
    edits, index = [], 0
    apostrophes = words.has_capitals or "'" in words.text or "’" in words.text
    while index < len(words) - 1:
        pair = f"{words.lower[index]} {words.after(index)}"
        short = _CONTRACTED.get(pair)
        ending = pair.split(" ")[1] in ("am", "is", "are", "have", "will")  # "yes, I am" has no short form
        second, third = words.after(index), words.after(index, 2)
        closed = ending and (not third or f"{second} {third}" in _CONTRACTED)
        if short and not words.suffixes[index] and not closed:
            start, end = words.spans[index][0], words.spans[index + 1][1]
            new = short if apostrophes else short.replace("'", "")
            if apostrophes or new in _EXPANDED or new in _WITH_S:
                edits.append(
                    Edit(start, end, _first_case(words.text[start:end], new), pair, "contractions", "")
                )
                index += 1
        index += 1
    return edits


def _first_case(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


def punctuation(text: str, row_id: str, *, seed: int) -> Rewrite | None:
    """Take the closing marks off, or add a full stop where there is none."""
    body = text.rstrip()
    stripped = body.rstrip(_ENDS)
    if not stripped.strip():
        return None
    if stripped != body:
        edit = Edit(len(stripped), len(body), "", body[len(stripped) :], "punctuation", "")
        return assemble(text, [edit], "remove")
    return assemble(text, [Edit(len(body), len(body), ".", ".", "punctuation", "")], "add")


def neutral_names(text: str, row_id: str, *, seed: int) -> Rewrite | Unresolved | None:
    """Give every person another name of the same gender and group."""
    return rewrite(text, load_names(), row_id=row_id, seed=seed)


@cache
def load_names() -> Lexicon:
    """Return the shipped lexicon of names, read once."""
    return load_lexicon("names")


def _neighbours() -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in enumerate(_ROWS):
        for place, key in enumerate(row):
            near = row[max(0, place - 1) : place] + row[place + 1 : place + 2]
            if number > 0:
                near += _ROWS[number - 1][place : place + 2]
            if number < 2:
                near += _ROWS[number + 1][max(0, place - 1) : place + 1]
            found[key] = near
    return found


NEIGHBOURS = _neighbours()
"""The keys around each key of a QWERTY keyboard."""

_ENDINGS = {"ll": "will", "ve": "have", "re": "are", "m": "am"}
_HAS_BEFORE = word_set("been got had gotten done gone made become always never") - {"always", "never"}
_NEGATED = [
    "do",
    "does",
    "did",
    "is",
    "was",
    "are",
    "were",
    "has",
    "have",
    "had",
    "could",
    "would",
    "should",
    "must",
    "need",
]
_EXPANDED = {f"{verb}n{mark}t": f"{verb} not" for verb in _NEGATED for mark in ("'", "")} | {
    "can't": "cannot", "cant": "cannot", "won't": "will not", "wont": "will not", "shan't": "shall not",
    "i'm": "i am", "im": "i am", "ive": "i have", "youre": "you are", "theyre": "they are", "weve": "we have",
    "youve": "you have", "theyve": "they have", "youll": "you will", "theyll": "they will", "let's": "let us",
}  # fmt: skip
_WITH_S = {f"{word}{mark}s": word for word in ("he", "she", "that", "there", "what") for mark in ("'", "")} | {
    "it's": "it", "who's": "who", "where's": "where", "how's": "how", "here's": "here",
}  # fmt: skip
_CONTRACTED = (
    {f"{verb} not": f"{verb}n't" for verb in _NEGATED}
    | {"will not": "won't", "i am": "i'm", "i have": "i've", "i will": "i'll", "let us": "let's"}
    | {f"{who} are": f"{who}'re" for who in ("you", "we", "they")}
    | {f"{who} have": f"{who}'ve" for who in ("you", "we", "they")}
    | {f"{who} will": f"{who}'ll" for who in ("you", "we", "they", "he", "she")}
    | {f"{who} is": f"{who}'s" for who in ("he", "she", "it", "that", "there", "what")}
)

Perturbation = Callable[..., Rewrite | Unresolved | None]
PERTURBATIONS: dict[str, Perturbation] = {
    "typos": typos,
    "casing": casing,
    "contractions": contractions,
    "punctuation": punctuation,
    "neutral_names": neutral_names,
}
"""Every perturbation by name."""
