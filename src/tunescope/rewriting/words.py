"""Words of a text with their places, neighbours and case: what every rule about a word looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

APOSTROPHES = "'’"
# A word is a run of letters, digits and underscores; hyphens and apostrophes inside it belong to it, so that
# neither "man-made" nor "girl_42" holds a term.
WORD = re.compile(rf"\w+(?:[{APOSTROPHES}-]\w+)*")
_SUFFIX = re.compile(rf"[{APOSTROPHES}](?:s|d|ll|ve|re|m)$", re.IGNORECASE)
_BREAK = re.compile(r"[^\s\"“”*_~`'’‘]")
_SENTENCE_END = re.compile(r"[.!?…\n]")
# Chunks that are addresses and tags: nothing in them is a word.
_ADDRESS = re.compile(
    r"(?:https?://|www\.)\S+|(?<!\w)[@#]\w+|\S+@\S+\.\w+|\b[\w-]+\.(?:com|net|org|edu|gov|io|co)\b\S*",
    re.IGNORECASE,
)
_PREFIXES = ("ex-", "step-", "half-", "great-", "grand-", "god-", "co-", "soon-to-be-")
_TAIL = "-in-law"


@dataclass(slots=True)
class Words:
    """The words of one text.

    Attributes:
        text: The text.
        spans: ``(start, end)`` of each word, without a contraction's or possessive's ending.
        lower: Each word in lower case, without that ending.
        suffixes: The endings (``'s``, ``'ll``, ...), empty where there is none.
        has_capitals: Whether any letter of the text is a capital.
        tagger: Gives Penn tags of words where a caller has one.
    """

    text: str
    spans: list[tuple[int, int]]
    lower: list[str]
    suffixes: list[str]
    has_capitals: bool
    tagger: Callable[[Sequence[str]], Sequence[str]] | None = None
    _tags: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.spans)

    def written(self, index: int) -> str:
        """The word as it stands in the text."""
        start, end = self.spans[index]
        return self.text[start:end]

    def gap(self, index: int) -> str:
        """What stands between the ending of a word and the next word."""
        start = self.spans[index][1] + len(self.suffixes[index])
        end = self.spans[index + 1][0] if index + 1 < len(self) else len(self.text)
        return self.text[start:end]

    def after(self, index: int, steps: int = 1) -> str:
        """The word ``steps`` further on in lower case, or "" where punctuation or the text's end comes first."""
        last = index + steps
        if last >= len(self) or any(_BREAK.search(self.gap(i)) for i in range(index, last)):
            return ""
        return self.lower[last]

    def before(self, index: int, steps: int = 1) -> str:
        """The word ``steps`` back in lower case, or "" where punctuation or the text's start comes first."""
        first = index - steps
        if first < 0 or any(_BREAK.search(self.gap(i)) for i in range(first, index)):
            return ""
        return self.lower[first]

    def starts_sentence(self, index: int) -> bool:
        """Whether a word is the first of the text or stands after the end of a sentence."""
        return index == 0 or bool(_SENTENCE_END.search(self.gap(index - 1)))

    @property
    def in_title_case(self) -> bool:
        """Whether nearly every word has a capital, as in a headline: then a capital tells nothing."""
        capitals = sum(self.text[start].isupper() for start, _ in self.spans)
        return len(self) > 3 and capitals >= 0.8 * len(self)

    def before_title(self, index: int, titles: Collection[str]) -> bool:
        """Whether a title stands right before a word, with or without its full stop."""
        return index > 0 and self.lower[index - 1] in titles and self.gap(index - 1).strip() in ("", ".")

    def tag(self, index: int) -> str:
        """The Penn tag of a word by the caller's tagger, or "" without one."""
        if self.tagger is None:
            return ""
        if not self._tags:
            self._tags = list(self.tagger([self.written(i) for i in range(len(self))]))
        return self._tags[index]


def split_words(text: str, tagger: Callable[[Sequence[str]], Sequence[str]] | None = None) -> Words:
    """Part a text into its words; addresses, @names and #tags give none."""
    blocked = [m.span() for m in _ADDRESS.finditer(text)] if _maybe_address(text) else []
    spans, lower, suffixes = [], [], []
    for match in WORD.finditer(text):
        start, end = match.span()
        if blocked and any(low <= start < high for low, high in blocked):
            continue
        word = match.group()
        suffix = ""
        if "'" in word or "’" in word:
            found = _SUFFIX.search(word)
            suffix = found.group() if found else ""
            word = word[: len(word) - len(suffix)]
        spans.append((start, end - len(suffix)))
        lower.append(word.lower())
        suffixes.append(suffix)
    return Words(text, spans, lower, suffixes, text != text.lower(), tagger)


def hyphen_core(word: str) -> tuple[int, int] | None:
    """Where in a hyphened word (lower case) the word itself stands: ``ex-|wife|``, ``|mother|-in-law``, or None."""
    start, end = 0, len(word)
    if word.endswith(_TAIL):
        end -= len(_TAIL)
    while prefix := next((p for p in _PREFIXES if word.startswith(p, start)), None):
        start += len(prefix)
    core = word[start:end]
    return (start, end) if core and "-" not in core and (start, end) != (0, len(word)) else None


def in_case_of(old: str, new: str) -> str:
    """Write ``new`` (lower case) as ``old`` is written: lower, Capital, Each Word Capital, or UPPER."""
    letters = [c for c in old if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return new.upper()
    if not letters or not letters[0].isupper():
        return new
    parts = [part for part in re.split(r"[\s-]+", old) if part]
    if len(parts) > 1 and all(part[0].isupper() for part in parts):
        return re.sub(r"(^|[\s-])(\w)", lambda m: m.group(1) + m.group(2).upper(), new)
    return new[:1].upper() + new[1:]


def _maybe_address(text: str) -> bool:
    return "@" in text or "#" in text or "." in text or "://" in text
