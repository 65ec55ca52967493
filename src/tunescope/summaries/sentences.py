"""Texts as sentences, by rules alone: no model, no download."""

from __future__ import annotations

import re

# A full stop behind one of these ends no sentence.
ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "sr",
        "jr",
        "gen",
        "col",
        "capt",
        "sgt",
        "lt",
        "rev",
        "hon",
        "gov",
        "sen",
        "rep",
        "pres",
        "no",
        "vs",
        "etc",
        "inc",
        "ltd",
        "co",
        "corp",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "fig",
        "dept",
        "est",
        "approx",
    ]
)
_END = re.compile(r"""[.!?]+["'”’)\]]*\s+(?=["'“‘(\[]?[A-Z0-9])""")


def split_sentences(text: str) -> list[str]:
    """Split a text at newlines, and behind . ! ? where a capital letter or a digit follows.

    Titles and months (Mr., Dr., Jan.), single initials (J. Smith) and dotted letters (U.S. Army) end no sentence.
    Empty sentences are left out.
    """
    found = []
    for line in text.split("\n"):
        start = 0
        for match in _END.finditer(line):
            if _ends(line[start : match.end()].rstrip()):
                found.append(line[start : match.end()].strip())
                start = match.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(sentence: str) -> bool:
    """Whether the stop at the end of this piece ends a sentence."""
    if not sentence.endswith("."):
        return True
    words = sentence[:-1].split()
    last = words[-1].lstrip("\"'“‘([") if words else ""
    initial = len(last) == 1 and last.isalpha() and last.isupper()
    dotted = re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", last) is not None
    return not (initial or dotted or last.lower() in ABBREVIATIONS)
