"""A suite of behaviour: pairs of texts (or single texts) and what should hold between them.

Three kinds, after CheckList (Ribeiro et al. 2020): *minimum functionality* (a text and the label it must get),
*invariance* (two texts whose prediction should be the same) and *directional* (two texts, and which way the
prediction should move).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl

from tunescope.errors import DataError

Kind = Literal["minimum_functionality", "invariance", "directional"]
KINDS: tuple[Kind, ...] = ("minimum_functionality", "invariance", "directional")
CLUSTERS = ("text", "template", "name")
DIRECTION = re.compile(r"\s*(.+?)(?:\s+to\s+|_to_|\s*(?:->|→|>)\s*)(.+?)\s*")
PAIR_COLUMNS: dict[str, Any] = {
    "pair_id": pl.String(), "row_id": pl.String(), "original": pl.String(), "rewritten": pl.String(),
    "label": pl.String(), "direction": pl.String(), "terms": pl.List(pl.String()), "text": pl.String(),
    "template": pl.String(), "name": pl.String(),
}  # fmt: skip
CONTROL_COLUMNS: dict[str, Any] = {
    "pair_id": pl.String(), "control": pl.String(), "original": pl.String(), "rewritten": pl.String(),
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """Which way a directional pair should move.

    Attributes:
        label: The class that is looked at; None is the true class, or the one predicted for the original.
        change: ``up`` or ``down``.
        by: The least size of the change.
        of: ``margin`` (in logits) or ``probability``.
    """

    label: str | None
    change: Literal["up", "down"]
    by: float = 0.0
    of: Literal["margin", "probability"] = "margin"


@dataclass(frozen=True)
class Suite:
    """One suite, ready to be measured.

    Attributes:
        name: Its name.
        kind: One of :data:`KINDS`.
        about: One sentence that says what it tests.
        pairs: The columns of :data:`PAIR_COLUMNS`; ``rewritten`` is null in minimum functionality tests. ``text``,
            ``template`` and ``name`` say which pairs are not independent of one another; null where unknown.
        controls: The columns of :data:`CONTROL_COLUMNS`: what each pair is held against, any number for a pair.
        counts: How many rows were looked at, touched, left alone and left out, by reason.
        looked_for: The terms that rewriting looked for, for the message that none was found.
        expected: For directional suites.
        tolerated: The share of failures that minimum functionality and directional suites may have.
        notes: What the reader must know.
    """

    name: str
    kind: Kind
    about: str
    pairs: pl.DataFrame
    controls: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CONTROL_COLUMNS))
    counts: Mapping[str, int] = field(default_factory=dict)
    looked_for: Sequence[str] = ()
    expected: Expected | None = None
    tolerated: float = 0.05
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing = [name for name in PAIR_COLUMNS if name not in self.pairs.columns]
        if missing:
            raise ValueError(f"{self.name}: the pairs lack {', '.join(missing)}; make them with pair_table()")
        if self.kind == "directional" and self.expected is None:
            raise ValueError(f"{self.name}: a directional suite says what it expects")

    def __len__(self) -> int:
        return self.pairs.height

    @property
    def orientation(self) -> tuple[str, str] | None:
        """The categories (from, to) that signed changes are turned to; None where pairs have no opposite directions.

        Where both "a to b" and "b to a" stand in the suite, changes are turned to lead to the category that comes first
        in the alphabet: ``male to female``, so that a positive change speaks for female.
        """
        found = {
            parts for name in self.pairs["direction"].unique() if (parts := split_direction(name)) is not None
        }
        for first, second in sorted(found):
            if first > second and (second, first) in found:
                return first, second
        return None

    def signs(self) -> np.ndarray:
        """Return +1, -1 or 0 for every pair `[n]`: how its change is turned; +1 everywhere without an orientation."""
        turned = self.orientation
        if turned is None:
            return np.ones(len(self))
        known = {turned: 1.0, (turned[1], turned[0]): -1.0}
        return np.array([known.get(split_direction(name), 0.0) for name in self.pairs["direction"]])  # type: ignore[arg-type]

    def cluster_columns(self) -> dict[str, np.ndarray]:
        """Return the groups of pairs that are not independent, by name: each column that groups any pairs at all.

        A pair without a value is a group of its own. Without any grouping the pairs themselves are the groups. What all
        pairs share, as a suite's only template, groups nothing: the numbers speak for it alone.
        """
        found = {}
        for name in CLUSTERS:
            column = self.pairs[name]
            if column.null_count() == 0 and column.n_unique() < 2 and len(column) > 1:
                continue
            if (
                column.null_count() < len(column)
                and column.drop_nulls().n_unique() < len(column) - column.null_count()
            ):
                own = [
                    f"pair {index}" if value is None else f"={value}" for index, value in enumerate(column)
                ]
                found[name] = np.unique(np.array(own, dtype=object), return_inverse=True)[1]
        return found or {"pair": np.arange(len(self))}


def split_direction(name: str | None) -> tuple[str, str] | None:
    """Return the two categories of a direction such as ``female to male``, or None (``mixed``, none given)."""
    match = DIRECTION.fullmatch(name or "")
    return (match[1], match[2]) if match else None


def pair_table(records: Sequence[Mapping[str, Any]] | pl.DataFrame) -> pl.DataFrame:
    """Return pairs with all columns of :data:`PAIR_COLUMNS`; what is not given is null, ids are made of the order.

    Args:
        records: One mapping a pair, or a table; at least ``original``.
    """
    if isinstance(records, pl.DataFrame):
        table = records
    else:
        kept = [{key: record.get(key) for key in PAIR_COLUMNS} for record in records]
        table = pl.DataFrame(kept, schema=PAIR_COLUMNS)
    if "pair_id" not in table.columns or table["pair_id"].null_count() == table.height:
        ids = pl.Series("pair_id", [f"{index:06d}" for index in range(table.height)], dtype=pl.String)
        table = table.with_columns(ids)
    missing = [
        pl.lit(None, kind).alias(name) for name, kind in PAIR_COLUMNS.items() if name not in table.columns
    ]
    table = table.with_columns(missing).select(
        [pl.col(name).cast(kind) for name, kind in PAIR_COLUMNS.items()]
    )
    return table.with_columns(pl.col("row_id").fill_null(pl.col("pair_id")))


def require_pairs(suite: Suite) -> None:
    """Refuse a suite that touches nothing.

    Raises:
        DataError: There are no pairs; the message says how many rows were looked at, and for which terms.
    """
    if len(suite):
        return
    rows = suite.counts.get("rows")
    looked = "" if rows is None else f" of {rows:,} rows"
    terms = ""
    if suite.looked_for:
        shown = ", ".join(list(suite.looked_for)[:12])
        more = f" and {len(suite.looked_for) - 12:,} more" if len(suite.looked_for) > 12 else ""
        terms = f" It looked for {len(suite.looked_for):,} terms: {shown}{more}."
    reasons = [
        f"{count:,} {name}"
        for name, count in suite.counts.items()
        if count and name not in ("rows", "touched")
    ]
    left = f" ({', '.join(reasons)})" if reasons else ""
    raise DataError(
        f"The suite {suite.name!r} touches none{looked}{left}.{terms}",
        hint="Take the suite out, look at more rows, or give a lexicon of terms that stand in these texts.",
    )
