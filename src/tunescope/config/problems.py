"""Problems of a study, gathered so that all of them are told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.errors import ConfigError

Key = tuple[str, ...]
LONGEST_VALUE = 60
MOST_CANDIDATES = 30


@dataclass(frozen=True)
class Origin:
    """Where a value of the study was written: a file and its line, an override, or a mapping in Python."""

    file: Path | None = None
    line: int | None = None
    override: str | None = None

    def __str__(self) -> str:
        if self.override is not None:
            return f"--set {self.override}"
        if self.file is None:
            return ""
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands, which key, and what was expected and came."""

    origin: Origin
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.origin), self.key, self.text) if part)


@dataclass
class Problems:
    """The problems found so far, with the map from keys to where they were written."""

    origins: dict[Key, Origin] = field(default_factory=dict)
    found: list[Problem] = field(default_factory=list)
    names: dict[Key, str] = field(default_factory=dict)
    subject: str = "The study is"

    def add(self, key: Iterable[Any], text: str) -> None:
        """Note a problem of ``key``; its place is that of the nearest key above it that was written."""
        parts = tuple(str(part) for part in key)
        problem = Problem(self.origin(parts), self.shown(parts), text)
        if problem not in self.found:
            self.found.append(problem)

    def origin(self, key: Key) -> Origin:
        """Return where ``key``, or the nearest key above it, was written."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.origins:
                return self.origins[key[:end]]
        return Origin()

    def shown(self, key: Key) -> str:
        """Return the key as overrides write it: arms and lenses by name where they have one."""
        return ".".join(self.names.get(key[: end + 1], part) for end, part in enumerate(key))

    def raise_all(self) -> None:
        """Raise one error that tells all problems, if there are any.

        Raises:
            ConfigError: There is at least one problem.
        """
        if not self.found:
            return
        ordered = sorted(
            self.found, key=lambda p: (p.origin.override or "", str(p.origin.file), p.origin.line or 0)
        )
        if len(ordered) == 1:
            message = f"{self.subject} not valid. {ordered[0]}"
        else:
            lines = "\n".join(f"  {problem}" for problem in ordered)
            message = f"{self.subject} not valid; it has {len(ordered)} problems:\n{lines}"
        raise ConfigError(
            message,
            hint="Correct these keys and try again; `tunescope validate` checks a study without training.",
        )


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the first candidate that starts with ``word``, or the one most like it, or None."""
    by_folded = {_folded(candidate): candidate for candidate in candidates}
    starts = [
        name for folded, name in by_folded.items() if len(word) > 2 and folded.startswith(_folded(word))
    ]
    if starts:
        return starts[0]
    matches = difflib.get_close_matches(_folded(word), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")


def unknown(kind: str, word: Any, candidates: Iterable[str]) -> str:
    """Say that ``word`` is not one of ``candidates``, with the nearest one or all of them."""
    choices = list(candidates)
    match = nearest(str(word), choices)
    text = f"unknown {kind} {shown_value(word)}"
    if match is not None:
        return f"{text}; did you mean {match!r}?"
    if not choices:
        return f"{text}; none is possible here"
    listed = ", ".join(choices[:MOST_CANDIDATES]) + (", ..." if len(choices) > MOST_CANDIDATES else "")
    return f"{text}; expected one of: {listed}"


def shown_value(value: Any) -> str:
    """Return a value as a message shows it: short, and in words where it is not plain."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        cut = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 3] + "..."
        return repr(cut) if value else "an empty text"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"
