"""Words of a text, and the text without each of them."""

from __future__ import annotations

import re

PUNCTUATION = ".,"
_WORD = re.compile(r"\S+")
_EDGES = re.compile(r"^\W+|\W+$")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each word stands, as (start, end) in characters; words are what white space separates."""
    return [match.span() for match in _WORD.finditer(text)]


def plain_word(piece: str) -> str:
    """Return a word in small letters without the punctuation around it; punctuation alone stays as it is."""
    return _EDGES.sub("", piece).lower() or piece


def left_out(text: str) -> list[str]:
    """Return the text without its first word, without its second, and so on; punctuation stays.

    A full stop or comma behind the word moves to the word before it; the white space before the word goes with it.
    """
    spans = word_spans(text)
    variants = []
    for number, (start, end) in enumerate(spans):
        if number == 0:
            variants.append(text[:start] + text[end:].lstrip())
            continue
        piece, before = text[start:end], text[: spans[number - 1][1]]
        mark = piece[len(piece.rstrip(PUNCTUATION)) :]
        variants.append((before.rstrip(PUNCTUATION) + mark if mark else before) + text[end:])
    return variants
