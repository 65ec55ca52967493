"""Repeated texts, within splits and across them, and texts under several labels."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.audit.near import NearPairs, components
from tunescope.data.audit.words import Corpus
from tunescope.data.repeats import first_equal
from tunescope.data.rows import Rows

SHOWN = 5
EXCERPT = 160


def audit_duplicates(rows: Rows, corpus: Corpus, pairs: NearPairs | None) -> dict[str, Any]:
    """Count exact, normalised and near duplicates; each kind includes the one before it.

    Args:
        rows: Any rows.
        corpus: Their words.
        pairs: Near pairs between the first rows of equal normalised texts, or None to leave near ones out.

    Returns:
        ``exact``, ``normalised`` (equal but for case, white space and punctuation) and ``near``, each with:
        ``repeats`` (rows less distinct texts; for near ones, less clusters), ``clusters`` (of several rows),
        ``within`` (repeats per split), ``across`` (per pair of splits: ``texts`` that both have, and ``rows``
        of each split whose text the other has too; a near text counts only where the pair itself is near,
        not by a chain) and ``examples``. ``near`` adds ``pairs`` (that are not equal after normalising),
        ``candidates`` and ``bounded``, and its examples have the ``jaccard`` similarity.
    """
    exact = first_equal(rows.frame["text"])
    normalised = first_equal(corpus.normalised)
    found = {"exact": _kind(rows, exact), "normalised": _kind(rows, normalised, exact)}
    if pairs is not None:
        n = len(rows)
        linked = first_equal(pl.Series(components(n, pairs.first, pairs.second)[normalised]))
        near = _kind(rows, linked)
        near["across"] = _across(rows, normalised, pairs)
        near["examples"] = _near_examples(rows, pairs)
        near |= {"pairs": len(pairs.first), "candidates": pairs.candidates, "bounded": pairs.bounded}
        found["near"] = near
    return found


def _kind(rows: Rows, cluster: np.ndarray, finer: np.ndarray | None = None) -> dict[str, Any]:
    splits = rows.frame["split"].to_numpy()
    sizes = np.bincount(cluster, minlength=len(cluster))
    within = {s: int((splits == s).sum() - len(np.unique(cluster[splits == s]))) for s in rows.splits}
    repeats = np.arange(len(cluster)) != cluster
    if finer is not None:  # examples of what this kind adds
        repeats &= finer == np.arange(len(cluster))
    examples = [_example(rows, int(cluster[row]), int(row)) for row in np.flatnonzero(repeats)[:SHOWN]]
    return {
        "repeats": int(len(cluster) - (sizes > 0).sum()),
        "clusters": int((sizes > 1).sum()),
        "within": within,
        "across": _across(rows, cluster, None),
        "examples": examples,
    }


def _across(rows: Rows, cluster: np.ndarray, pairs: NearPairs | None) -> dict[str, Any]:
    """Count the texts that two splits share, and the rows concerned."""
    splits = rows.frame["split"].to_numpy()
    held = {s: np.bincount(cluster[splits == s], minlength=len(cluster)) > 0 for s in rows.splits}
    result = {}
    for one, two in combinations(rows.splits, 2):
        inside = {one: held[one] & held[two], two: held[one] & held[two]}
        if pairs is not None:
            for split, other in ((one, two), (two, one)):
                inside[split] = inside[split].copy()
                for a, b in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
                    inside[split][a[held[split][a] & held[other][b]]] = True
        concerned = {s: int(((splits == s) & inside[s][cluster]).sum()) for s in (one, two)}
        result[f"{one}/{two}"] = {"texts": int((inside[one] | inside[two]).sum()), "rows": concerned}
        if pairs is None:
            result[f"{one}/{two}"]["texts"] = int((held[one] & held[two]).sum())
    return result


def _example(rows: Rows, first: int, second: int) -> dict[str, Any]:
    frame = rows.frame
    return {
        "row_ids": [frame["row_id"][first], frame["row_id"][second]],
        "splits": [frame["split"][first], frame["split"][second]],
        "text": _excerpt(frame["text"][first]),
    }


def _near_examples(rows: Rows, pairs: NearPairs) -> list[dict[str, Any]]:
    splits = rows.frame["split"].to_numpy()
    crossing = splits[pairs.first] != splits[pairs.second]
    order = np.lexsort((-pairs.jaccard, ~crossing))[:SHOWN]
    return [
        _example(rows, int(pairs.first[i]), int(pairs.second[i]))
        | {"other": _excerpt(rows.frame["text"][int(pairs.second[i])]), "jaccard": float(pairs.jaccard[i])}
        for i in order
    ]


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"


def audit_conflicts(rows: Rows, corpus: Corpus) -> dict[str, Any]:
    """Count texts that stand under several labels.

    Returns:
        For ``exact`` and ``normalised`` texts: ``texts`` with several labels, ``rows`` that carry them, and
        ``ceiling``: the highest accuracy that anything that sees the text alone can have on these labelled
        rows; and ``examples`` with the labels' counts.
    """
    names = rows.labels.names
    frame = pl.DataFrame(
        {"exact": rows.frame["text"], "normalised": corpus.normalised, "label": rows.frame["label"]}
    ).filter(pl.col("label").is_not_null())
    found: dict[str, Any] = {}
    for kind in ("exact", "normalised"):
        counts = frame.group_by(kind, "label").agg(pl.len().alias("rows"))
        texts = counts.group_by(kind).agg(
            pl.len().alias("labels"), pl.col("rows").sum(), pl.col("rows").max().alias("best")
        )
        several = texts.filter(pl.col("labels") > 1)
        found[kind] = {
            "texts": several.height,
            "rows": int(several["rows"].sum()),
            "ceiling": float(texts["best"].sum() / frame.height) if frame.height else None,
        }
        if kind == "exact":
            shown = several.sort("rows", kind, descending=[True, False]).head(SHOWN)
            votes = counts.join(shown.select(kind), on=kind, how="semi").sort("label")
            found["examples"] = [
                {
                    "text": _excerpt(text),
                    "labels": {names[label]: n for t, label, n in votes.iter_rows() if t == text},
                }
                for text in shown[kind]
            ]
    return found
