"""The builtin suites: rows of the study rewritten by a shipped lexicon or a perturbation, with their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tunescope.behaviour.suite import CONTROL_COLUMNS, Suite, pair_table
from tunescope.data.split import hash_order
from tunescope.progress import SILENT, Progress
from tunescope.seeds import derive_seed

if TYPE_CHECKING:
    from tunescope.rewriting import Lexicon, Rewritten

LEXICONS = {
    "gender": "rows with gendered words, all of them swapped together",
    "race": "rows that name a person's race or origin, swapped",
    "synonyms": "rows with a word of study 000's 60 synonym pairs, replaced where it is of the same part of speech",
    "synonyms-published": "rows with a word of study 000's 60 synonym pairs, replaced whatever its part of speech",
}
PERTURBED = {
    "names": ("neutral_names", "rows with a first name, replaced by another of the same gender and origin"),
    "typos": ("typos", "rows with a letter swapped, lost or doubled"),
    "casing": ("casing", "rows in other letter case"),
    "contractions": ("contractions", "rows with words contracted or written out"),
    "punctuation": ("punctuation", "rows with punctuation added or taken away"),
}
WORDNET = "wordnet"
ABOUT_WORDNET = "rows with one of the frequent words of their class in train, replaced by its WordNet synonym"
WORDNET_WORDS = 300  # of each class, or of all texts where they have no class
BUILTIN = (*LEXICONS, WORDNET, *PERTURBED)
NAMES, RANDOM = "neutral_names", "random_words"
# Exchanging letters, case or punctuation marks has no counterpart among random words.
CONTROLS_OF: dict[str, tuple[str, ...]] = {
    "gender": (NAMES, RANDOM), "race": (NAMES, RANDOM), "synonyms": (RANDOM,), "synonyms-published": (RANDOM,),
    "wordnet": (RANDOM,), "names": (RANDOM,), "typos": (RANDOM,), "casing": (), "contractions": (), "punctuation": (),
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """The rows that suites rewrite.

    Attributes:
        rows: ``row_id``, ``text`` and ``label`` (the label's name, or null).
        train_texts: Texts that word frequencies are counted in: train rows. Random words may be counted in the rows
            themselves; the words that ``wordnet`` replaces may not.
        groups: By row id, the group of rows that are not independent; None: equal texts form a group.
        seed: Seeds perturbations, controls and the draw of rows.
        most: The most touched rows of a suite; None for all.
        controls: Whether to make controls.
        train_labels: The label's name of each train text, or null; None: they have none.
    """

    rows: pl.DataFrame
    train_texts: Sequence[str]
    groups: Mapping[str, str] | None = None
    seed: int = 0
    most: int | None = None
    controls: bool = True
    train_labels: Sequence[str | None] | None = None


def builtin_suite(name: str, material: Material, progress: Progress = SILENT) -> Suite:
    """Return a builtin suite of the rows.

    Args:
        name: One of :data:`BUILTIN`.
        material: The rows.
        progress: Where to report.

    Raises:
        MissingDependencyError: The suite is ``wordnet``, and nltk or its WordNet data is not installed.
    """
    if name in LEXICONS:
        return lexicon_suite(name, name, LEXICONS[name], material, progress)
    if name == WORDNET:
        from tunescope.rewriting import frequent_synonyms

        found = frequent_synonyms(material.train_texts, material.train_labels, most=WORDNET_WORDS)
        return lexicon_suite(name, found, ABOUT_WORDNET, material, progress)
    perturbation, about = PERTURBED[name]
    return perturbed_suite(name, perturbation, about, material, progress)


def lexicon_suite(
    name: str,
    lexicon: str | Lexicon,
    about: str,
    material: Material,
    progress: Progress = SILENT,
    **more: Any,
) -> Suite:
    """Return the suite that a lexicon makes of the rows: every row that holds one of its terms.

    Args:
        name: The suite's name.
        lexicon: Name of a shipped lexicon, a file, or a lexicon.
        about: One sentence.
        material: The rows.
        progress: Where to report.
        more: Further fields of the suite.

    Raises:
        ConfigError: The lexicon is not valid.
    """
    from tunescope.rewriting import load_lexicon

    loaded = load_lexicon(lexicon) if isinstance(lexicon, str) else lexicon
    found, notes = _by_class(loaded, material, progress)
    return _suite(name, about, found, material, loaded.terms, {"notes": notes, **more})


def _by_class(lexicon: Lexicon, material: Material, progress: Progress) -> tuple[Rewritten, tuple[str, ...]]:
    """Rewrite all rows, those of each class with the terms of that class where the lexicon has any for it."""
    from tunescope.rewriting import Rewritten, rewrite_rows

    keep = partial(_drawn, material=material)
    named = {label for entry in lexicon.entries.values() for label in entry.labels}
    labels = sorted(set(material.rows["label"].drop_nulls().unique()) & named)
    if not labels:
        every = (
            ("its terms belong to classes that these rows do not have; all are looked for",) if named else ()
        )
        return rewrite_rows(material.rows, lexicon, seed=material.seed, progress=progress, keep=keep), every
    parts = []
    for label in labels:
        own = material.rows.filter(pl.col("label") == label)
        parts.append(
            rewrite_rows(own, lexicon.only(label=label), seed=material.seed, progress=progress, keep=keep)
        )
    rest = material.rows.height - sum(part.counts["rows"] for part in parts)
    counts = {"rows": material.rows.height, "touched": sum(part.counts["touched"] for part in parts)}
    counts["untouched"] = sum(part.counts["untouched"] for part in parts) + rest
    unresolved: dict[str, int] = {}
    for part in parts:
        for reason, count in part.counts["unresolved"].items():
            unresolved[reason] = unresolved.get(reason, 0) + count
    pairs = pl.concat([part.pairs for part in parts])
    left = pl.concat([part.unresolved for part in parts])
    note = "each word is replaced in rows of the classes that it is listed for"
    return Rewritten(pairs, left, {**counts, "unresolved": unresolved}), (note,)


def perturbed_suite(
    name: str,
    perturbation: str,
    about: str,
    material: Material,
    progress: Progress = SILENT,
    **more: Any,
) -> Suite:
    """Return the suite that a perturbation makes of the rows: every row that it changes."""
    from tunescope.rewriting import perturb

    found = perturb(
        material.rows, perturbation, seed=derive_seed(material.seed, f"behaviour {name}"), progress=progress,
        keep=partial(_drawn, material=material),
    )  # fmt: skip
    return _suite(name, about, found, material, (), more)


def _suite(
    name: str,
    about: str,
    found: Rewritten,
    material: Material,
    looked_for: Sequence[str],
    more: Mapping[str, Any],
) -> Suite:
    """Return the suite of rewritten rows: pairs with their labels and groups, controls, and counts."""
    pairs = _drawn(found.pairs, material)
    touched = int(found.counts["touched"])
    text = pairs["original"] if material.groups is None else _grouped(pairs, material.groups)
    table = pair_table(pairs.with_columns(text.alias("text")))
    counts = {"rows": found.counts["rows"], "touched": touched, "untouched": found.counts["untouched"]}
    counts |= {
        f"left out: {reason}": count for reason, count in (found.counts.get("unresolved") or {}).items()
    }
    drawn = f"{pairs.height:,} of {touched:,} touched rows, drawn by row id"
    notes = [*more.get("notes", ()), *([] if pairs.height == touched else [drawn])]
    settings = {"kind": "invariance", **more, "notes": tuple(notes)}
    return Suite(
        name, about=about, pairs=table, controls=_controls(name, pairs, material), counts=counts,
        looked_for=looked_for, **settings,
    )  # fmt: skip


def _drawn(pairs: pl.DataFrame, material: Material) -> pl.DataFrame:
    """Keep at most so many pairs, by a hash of their row ids, in the order of the rows."""
    if material.most is None or pairs.height <= material.most:
        return pairs
    order = hash_order(pairs["row_id"].to_list(), material.seed, "behaviour")
    return pairs[np.sort(np.argsort(order, kind="stable")[: material.most])]


def _grouped(pairs: pl.DataFrame, groups: Mapping[str, str]) -> pl.Series:
    return pl.Series("text", [groups.get(row, row) for row in pairs["row_id"]], dtype=pl.String)


def _controls(name: str, pairs: pl.DataFrame, material: Material) -> pl.DataFrame:
    """Return what the pairs are held against; a control that touches no row is left out."""
    from tunescope.rewriting import controls

    wanted = CONTROLS_OF.get(name, (RANDOM,)) if material.controls else ()
    tables = []
    for control in wanted:
        if pairs.height == 0:
            continue
        seed = derive_seed(material.seed, f"behaviour {name} {control}")
        made = controls(pairs, control, seed=seed, train_texts=material.train_texts).pairs
        own = made.select("row_id", "original", "rewritten").join(
            pairs.select("row_id", "pair_id"), on="row_id"
        )
        tables.append(own.select("pair_id", pl.lit(control).alias("control"), "original", "rewritten"))
    empty = pl.DataFrame(schema=CONTROL_COLUMNS)
    return pl.concat([empty, *tables])
