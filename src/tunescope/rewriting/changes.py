"""What a rewrite gives: the changed places of a text, the pair of texts, tables of pairs and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

ARTICLE = "article"
MIXED = "mixed"

CHANGE_FIELDS: dict[str, Any] = {
    "start": pl.Int64, "end": pl.Int64, "old": pl.String,
    "new_start": pl.Int64, "new_end": pl.Int64, "new": pl.String,
    "term": pl.String, "category": pl.String,
}  # fmt: skip
CHANGE_TYPE = pl.Struct(CHANGE_FIELDS)
PAIR_SCHEMA: dict[str, Any] = {
    "pair_id": pl.String, "row_id": pl.String, "direction": pl.String,
    "original": pl.String, "rewritten": pl.String,
    "terms": pl.List(pl.String), "categories": pl.List(pl.String), "changes": pl.List(CHANGE_TYPE),
}  # fmt: skip
UNRESOLVED_SCHEMA: dict[str, Any] = {
    "row_id": pl.String, "reason": pl.String, "term": pl.String, "start": pl.Int64, "end": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One place that a rewrite changed.

    Attributes:
        start: Where the old words begin in the original text, in characters.
        end: Where they end (the next character), so that ``text[start:end] == old``.
        old: The old words, as written.
        new_start: Where the new words begin in the rewritten text.
        new_end: Where they end, so that ``rewritten[new_start:new_end] == new``.
        new: The new words, in the old ones' case.
        term: The lexicon's term, in lower case; of a perturbation the word it was applied to.
        category: The term's category (``pronoun``, ``kinship``, ...), or ``article`` for an a or an that had
            to follow its word.
    """

    start: int
    end: int
    old: str
    new_start: int
    new_end: int
    new: str
    term: str
    category: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A text and its counterpart: equal but for ``changes``.

    Attributes:
        text: The original text.
        rewritten: The counterpart.
        changes: The changed places, from left to right; they do not overlap.
        direction: From which side to which, as ``male_to_female``; ``mixed`` where both occur.
    """

    text: str
    rewritten: str
    changes: tuple[Change, ...]
    direction: str

    @property
    def terms(self) -> list[str]:
        """The distinct terms that were changed, in their order; articles that followed are none."""
        return list(dict.fromkeys(c.term for c in self.changes if c.category != ARTICLE))

    @property
    def categories(self) -> list[str]:
        """The distinct categories of :attr:`terms`."""
        return list(dict.fromkeys(c.category for c in self.changes if c.category != ARTICLE))


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A text that holds a term whose counterpart cannot be known; it is left out and counted.

    Attributes:
        reason: What could not be told, as ``role_of_her``.
        term: The term.
        start: Where it begins in the text.
        end: Where it ends.
    """

    reason: str
    term: str
    start: int
    end: int


@dataclass(frozen=True)
class Rewritten:
    """The rewrites of a table of texts.

    Attributes:
        pairs: One row a touched text: ``pair_id``, ``row_id``, ``direction``, ``original``, ``rewritten``,
            ``terms``, ``categories`` (lists of text), ``changes`` (list of structs, the fields of
            :class:`Change`), then the source's other columns; in the rows' own order.
        unresolved: One row a text that was left out: ``row_id, reason, term, start, end``.
        counts: ``rows``, ``touched``, ``untouched``, ``unresolved`` (by reason), ``terms`` (touched rows by
            term), ``directions`` (touched rows by direction), ``choices`` (by term: changes whose counterpart
            was one of several that are right, as Mr. -> Ms.).
    """

    pairs: pl.DataFrame
    unresolved: pl.DataFrame
    counts: dict[str, Any] = field(default_factory=dict)
