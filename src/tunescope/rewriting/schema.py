"""The YAML form of a lexicon, and everything that can be wrong with one.

A lexicon is a mapping::

    name: gender
    description: what it is for
    sides: [male, female]          # or  one_way: true
    categories:
      kinship: {source: "own", rule: always}
    pairs:
      kinship:
        - [father, mother]                                   # both ways
        - {male: lad, female: lass, source: "Zhao 2018"}       # both ways, with its own source
        - {from: widow lady, to: gentleman, side: female}    # one way
    sets:
      names: [Adam, {term: Frank, rule: name_or_word}]      # any one becomes another one
    keep: [lady gaga]                                        # phrases that stay
    leave_out: {biology: [pregnant]}                         # reason: words; such texts are left out
    fixed: {male: [jesus]}                                   # whose pronouns stay; such texts are left out
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunescope.config.problems import Problems, shown_value, unknown
from tunescope.config.text import read_document
from tunescope.errors import ConfigError
from tunescope.rewriting.lexicon import ONE_WAY, WITHIN, Entry, Lexicon

KEYS = (
    "name", "description", "sides", "one_way", "categories", "pairs", "sets", "keep", "leave_out", "fixed",
)  # fmt: skip
CATEGORY_KEYS = ("source", "rule")
OPTION_KEYS = ("rule", "source", "choice", "labels", "part_of_speech")
PARTS_OF_SPEECH = ("noun", "verb", "adjective", "adverb")
_TERM = re.compile(r"\w[\w'’-]*(?: \w[\w'’-]*)*")


def read_lexicon(path: Path) -> Lexicon:
    """Read and check a lexicon file.

    Raises:
        ConfigError: The file cannot be read or is not valid; all problems are told with file and line.
    """
    if not path.read_bytes().strip():
        raise ConfigError(
            f"{path} is empty; expected a lexicon.",
            hint="Write at least `sides`, `categories` and `pairs`; `one_way: true` takes the place of sides.",
        )
    document = read_document(path)
    problems = Problems(document.origins, list(document.problems), subject=f"The lexicon {path} is")
    lexicon = _Reader(document.value, problems, path.stem).read()
    if problems.found:
        try:
            problems.raise_all()
        except ConfigError as error:
            raise ConfigError(error.message, hint="Correct these lines and load the lexicon again.") from None
    return lexicon


class _Reader:
    """Turns plain values into a lexicon and notes what is wrong with them."""

    def __init__(self, value: dict[Any, Any], problems: Problems, stem: str) -> None:
        self.value, self.problems = value, problems
        self.name = str(value.get("name") or stem)
        self.sides: tuple[str, str] = ONE_WAY
        self.one_way = value.get("one_way") is True
        self.categories: dict[str, dict[str, str]] = {}
        self.entries: dict[str, Entry] = {}
        self.places: dict[str, tuple[str, ...]] = {}

    def read(self) -> Lexicon:
        for key in self.value:
            if key not in KEYS:
                self.problems.add((key,), unknown("key", key, KEYS))
        self._read_sides()
        self._read_categories()
        for category, items in self._by_category("pairs"):
            for index, item in enumerate(items):
                self._read_pair(category, item, ("pairs", category, str(index)))
        for category, items in self._by_category("sets"):
            self._read_set(category, items)
        if not self.entries and not self.problems.found:
            self.problems.add(("pairs",), "expected at least one pair or set; came none")
        self._check_cycles()
        return Lexicon(
            self.name, self.sides, {name: c["source"] for name, c in self.categories.items()},
            self.entries, self._read_keep(), self._read_reasons("leave_out", None),
            self._read_reasons("fixed", self.sides),
        )  # fmt: skip

    def _read_sides(self) -> None:
        if self.one_way or ("sides" not in self.value and "pairs" not in self.value):
            if self.one_way and "sides" in self.value:
                self.problems.add(("sides",), "a one-way lexicon has no sides; give one of the two")
            return
        sides: Any = self.value.get("sides")
        fine = isinstance(sides, list) and len(sides) == 2 and all(isinstance(s, str) and s for s in sides)
        if not fine or sides[0] == sides[1]:
            came = shown_value(sides)
            self.problems.add(
                ("sides",), f"expected two names, as [male, female], or one_way: true; came {came}"
            )
            return
        self.sides = (sides[0], sides[1])

    def _read_categories(self) -> None:
        from tunescope.rewriting.rules import RULES

        found = self.value.get("categories")
        if not isinstance(found, dict) or not found:
            self.problems.add(
                ("categories",), f"expected each category with its source; came {shown_value(found)}"
            )
            return
        for name, given in found.items():
            options = {"source": given} if isinstance(given, str) else given
            if not isinstance(options, dict) or not options.get("source"):
                text = "expected a source: a paper, a public list, or own"
                self.problems.add(("categories", name), text)
                options = {"source": "own"}
            for key in options:
                if key not in CATEGORY_KEYS:
                    self.problems.add(("categories", name, key), unknown("key", key, CATEGORY_KEYS))
            rule = options.get("rule", "always")
            if rule not in RULES:
                self.problems.add(("categories", name, "rule"), unknown("rule", rule, RULES))
                rule = "always"
            self.categories[str(name)] = {"source": str(options["source"]), "rule": rule}

    def _by_category(self, section: str) -> Iterator[tuple[str, list[Any]]]:
        found = self.value.get(section, {})
        if not isinstance(found, dict):
            self.problems.add((section,), f"expected lists by category; came {shown_value(found)}")
            return
        for category, items in found.items():
            if category not in self.categories:
                self.problems.add((section, category), unknown("category", category, self.categories))
            elif not isinstance(items, list) or not items:
                self.problems.add((section, category), f"expected a list; came {shown_value(items)}")
            else:
                yield category, items

    def _read_pair(self, category: str, item: Any, key: tuple[str, ...]) -> None:
        if isinstance(item, list):
            if len(item) != 2:
                self.problems.add(key, f"expected two terms; came {len(item)}")
                return
            self._add_both(category, item[0], item[1], {}, key)
            return
        if not isinstance(item, dict):
            self.problems.add(key, f"expected [term, term] or a mapping; came {shown_value(item)}")
            return
        one = "from" in item
        allowed = (*(("from", "to", "side") if one else self.sides), *OPTION_KEYS)
        for name in item:
            if name not in allowed:
                self.problems.add((*key, str(name)), unknown("key", name, allowed))
        options = self._options(category, item, key)
        if not one:
            self._add_both(category, item.get(self.sides[0]), item.get(self.sides[1]), options, key)
            return
        side = self.sides[0] if self.one_way else item.get("side")
        if side not in self.sides:
            self.problems.add(
                (*key, "side"), f"expected {self.sides[0]} or {self.sides[1]}; came {shown_value(side)}"
            )
            return
        targets = item.get("to")
        self._add(
            category, item["from"], targets if isinstance(targets, list) else [targets], side, options, key
        )

    def _options(self, category: str, item: dict[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
        from tunescope.rewriting.rules import RULES

        options: dict[str, Any] = {}
        if "rule" in item:
            if item["rule"] not in RULES:
                self.problems.add((*key, "rule"), unknown("rule", item["rule"], RULES))
            else:
                options["rule"] = item["rule"]
        if "part_of_speech" in item:
            if item["part_of_speech"] not in PARTS_OF_SPEECH:
                self.problems.add(
                    (*key, "part_of_speech"),
                    unknown("part of speech", item["part_of_speech"], PARTS_OF_SPEECH),
                )
            options |= {"part_of_speech": str(item["part_of_speech"]), "rule": "part_of_speech"}
        if "labels" in item:
            labels = item["labels"]
            if not isinstance(labels, list) or not labels:
                self.problems.add((*key, "labels"), f"expected a list of classes; came {shown_value(labels)}")
                labels = []
            options["labels"] = tuple(str(label) for label in labels)
        if item.get("choice") is True:
            options["choice"] = True
        if item.get("source"):
            options["source"] = str(item["source"])
        return options

    def _add_both(
        self, category: str, left: Any, right: Any, options: dict[str, Any], key: tuple[str, ...]
    ) -> None:
        self._add(category, left, [right], self.sides[0], options, key)
        if not self.one_way:
            self._add(category, right, [left], self.sides[1], options, key)

    def _add(
        self,
        category: str,
        term: Any,
        targets: list[Any],
        side: str,
        options: dict[str, Any],
        key: tuple[str, ...],
    ) -> None:
        for word in (term, *targets):
            if not isinstance(word, str) or not _TERM.fullmatch(word):
                text = "expected words of letters, digits, hyphens and apostrophes, parted by one blank"
                self.problems.add(key, f"{text}; came {shown_value(word)}")
                return
        lowered = term.lower()
        if lowered in self.entries:
            before = self.problems.origin(self.places[lowered])
            self.problems.add(key, f"duplicate term {term!r}; it was given on line {before.line} already")
            return
        if lowered in {target.lower() for target in targets}:
            self.problems.add(key, f"the term {term!r} becomes itself")
            return
        own = self.categories[category]
        settings = {"rule": own["rule"], "source": own["source"], **options}
        self.places[lowered] = key
        self.entries[lowered] = Entry(lowered, tuple(t.lower() for t in targets), category, side, **settings)

    def _read_set(self, category: str, members: list[Any]) -> None:
        plain = [m.get("term") if isinstance(m, dict) else m for m in members]
        rules = [m.get("rule") if isinstance(m, dict) else None for m in members]
        lowered = [str(member).lower() for member in plain]
        if len(members) < 2:
            self.problems.add(("sets", category), "expected at least two members; came one")
        for place, member in enumerate(plain):
            key = ("sets", category, str(place))
            others = [other for other in lowered if other != lowered[place]] or ["-"]
            before = len(self.entries)
            options = self._options(category, {"rule": rules[place]} if rules[place] else {}, key)
            self._add(category, member, others[:1], WITHIN, options, key)
            if len(self.entries) > before:
                entry = self.entries[lowered[place]]
                self.entries[lowered[place]] = Entry(
                    entry.term, tuple(lowered), category, WITHIN, entry.rule, entry.source, place=place
                )

    def _read_keep(self) -> frozenset[str]:
        keep = self.value.get("keep", [])
        if not isinstance(keep, list) or not all(isinstance(phrase, str) for phrase in keep):
            self.problems.add(("keep",), f"expected a list of phrases; came {shown_value(keep)}")
            return frozenset()
        return frozenset(phrase.lower() for phrase in keep)

    def _read_reasons(self, section: str, allowed: tuple[str, ...] | None) -> dict[str, str]:
        found = self.value.get(section, {})
        if not isinstance(found, dict) or not all(isinstance(words, list) for words in found.values()):
            self.problems.add((section,), f"expected lists of words by name; came {shown_value(found)}")
            return {}
        for name in found:
            if allowed is not None and name not in allowed:
                self.problems.add((section, name), unknown("side", name, allowed))
        return {str(word).lower(): str(name) for name, words in found.items() for word in words}

    def _check_cycles(self) -> None:
        """Find terms that lead back to themselves otherwise than from one side to the other and back."""
        for term, entry in self.entries.items():
            path = [term]
            while entry.place < 0 and len(entry.targets) == 1 and entry.targets[0] in self.entries:
                following = entry.targets[0]
                if following in path:
                    self._note_cycle(path[path.index(following) :])
                    break
                path.append(following)
                entry = self.entries[following]

    def _note_cycle(self, path: list[str]) -> None:
        sides = {self.entries[term].side for term in path}
        if (len(path) == 2 and len(sides) == 2) or path[0] != min(path):
            return  # the two ends of a swap, or a cycle that is told from its first term
        shown = " -> ".join([*path, path[0]])
        advice = (
            "write the two as one pair of a two-sided lexicon" if len(path) == 2 else "part them into pairs"
        )
        self.problems.add(self.places[path[0]], f"the terms go in a cycle: {shown}; {advice}")
