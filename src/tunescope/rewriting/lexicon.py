"""Lexicons: which words are swapped with which, by what rule, and from what source; read from YAML and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from tunescope.config.problems import nearest
from tunescope.errors import ConfigError
from tunescope.rewriting.english import FAMILY_NAMES_S

WITHIN = "within"
ONE_WAY = ("old", "new")


@dataclass(frozen=True)
class Entry:
    """One term and what it becomes.

    Attributes:
        term: The words in lower case, parted by one blank.
        targets: What it may become; ``rule`` picks one. Of a set: its members.
        category: A category of the lexicon.
        side: The side that it belongs to.
        rule: A name of :data:`tunescope.rewriting.rules.RULES`.
        source: Where the pair comes from.
        choice: Whether another counterpart would be right too, as Mr. -> Ms. or Mrs.; counted.
        labels: The classes in whose rows it applies; empty: in all.
        part_of_speech: What it must be to be rewritten (``noun``, ``verb``, ``adjective``, ``adverb``), or "".
        place: Its own place in ``targets`` for a member of a set, else -1.
    """

    term: str
    targets: tuple[str, ...]
    category: str
    side: str
    rule: str = "always"
    source: str = "own"
    choice: bool = False
    labels: tuple[str, ...] = ()
    part_of_speech: str = ""
    place: int = -1

    @property
    def is_name(self) -> bool:
        """Whether it is a first name that is hardly ever another word."""
        return self.rule == "name"

    @property
    def length(self) -> int:
        """How many words the term has."""
        return self.term.count(" ") + 1


@dataclass(frozen=True)
class Lexicon:
    """A checked lexicon.

    Attributes:
        name: Its name; pair ids end in it.
        sides: The two sides, as ``("male", "female")``; of a one-way lexicon ``("old", "new")``.
        categories: The source of each category.
        entries: The entries by term.
        keep: Phrases in which nothing is touched, as ``lady gaga`` (lower case, by blanks).
        leave_out: Words that make a text with terms unresolved, as ``pregnant``, each with the reason.
        fixed: Words whose pronouns cannot move, as ``jesus``, each with its side.
        tagger: Gives Penn tags of a list of words, where the caller has such a tool; else rules decide.
    """

    name: str
    sides: tuple[str, str]
    categories: Mapping[str, str]
    entries: Mapping[str, Entry]
    keep: frozenset[str] = frozenset()
    leave_out: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    tagger: Callable[[Sequence[str]], Sequence[str]] | None = None

    @property
    def terms(self) -> list[str]:
        """All terms, in alphabetical order."""
        return sorted(self.entries)

    @property
    def digest(self) -> str:
        """A checksum of all that decides what is rewritten, but for a tagger."""
        content = [self.name, self.sides, sorted((t, vars(e)) for t, e in self.entries.items())]
        content += [sorted(self.keep), sorted(self.leave_out.items()), sorted(self.fixed.items())]
        return hashlib.sha256(json.dumps(content, default=list).encode()).hexdigest()

    @cached_property
    def first_words(self) -> dict[str, tuple[Entry, ...]]:
        """The entries by their first word, those of most words first."""
        return _by_first(self.entries.values(), lambda entry: entry.term)

    @cached_property
    def rough_words(self) -> frozenset[str]:
        """The letters that a text must hold, as a whole word or beside a hyphen, to hold a term."""
        first = frozenset(re.split(r"\W", term, maxsplit=1)[0] for term in self.entries)
        return first | frozenset(self.spoken_names)

    @cached_property
    def hit_words(self) -> frozenset[str]:
        """Words at which a term or a kept phrase can begin."""
        return frozenset(self.first_words) | frozenset(self.kept_words) | frozenset(self.spoken_names)

    @cached_property
    def spoken_names(self) -> dict[str, Entry]:
        """Names with the possessive's s, as texts without apostrophes write them; family names are none."""
        return {
            f"{term}s": entry for term, entry in self.entries.items()
            if entry.is_name and f"{term}s" not in self.entries and f"{term}s" not in FAMILY_NAMES_S
        }  # fmt: skip

    @cached_property
    def kept_words(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """The kept phrases by their first word, the longest first."""
        phrases = _by_first(self.keep, lambda phrase: phrase)
        return {first: tuple(tuple(p.split(" ")) for p in found) for first, found in phrases.items()}

    def only(
        self,
        *,
        categories: Collection[str] | None = None,
        terms: Collection[str] | None = None,
        label: str | None = None,
    ) -> Lexicon:
        """Return the lexicon with fewer entries.

        Args:
            categories: Keep entries of these categories.
            terms: Keep these terms.
            label: Keep entries that apply in rows of this class.

        Raises:
            ConfigError: A category or term is not in the lexicon, or nothing is left.
        """
        for kind, wanted, known in (
            ("category", categories, self.categories),
            ("term", terms, self.entries),
        ):
            for word in wanted or ():
                if word not in known:
                    match = nearest(word, known)
                    raise ConfigError(
                        f"The lexicon {self.name!r} has no {kind} {word!r}.",
                        hint=f"Did you mean {match!r}?" if match else f"Choose from: {', '.join(known)}.",
                    )
        kept = {
            term: entry for term, entry in self.entries.items()
            if (categories is None or entry.category in categories)
            and (terms is None or term in terms)
            and (label is None or not entry.labels or label in entry.labels)
        }  # fmt: skip
        if not kept:
            raise ConfigError(
                f"Of the lexicon {self.name!r} nothing is left with categories={categories}, terms={terms}, "
                f"label={label!r}.",
                hint="Ask for less.",
            )
        return replace(self, entries=kept)

    def with_tagger(self, tagger: Callable[[Sequence[str]], Sequence[str]] | None) -> Lexicon:
        """Return the lexicon with a tool that gives Penn tags, as :func:`nltk_tagger` does."""
        return replace(self, tagger=tagger)


def shipped_lexicons() -> dict[str, Path]:
    """Return the lexicons that come with tunescope, by name."""
    folder = Path(str(resources.files("tunescope"))) / "lexicons"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def load_lexicon(name_or_path: str | Path) -> Lexicon:
    """Return a lexicon that is shipped (``gender``, ``race``, ``names``, ``synonyms``, ...) or a YAML file.

    Raises:
        ConfigError: There is no such lexicon, or it is not valid: an unknown key or category, a term that
            stands twice, a cycle; the message names the file and line of every problem.
    """
    from tunescope.rewriting.schema import read_lexicon

    shipped = shipped_lexicons()
    path = Path(name_or_path).expanduser()
    if str(name_or_path) in shipped:
        path = shipped[str(name_or_path)]
    elif not path.is_file():
        match = nearest(str(name_or_path), shipped)
        raise ConfigError(
            f"There is no lexicon file and no shipped lexicon {str(name_or_path)!r}; "
            f"shipped: {', '.join(shipped)}.",
            hint=f"Did you mean {match!r}?" if match else "Give a YAML file, or the name of a shipped one.",
        )
    return read_lexicon(path)


def _by_first(items: Collection[Any], words_of: Callable[[Any], str]) -> dict[str, tuple[Any, ...]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(words_of(item).split(" ")[0], []).append(item)
    return {
        first: tuple(sorted(same, key=lambda item: -words_of(item).count(" ")))
        for first, same in found.items()
    }
