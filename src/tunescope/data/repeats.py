"""Repeated texts: which rows hang together, what given splits share, and leaving repeats out."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal

import numpy as np
import polars as pl

from tunescope.data.rows import SPLITS
from tunescope.data.split import hash_order
from tunescope.progress import SILENT, Progress

Sameness = Literal["exact", "normalised", "near"]
SAME = {
    "exact": "equal texts",
    "normalised": "texts equal but for case, white space and punctuation",
    "near": "near-duplicate texts (Jaccard similarity of runs of 3 words of .7 or more)",
}


def first_equal(column: pl.Series) -> np.ndarray:
    """Return for every row the index of the first row with the same value, int64 [N]."""
    frame = column.alias("value").to_frame().with_row_index("row")
    return frame.select(pl.col("row").min().over("value"))["row"].to_numpy().astype(np.int64)


def clusters(texts: pl.Series, how: Sameness, progress: Progress = SILENT) -> np.ndarray:
    """Return the cluster of each text as the index of its first row, int64 [N].

    ``exact``: equal texts. ``normalised``: equal but for case, white space and punctuation. ``near``: linked
    by pairs of texts whose sets of runs of 3 words have a Jaccard similarity of .7 or more, also in chains.

    Args:
        texts: Any texts, none null.
        how: What counts as the same.
        progress: Where to report.
    """
    if how == "exact":
        return first_equal(texts)
    from tunescope.data.audit.near import components, near_pairs
    from tunescope.data.audit.words import corpus_of

    corpus = corpus_of(texts, progress)
    first = first_equal(corpus.normalised)
    if how == "normalised":
        return first
    pairs = near_pairs(corpus, np.unique(first), progress=progress)
    linked = components(len(first), pairs.first, pairs.second)[first]
    return first_equal(pl.Series(linked))


def relations(frame: pl.DataFrame, grouped: bool) -> dict[str, Any]:
    """Count repeated texts, texts with several labels, and texts (and groups) that given splits share.

    Args:
        frame: With ``split``, ``label``, ``_hash`` (of the text) and ``_group``.
        grouped: Whether ``_group`` holds groups.
    """
    given = [split for split in SPLITS if (frame["split"] == split).any()]
    texts = {split: set(frame.filter(pl.col("split") == split)["_hash"]) for split in given}
    labelled = frame.filter(pl.col("label").is_not_null())
    conflicts = labelled.group_by("_hash").agg(pl.col("label").n_unique().alias("n")).filter(pl.col("n") > 1)
    found: dict[str, Any] = {
        "repeats": frame.height - frame["_hash"].n_unique(),
        "repeats_within": {s: int((frame["split"] == s).sum()) - len(texts[s]) for s in given},
        "shared": {f"{a}/{b}": len(texts[a] & texts[b]) for a, b in combinations(given, 2)},
        "label_conflicts": conflicts.height,
    }
    if grouped:
        groups = {s: set(frame.filter(pl.col("split") == s)["_group"].drop_nulls()) for s in given}
        found["shared_groups"] = {f"{a}/{b}": len(groups[a] & groups[b]) for a, b in combinations(given, 2)}
    return found


def cluster_groups(frame: pl.DataFrame, progress: Progress = SILENT) -> pl.Series:
    """Return a group for every near-duplicate cluster of several texts: its smallest text hash, else null."""
    cluster = pl.Series("cluster", clusters(frame["text"], "near", progress))
    keyed = frame.select("_hash").with_columns(cluster)
    several = pl.col("_hash").n_unique().over("cluster") > 1
    smallest = pl.col("_hash").min().over("cluster")
    return keyed.select(pl.when(several).then(smallest).alias("_group"))["_group"]


def deduplicated(
    frame: pl.DataFrame, how: Sameness, pool: np.ndarray, progress: Progress = SILENT
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Leave out repeats: train rows that validation or test has too, and all but one of each cluster of train.

    Of a cluster with several labels a row of the most frequent one stays (of equally frequent ones, which is
    as good as random and depends on ids alone). Rows of validation and test all stay.

    Args:
        frame: With ``row_id``, ``text`` and ``label``.
        how: What counts as the same.
        pool: The rows of train, or whose split is not given yet, bool [N].
        progress: Where to report.

    Returns:
        The rows that stay, in order, and the account: what was left out, with ids.
    """
    cluster = clusters(frame["text"], how, progress)
    held = np.zeros(frame.height, dtype=bool)
    held[cluster[~pool]] = True
    shared = pool & held[cluster]
    order = pl.Series("order", hash_order(frame["row_id"].to_list(), 0, "deduplicate"))
    candidates = (
        frame.select("label", "row_id")
        .with_columns(pl.Series("cluster", cluster), order)
        .with_row_index("row")
        .filter(pl.Series(pool & ~shared))
        .with_columns(
            votes=pl.len().over("cluster", "label"), labels=pl.col("label").n_unique().over("cluster")
        )
        .sort("votes", "order", "row_id", descending=[True, False, False])
    )
    best = candidates.unique("cluster", keep="first", maintain_order=True)
    keep = ~pool
    keep[best["row"].to_numpy()] = True
    repeats = pool & ~shared & ~keep
    account = {
        "how": how,
        "kept": int(keep.sum()),
        "repeats_in_train": int(repeats.sum()),
        "also_in_validation_or_test": int(shared.sum()),
        "clusters_with_several_labels": int((best["labels"] > 1).sum()),
        "row_ids": frame["row_id"].filter(pl.Series(~keep)).to_list(),
    }
    return frame.filter(pl.Series(keep)), account
