"""What tunescope itself says: the words, names and sentences of its own files, which are never the data's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
APART = frozenset({"rewriting", "lexicons", "planted"})
WORD = re.compile(r"[^\W\d_](?:[\w'’-]*\w)?")
# Keys of a recipe that hold sentences about the study, which stand on its page.
SAYING = frozenset((
    "question", "form", "because", "statement", "reported", "source", "verdict", "otherwise", "study", "unpinned",
    "not_testable", "needed", "note", "name", "by",
))  # fmt: skip


@cache
def house_words() -> frozenset[str]:
    """Return every word of tunescope's own sources, apart from its lexicons and generated corpora."""
    found = {word for source in _sources() for word in WORD.findall(source)}
    return frozenset(found | {word.lower() for word in found})


@cache
def structure() -> frozenset[str]:
    """Return identifiers and short strings of tunescope's sources: keys of its files, names of metrics and sites."""
    found: set[str] = set()
    for source in _sources():
        found |= set(re.findall(r"[\"']([\w .:-]{1,60})[\"']", source))
        found |= set(re.findall(r"\b([a-z_][a-z0-9_]*)\b", source))
    return frozenset(found)


@cache
def _sources() -> tuple[str, ...]:
    """Return the text of every source file, apart from lexicons and generated corpora, which are like data."""
    paths = [path for path in sorted(ROOT.rglob("*.py")) if not APART & set(path.relative_to(ROOT).parts)]
    return tuple(path.read_text(encoding="utf-8", errors="replace") for path in paths)


@cache
def shipped_sentences() -> re.Pattern[str]:
    """Return a pattern of every sentence that stands in the recipes of the package, such as a published claim.

    They are the package's and not the data's. Only strings of several words count, without lists of words and texts
    that a study looks for in its data.
    """
    from yaml import safe_load

    found: set[str] = set()
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        found |= set(_sentences(safe_load(path.read_text(encoding="utf-8"))))
    longest_first = sorted(found, key=lambda one: (-len(one), one))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _sentences(item: Any, key: str = "") -> Iterator[str]:
    """Yield what recipes say of themselves and of studies; never prompts, filters or words."""
    if isinstance(item, Mapping):
        if key == "also":  # numbers beside a claim, by what they are
            yield from item
        for name, one in item.items():
            yield from _sentences(one, str(name))
    elif isinstance(item, list):
        for one in item:
            yield from _sentences(one, key)
    elif isinstance(item, str) and key in SAYING and len(item.split()) > 1:
        yield item
